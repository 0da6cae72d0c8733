"""A training ends as a run: the same for the same seed, in one sentence for wrong parameters."""

import numpy as np
import pytest
import torch

from mmctr.errors import ConfigError, RunError
from mmctr.runs.run import Run
from mmctr.runs.train import resume, train
from mmctr.runs.verify import rerun, verify
from mmctr.training.config import configs
from tests.data.folders import load_changed
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
