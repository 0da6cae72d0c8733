"""A run folder is whole or absent, reads back exactly, and refuses what does not fit."""

import json
import mmap
import shutil
import sys
from dataclasses import replace

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
from safetensors.torch import load_file

from mmctr.data.dataset import Dataset
from mmctr.data.demo import write_demo
from mmctr.data.fields import Field
from mmctr.errors import RunError
from mmctr.runs.run import Run, find_run
from mmctr.runs.train import train
from mmctr.training.config import configs
from mmctr.training.prediction import predict
from tests.data.importing.logs import ITEMS, imported
from tests.fuzz.cases import limited_memory

FILES = (
    "config.json",
    "summary.json",
    "model.safetensors",
    "metrics.jsonl",
    "predictions.parquet",
)
CARRIED = (
    "items.parquet",
    "tags.parquet",
    "strategy.json",
    "strategy.safetensors",
)  # for other catalogs


def test_a_run_reads_back_exactly(tiny, tiny_run):
    run = Run.load(tiny_run.folder)
    assert {path.name for path in run.folder.iterdir()} == {*FILES, *CARRIED}
    assert load_file(run.folder / "model.safetensors").keys() == run.model().state_dict().keys()
    assert not run.model().training
    again = predict(run.model(), tiny.valid)
    np.testing.assert_array_equal(again, run.predictions["probability"])
    assert run.predictions["target"].tolist() == tiny.valid.target.tolist()
    assert run.predictions["user"].tolist() == tiny.valid.user.tolist()
    assert run.predictions["label"].tolist() == tiny.valid.label.tolist()
    assert run.history["auc"].max() == pytest.approx(run.summary["metrics"]["auc"])
    assert (run.strategy, run.seed) == ("v4", 1)
    assert (run.config, run.summary) == (tiny_run.config, tiny_run.summary)


def use_all_of(run):
    """Read whatever a run holds."""
    return run.model(), run.history, run.predictions


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        *((name, None, f"{name} is missing") for name in FILES),
        ("summary.json", "{", "summary.json is damaged"),
        ("config.json", "\x80", "config.json is damaged"),
        ("config.json", "[]", "config.json holds no JSON object"),
        ("config.json", "{}", "config.json has no 'strategy'"),
        ("summary.json", json.dumps({"metrics": {}}), "summary.json has no 'dataset'"),
        ("metrics.jsonl", "{", "metrics.jsonl is damaged"),
        ("metrics.jsonl", "[1]", "metrics.jsonl is damaged"),
        ("metrics.jsonl", '{"epoch": 1}', r"metrics.jsonl, line 1, train_loss: .*Field required"),
        ("metrics.jsonl", "\n", "metrics.jsonl has no lines"),
        ("predictions.parquet", "no table", "predictions.parquet is damaged"),
        ("model.safetensors", "no weights", "does not fit config.json"),
        (
            "config.json",
            json.dumps({"strategy": "v4", "training": {}, "model": {}, "sizes": {}}),
            r"config.json, training.seed: found .* \(Field required\)",
        ),
    ],
)
def test_a_damaged_run_is_one_sentence(tiny_run, tmp_path, name, text, message):
    folder = tmp_path / "run"
    shutil.copytree(tiny_run.folder, folder)
    (folder / name).unlink()
    if text is not None:
        (folder / name).write_text(text, encoding="latin-1")
    with pytest.raises(RunError, match=message) as caught:
        use_all_of(Run.load(folder))
    assert str(folder) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_another_dataset_is_refused(tiny_run, tmp_path):
    other = Dataset.load(write_demo(tmp_path / "other", seed=2, items=250, users=64))
    with pytest.raises(RunError, match=r"trained with n_items = 300, but .* has 250"):
        tiny_run.require_fit(other)


def test_other_items_of_the_same_number_are_refused(tiny, tiny_run):
    tiny_run.require_fit(tiny)
    changed = np.roll(tiny.catalog.tags, 1, axis=0)
    other = replace(tiny, catalog=replace(tiny.catalog, tags=changed))
    with pytest.raises(RunError, match=r"trained on items with other tags.*: choose the run's own"):
        tiny_run.require_fit(other)


