"""A training ends as a run: the same for the same seed, in one sentence for wrong parameters."""

import shutil

import numpy as np
import pandas as pd
import pytest
import torch

from mmctr.data.dataset import Dataset
from mmctr.data.erroneous import excluding, save_errors
from mmctr.data.part import part_of_train
from mmctr.errors import ConfigError, RunError
from mmctr.runs.card import run_card
from mmctr.runs.run import Run
from mmctr.runs.train import resume, train, train_from
from mmctr.runs.verify import rerun, verify
from mmctr.training.config import configs
from mmctr.training.prediction import predict
from tests.data.folders import load_changed
from tests.runs.conftest import renumbered
from tests.runs.test_unfinished import require_equal, stop_at
from tests.training.test_trainer import SMALL


@pytest.fixture
def threads(request):
    """torch with as many threads as the parameter says."""
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    yield
    torch.set_num_threads(before)


@pytest.mark.usefixtures("threads")
@pytest.mark.parametrize(
    ("attention", "bilinear", "threads"),
    [("dot", "all", 1), ("dot", "interaction", 2), ("mlp", "all", 2)],
    indirect=["threads"],
)
def test_two_runs_with_one_seed_are_identical(tiny, tmp_path, attention, bilinear):
    parameters = SMALL | {"attention": attention, "bilinear": bilinear, "epochs": 1}
    first, second, other = (
        train(tiny, "v4", *configs(**parameters, seed=seed), tmp_path) for seed in (1, 1, 2)
    )
    assert first.summary["metrics"] == second.summary["metrics"]
    assert first.summary["metrics"] != other.summary["metrics"]
    weights, again, others = (run.model().state_dict() for run in (first, second, other))
    assert all(torch.equal(weights[name], again[name]) for name in weights)
    assert not torch.equal(weights["embedding.id.weight"], others["embedding.id.weight"])


def test_global_random_numbers_do_not_matter(tiny, tmp_path):
    small = configs(**SMALL | {"epochs": 1, "embedding_dim": 4, "heads": 1, "hidden": (4,)})
    runs = []
    for seed in (5, 6):
        np.random.seed(seed)
        torch.manual_seed(seed)
        runs.append(train(tiny, "provided:item_emb_d128", *small, tmp_path))
    assert runs[0].summary["metrics"] == runs[1].summary["metrics"]


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"device": "tpu"}, "Parameter 'device' is 'tpu', expected one of 'auto', 'cpu'"),
        ({"device": "mps"}, "which this machine does not have: choose one of 'cpu'"),
        ({"colour": 1}, "Parameter 'colour' is unknown: choose one of embedding_dim"),
        ({"epochs": 0}, "Parameter 'epochs' is 0, expected greater than 0"),
        ({"patience": 1.5}, "Parameter 'patience' is 1.5, expected a valid integer"),
        ({"learning_rate": "fast"}, "Parameter 'learning_rate' is 'fast', expected a valid number"),
    ],
)
def test_wrong_parameters_are_one_sentence(tiny, tmp_path, monkeypatch, parameters, message):
    monkeypatch.setattr(torch.mps, "is_available", lambda: False)
    with pytest.raises(ConfigError, match=message):
        train(tiny, "v4", *configs(**parameters), tmp_path)
    assert not list(tmp_path.iterdir())


QUICK = {"epochs": 1, "embedding_dim": 8, "heads": 2, "hidden": (16,), "batch_size": 256}
FEW = configs(epochs=2, embedding_dim=4, heads=1, hidden=(8,), batch_size=3)
FINETUNED = configs(epochs=2, embedding_dim=4, heads=1, hidden=(8,), content="finetuned")


@pytest.fixture
def narrow(tmp_path):
    """Four items, text features of width 3 and image features of width 2."""
    return load_changed(tmp_path / "narrow", {})


@pytest.mark.parametrize(("strategy", "width"), [("v1", 3), ("v2", 2), ("v3", 4), ("v4", 5)])
@pytest.mark.parametrize("small", [FEW, FINETUNED])
def test_a_narrow_run_trains_loads_verifies_and_runs_again(
    narrow, tmp_path, strategy, width, small
):
    run = Run.load(train(narrow, strategy, *small, tmp_path / "runs").folder)
    assert run.model().state_dict()["embedding.content"].shape[1] == width
    run.require_fit(narrow)
    assert verify(run, narrow) == ([], [])
    again, words = rerun(run, narrow, tmp_path / "again")
    assert words == "The weights are identical, bit for bit."
    assert verify(again, narrow) == ([], [])


def test_a_narrow_run_is_gone_on_with(narrow, tmp_path, monkeypatch):
    whole = train(narrow, "v4", *FEW, tmp_path / "whole")
    with monkeypatch.context() as patch:
        stop_at(patch, 2, KeyboardInterrupt())
        with pytest.raises(RunError, match="go on with"):
            train(narrow, "v4", *FEW, tmp_path / "runs")
    (left,) = (tmp_path / "runs").iterdir()
    require_equal(whole, resume(left, narrow))


def test_other_features_are_told_of_a_narrow_run(narrow, tmp_path):
    run = train(narrow, "v2", *FEW, tmp_path / "runs")
    wider = {"img_emb_CLIPRN50": [[4.0, -4.0, 1.0], [2.0, 9.0, 2.0], [1.0, 0, 7.0], [3.0, 5, 0]]}
    other = load_changed(tmp_path / "other", {"item_feature": wider})
    with pytest.raises(RunError, match="trained on items with other content"):
        run.require_fit(other)


