"""A run folder is whole or absent, reads back exactly, and refuses what does not fit."""

import json
import shutil

import numpy as np
import pytest

from mmctr.data.dataset import Dataset
from mmctr.data.demo import write_demo
from mmctr.errors import RunError
from mmctr.training import checkpoint
from mmctr.training.checkpoint import Run
from mmctr.training.prediction import predict
from mmctr.training.trainer import configs, train


def test_a_run_reads_back_exactly(tiny, tiny_run):
    run = Run.load(tiny_run.folder)
    assert {path.name for path in run.folder.iterdir()} == {
        "config.json",
        "model.safetensors",
        "metrics.jsonl",
        "summary.json",
        "predictions.parquet",
    }
    again = predict(run.model(), tiny.valid)
    np.testing.assert_array_equal(again, run.predictions["probability"])
    assert run.predictions["target"].tolist() == tiny.valid.target.tolist()
    assert run.history["auc"].max() == pytest.approx(run.summary["metrics"]["auc"])
    assert run.summary["dataset"]["fingerprint"] == tiny.fingerprint
    assert run.summary["versions"]["torch"]
    assert (run.strategy, run.seed) == ("v4", 1)


def test_runs_of_one_second_have_folders_of_their_own(tiny, tmp_path):
    small = configs(epochs=1, embedding_dim=4, heads=1, hidden=(4,), validations=1)
    runs = [train(tiny, "provided:item_emb_d128", *small, tmp_path) for _ in range(3)]
    assert len({run.folder for run in runs}) == 3
    assert all(run.folder.parent == tmp_path and ":" not in run.name for run in runs)


def test_a_taken_name_is_never_written_over(tmp_path):
    for number, expected in enumerate(["run", "run-2", "run-3"]):
        new = tmp_path / f".new{number}"
        new.mkdir()
        (new / "file").write_text(str(number))
        assert checkpoint._move_to_free_name(new, tmp_path / "run").name == expected
    assert (tmp_path / "run" / "file").read_text() == "0"


def test_a_failed_write_leaves_nothing(tiny, tmp_path, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(checkpoint, "save_file", full)
    small = configs(epochs=1, embedding_dim=4, heads=1, hidden=(4,), validations=1)
    with pytest.raises(RunError, match="No space left on device"):
        train(tiny, "v1", *small, tmp_path)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("config.json", None, "config.json is missing"),
        ("summary.json", "{", "summary.json is damaged"),
        ("config.json", "[]", "config.json holds no JSON object"),
        ("model.safetensors", "no weights", "does not fit config.json"),
        ("config.json", json.dumps({"model": {}, "sizes": {}}), "does not fit config.json"),
    ],
)
def test_a_damaged_run_is_one_sentence(tiny_run, tmp_path, name, text, message):
    folder = tmp_path / "run"
    shutil.copytree(tiny_run.folder, folder)
    (folder / name).unlink()
    if text is not None:
        (folder / name).write_text(text)
    with pytest.raises(RunError, match=message):
        Run.load(folder).model()


def test_another_dataset_is_refused(tiny_run, tmp_path):
    other = Dataset.load(write_demo(tmp_path / "other", seed=2, items=250, users=64))
    with pytest.raises(RunError, match=r"trained with n_items = 300, but .* has 250"):
        tiny_run.require_fit(other)