def test_items_with_other_ids_are_refused(tmp_path):
    """One item of the table is exchanged for another: nothing but its own id tells."""
    log = pd.DataFrame(
        [(f"u{n % 5}", f"i{n * 7 % 11}", n) for n in range(40)],
        columns=["user_id", "item_id", "timestamp"],
    )
    datasets = []
    for name, last in (("one", "i9"), ("same", "i9"), ("other", "j9")):
        (tmp_path / name).mkdir()
        items = ITEMS.replace({"item_id": {"i9": last}}).sample(frac=1, random_state=len(datasets))
        clicks = log.replace({"item_id": {"i9": last}})
        out, _ = imported(tmp_path / name, clicks, items, say=lambda _: None)
        datasets.append(Dataset.load(out))
    one, same, other = datasets
    small = configs(epochs=1, embedding_dim=4, heads=1, hidden=(8,))
    run = train(one, "ids", *small, tmp_path / "runs")
    run.require_fit(one)
    run.require_fit(same)
    assert other.fingerprint == one.fingerprint
    assert other.catalog.n_items == one.catalog.n_items
    assert run.has_other_ids(other.catalog)
    with pytest.raises(RunError, match=r"items with other ids than .*: choose the run's own"):
        run.require_fit(other)
    # Runs of before have no hash of ids: they are checked by what they have.
    old = Run(run.folder, run.config, json.loads(json.dumps(run.summary)))
    del old.summary["dataset"]["item_ids_sha256"]
    old.require_fit(other)


def test_a_run_on_data_without_own_ids_has_no_hash_of_them(tiny, tiny_run, named):
    assert "item_ids_sha256" not in tiny_run.summary["dataset"]
    tiny_run.require_fit(named)


@pytest.mark.parametrize("wrong", [7, ["a"]])
def test_a_damaged_hash_of_ids_is_one_sentence(tiny_run, tmp_path, wrong):
    def spoil(summary):
        summary["dataset"]["item_ids_sha256"] = wrong

    folder = edited(tiny_run, tmp_path / "run", "summary.json", spoil)
    with pytest.raises(RunError, match=r"summary.json, dataset.item_ids_sha256: found"):
        Run.load(folder)


def edited(run, folder, name, change):
    """A copy of a run whose JSON file was changed by a function."""
    shutil.copytree(run.folder, folder)
    value = json.loads((folder / name).read_text())
    change(value)
    (folder / name).write_text(json.dumps(value))
    return folder


@pytest.mark.parametrize("size", ["n_items", "n_tags", "tags_per_item", "content_width"])
def test_a_huge_size_is_refused_before_memory_is_taken(tiny_run, tmp_path, size):
    def enlarge(config):
        config["sizes"][size] = 2**40

    run = Run.load(edited(tiny_run, tmp_path / "run", "config.json", enlarge))
    with limited_memory(), pytest.raises(RunError, match=r"embedding\.[\w.]+ is .*, expected"):
        run.model()


def test_the_memory_limit_of_these_tests_bites():
    if sys.platform != "linux":
        pytest.skip("only Linux limits a process's memory")
    with limited_memory(), pytest.raises(MemoryError):
        np.empty(1 << 30, dtype=np.uint8)
    assert np.empty(1 << 30, dtype=np.uint8).nbytes == 1 << 30


def test_the_memory_limit_does_not_count_addresses_that_threads_reserve():
    with limited_memory(), mmap.mmap(-1, 1 << 30, prot=mmap.PROT_READ) as reserved:
        assert len(reserved) == 1 << 30


def test_other_rows_on_the_same_items_are_no_misfit(tiny, tiny_run):
    rows = tiny.splits | {"test": tiny.valid}
    tiny_run.require_fit(Dataset(tiny.folder, tiny.catalog, rows))


@pytest.fixture
def with_features(tiny):
    """The tiny dataset with other features in its catalog, and so with other contents."""

    def changed(**features):
        other = Dataset(tiny.folder, replace(tiny.catalog, **features), tiny.splits)
        vars(other)["fingerprint"] = "another"
        return other

    return changed