@pytest.fixture
def excluding_some(tmp_path, tiny_folder):
    """The small dataset without some titles, covers and users, and the folder of the whole one."""
    folder = shutil.copytree(tiny_folder, tmp_path / "data")
    lines = [("title", str(item), "mine") for item in range(1, 40)]
    lines += [("cover", str(item), "mine") for item in range(20, 60)]
    lines += [("user", str(user), "script") for user in range(1, 30)]
    table = pd.DataFrame(lines, columns=["what", "id", "kind"]).assign(score=1.0, excluded=True)
    save_errors(folder, table, dict.fromkeys(["mine", "script"], ""))
    return excluding(Dataset.load(folder), "mine,script"), folder


def test_what_is_excluded_is_unknown_to_the_run_whatever_becomes_of_the_file(
    excluding_some, tmp_path
):
    data, folder = excluding_some
    run = Run.load(train(data, "v4", *configs(**QUICK), tmp_path / "runs").folder)
    (folder / "errors.parquet").unlink()  # the run keeps what it left out
    whole = Dataset.load(folder)
    content = run.tensor("embedding.content")
    text, image = content[:, :64], content[:, 64:]
    assert np.abs(text[1:40]).max() < 1e-3 < np.abs(text[40:]).max(axis=1).min()
    assert np.abs(image[20:60]).max() < 1e-3 < np.abs(image[60:]).max(axis=1).max()
    assert run.exclusion == data.exclusion
    assert run.summary["dataset"]["rows"]["train"] == (whole.train.user >= 30).sum()
    assert len(run.predictions) == len(whole.valid), "evaluation keeps all rows"
    assert verify(run, whole) == ([], [])
    model, drift = run.adapted(whole)
    assert drift is None
    np.testing.assert_array_equal(predict(model, whole.valid), run.predictions["probability"])
    again, words = rerun(run, whole, tmp_path / "again")
    assert words == "The weights are identical, bit for bit."
    assert again.exclusion == run.exclusion
    card = run.model().card
    assert "left out as erroneous: mine, script: 39 titles, 40 covers, 29 users" in card


def test_an_exclusion_is_part_of_what_a_training_is(excluding_some, tmp_path, monkeypatch):
    """A killed one is gone on with from the whole data, and never by a training without it."""
    data, folder = excluding_some
    whole, two = Dataset.load(folder), configs(**QUICK | {"epochs": 2})
    expected = train(data, "v4", *two, tmp_path / "whole")
    with monkeypatch.context() as patch:
        stop_at(patch, len(data.train) // 256 + 5, KeyboardInterrupt())
        with pytest.raises(RunError, match="go on with"):
            train(data, "v4", *two, tmp_path / "runs")
    (left,) = (tmp_path / "runs").iterdir()
    other = train(whole, "v4", *configs(**QUICK), tmp_path / "runs")
    assert other.exclusion is None
    assert left.exists(), "a training without exclusion is another one"
    require_equal(expected, resume(left, whole))


def test_a_run_leaves_out_of_a_catalog_that_has_grown_what_it_left_out(excluding_some, tmp_path):
    data, _ = excluding_some
    run = train(data, "v4", *configs(**QUICK), tmp_path / "runs")
    order = np.random.default_rng(0).permutation(np.arange(1, 301)).tolist()
    other = renumbered(data, order)
    whole = renumbered(Dataset.load(data.folder), order)
    assert whole.exclusion is None
    model, drift = run.adapted(whole)
    expected, _ = run.adapted(other)
    np.testing.assert_array_equal(predict(model, whole.valid), predict(expected, whole.valid))
    assert not drift.changed.any()
    next_run = train_from(run, whole, configs(epochs=1)[1], tmp_path / "next")
    assert next_run.exclusion == run.exclusion


def test_a_damaged_exclusion_is_refused(excluding_some, tmp_path):
    run = train(excluding_some[0], "v1", *configs(**QUICK), tmp_path / "runs")
    path = run.folder / "config.json"
    path.write_text(path.read_text().replace('"titles"', '"tiles"'))
    with pytest.raises(RunError, match=r"excluded: .*train the model again"):
        _ = Run.load(run.folder).exclusion


def test_a_first_look_learns_from_whole_users_and_says_so(tiny, tmp_path):
    small = SMALL | {"epochs": 1, "embedding_dim": 4, "heads": 1, "hidden": (4,), "rows": 400}
    run = train(tiny, "v5", *configs(**small), tmp_path)
    part = part_of_train(tiny, 400)
    by_hand = train(part, "v5", *configs(**small | {"rows": None}), tmp_path)
    weights, others = (one.model().state_dict() for one in (run, by_hand))
    assert all(torch.equal(weights[name], others[name]) for name in weights)
    assert run.summary["learned_from"] == {"rows": len(part.train), "of": len(tiny.train)}
    assert run.summary["dataset"]["rows"]["train"] == len(tiny.train)
    told = f"{len(part.train)} of {len(tiny.train):,} train rows: a first look"
    assert run.first_look == told
    assert f"learned from: {told}" in run_card(run.config, run.summary)
    assert (run.changes["rows"], "rows" in by_hand.changes) == (400, False)
    assert len(run.predictions) == len(tiny.valid), "evaluation is whole"
    assert verify(run, tiny) == ([], [])
    assert rerun(run, tiny, tmp_path)[1] == "The weights are identical, bit for bit."