@pytest.mark.parametrize("change", ["rolled", "narrower", "scaled unevenly"])
def test_other_content_is_refused(tiny, tiny_run, with_features, change):
    text = tiny.catalog.text_features
    text = {
        "rolled": np.roll(text[1:], 1, axis=0),
        "narrower": text[1:, :40],
        "scaled unevenly": text[1:] * np.linspace(0.5, 2, len(text) - 1, dtype=np.float32)[:, None],
    }[change]
    other = with_features(text_features=np.vstack([np.zeros_like(text[:1]), text]))
    with pytest.raises(RunError, match="trained on items with other content"):
        tiny_run.require_fit(other)


def test_content_that_cannot_be_made_again_is_no_misfit(tiny_run, with_features):
    tiny_run.require_fit(with_features())
    tiny_run.require_fit(with_features(text_features=None, image_features=None))


def test_the_model_is_not_loaded_to_see_whether_it_fits(tiny, tiny_run, monkeypatch):
    def fail(*_, **__):
        raise AssertionError("the model was loaded")

    monkeypatch.setattr(Run, "model", fail)
    tiny_run.require_fit(tiny)


def test_predictions_of_other_rows_are_refused(tiny_run, tmp_path):
    folder = tmp_path / "run"
    shutil.copytree(tiny_run.folder, folder)
    table = pq.read_table(folder / "predictions.parquet")
    pq.write_table(table.slice(1), folder / "predictions.parquet")
    with pytest.raises(RunError, match=r"predictions\.parquet has 299 rows, expected 300"):
        _ = Run.load(folder).predictions


def test_a_run_refuses_data_with_other_fields(tiny_run, tiny):
    fields = (Field("device", "context", values=("p",)),)
    with pytest.raises(RunError, match="was trained with other fields, or other values of them"):
        tiny_run.require_fit(replace(tiny, row_fields=fields))


def test_probabilities_are_corrected_for_a_rate_that_is_known(tiny_run):
    probability = np.array([0.1, 0.5, 0.9])
    assert tiny_run.corrected(probability) is probability
    train = tiny_run.summary["click_rate"]["train"]
    odds = probability / (1 - probability) * (0.02 / 0.98) / (train / (1 - train))
    assert tiny_run.corrected(probability, 0.02) == pytest.approx(odds / (1 + odds))
    known = replace(tiny_run, summary={"click_rate": {"train": train, "known": 0.02}})
    assert known.corrected(probability) == pytest.approx(odds / (1 + odds))
    assert known.corrected(probability, train) == pytest.approx(probability)
    with pytest.raises(RunError, match="does not say what share of clicks it learned from"):
        replace(tiny_run, summary={}).corrected(probability, 0.02)


def test_a_run_is_found_by_its_name_and_says_what_differs_from_the_default(
    tiny_run, tmp_path, monkeypatch
):
    monkeypatch.setenv("MMCTR_HOME", str(tmp_path))
    folder = shutil.copytree(tiny_run.folder, tmp_path / "runs" / "ablation" / "a")
    assert tiny_run.address == str(tiny_run.folder.resolve())
    for name in ("ablation/a", folder, "runs/ablation/a"):
        assert find_run(name).address == "ablation/a"
    with pytest.raises(RunError, match="Found no run 'b', expected a folder or the name of one"):
        find_run("b")
    given = {"epochs": 1, "embedding_dim": 8, "heads": 2, "hidden": [16], "batch_size": 256}
    assert tiny_run.changes == given
    assert given.items() <= tiny_run.configuration.items()
    besides = {"excluded": {"kinds": ["dark", "untitled"], "titles": ["1"]}}
    besides |= {"origin": {"name": "b", "folder": "/b", "weights_sha256": "0"}}
    changed = replace(tiny_run, config=tiny_run.config | besides)
    assert changed.changes == given | {"exclude": "dark,untitled", "from": "b"}
    assert "seed" not in changed.configuration


def test_the_same_rows_of_valid_are_known_by_their_hash(tiny_run, tmp_path):
    hashes = {tiny_run.valid_rows}
    for number, change in enumerate((None, "probability", "user", "target", "label")):
        folder = shutil.copytree(tiny_run.folder, tmp_path / str(number))
        table = pd.read_parquet(folder / "predictions.parquet")
        if change:
            table.loc[0, change] = 1 - table.loc[0, change]
        table.to_parquet(folder / "predictions.parquet")
        hashes.add(Run.load(folder).valid_rows)
    assert len(hashes) == 4, "probabilities do not matter"
