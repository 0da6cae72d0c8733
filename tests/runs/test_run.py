"""A run folder is whole or absent, reads back exactly, and refuses what does not fit."""

import json
import mmap
import os
import platform
import re
import shutil
import subprocess
import sys
from dataclasses import replace
from datetime import datetime
from importlib.metadata import version

import numpy as np
import pyarrow.parquet as pq
import pytest
from safetensors import SafetensorError
from safetensors.torch import load_file

import mmctr
from mmctr.content.strategies import embedding_hash, item_embeddings
from mmctr.data.dataset import Dataset
from mmctr.data.demo import write_demo
from mmctr.errors import MMCTRError, RunError
from mmctr.evaluation.compare import strategy_table
from mmctr.runs import run as checkpoint
from mmctr.runs.run import Run
from mmctr.training.prediction import predict
from mmctr.training.trainer import configs
from tests.fuzz.cases import limited_memory

FILES = (
    "config.json",
    "summary.json",
    "model.safetensors",
    "metrics.jsonl",
    "predictions.parquet",
)


def test_a_run_reads_back_exactly(tiny, tiny_run):
    run = Run.load(tiny_run.folder)
    assert {path.name for path in run.folder.iterdir()} == set(FILES)
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


def test_the_summary_says_what_a_result_rests_on(tiny, tiny_run):
    config, summary = tiny_run.config, tiny_run.summary
    assert summary["dataset"] == {
        "name": tiny.folder.name,
        "folder": str(tiny.folder),
        "fingerprint": tiny.fingerprint,
        "simulated": True,
        "items": 300,
        "rows": {"train": 2400, "valid": 300, "test": 300},
    }
    for package in ("torch", "numpy", "pandas", "scikit-learn"):
        assert summary["versions"][package] == version(package)
    assert summary["versions"]["python"] == platform.python_version()
    assert summary["versions"]["mmctr"] == version("mmctr")
    assert set(summary["git"] or {"commit", "dirty"}) == {"commit", "dirty"}
    assert summary["hardware"]["cores"] == os.cpu_count()
    assert summary["item_embedding_sha256"] == embedding_hash(item_embeddings(tiny.catalog, "v4"))
    assert summary["config"] == config
    learned = [weight for weight in tiny_run.model().parameters() if weight.requires_grad]
    assert summary["parameters"] == sum(weight.numel() for weight in learned)
    low, high = summary["metrics"]["auc_interval"]
    assert low < summary["metrics"]["auc"] < high
    best = tiny_run.history.loc[tiny_run.history["auc"].idxmax()]
    assert summary["best_epoch"] == best["epoch"]
    assert set(summary["seconds"]) == {"fusion", "training"}
    assert datetime.fromisoformat(summary["date"]).tzinfo
    assert config["training"]["seed"] == 1
    assert config["model"]["hidden"] == [16]
    assert configs(**config["model"], **config["training"])


def test_the_commit_is_that_of_the_source_tree(tmp_path, monkeypatch):
    monkeypatch.setattr(mmctr, "__file__", str(tmp_path / "mmctr" / "__init__.py"))
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    assert checkpoint.provenance()["git"] is None

    def git(*words):
        who = ["-c", "user.name=a", "-c", "user.email=a@b", "-c", "commit.gpgsign=false"]
        command = ["git", "-C", str(tmp_path), *who, *words]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()

    (tmp_path / "file").write_text("one")
    git("init")
    git("add", "file")
    git("commit", "-m", "one")
    clean = {"commit": git("rev-parse", "HEAD"), "dirty": False}
    assert checkpoint.provenance()["git"] == clean
    (tmp_path / "file").write_text("two")
    assert checkpoint.provenance()["git"] == clean | {"dirty": True}


@pytest.fixture
def save(tiny, tiny_run, tmp_path):
    """Save the tiny run again below tmp_path/runs, with another strategy if wanted."""

    def saved(strategy="v4"):
        config = tiny_run.config | {"strategy": strategy}
        summary = {name: tiny_run.summary[name] for name in ("metrics", "seconds")}
        scores = tiny_run.predictions["probability"].to_numpy()
        records = tiny_run.history.to_dict("records")
        runs = tmp_path / "runs"
        return checkpoint.save_run(runs, tiny, tiny_run.model(), config, summary, records, scores)

    return saved


def test_runs_of_one_second_have_folders_of_their_own(tmp_path, monkeypatch, save):
    class Clock(datetime):
        @classmethod
        def now(cls, tz=None):
            return cls(2030, 1, 2, 3, 4, 5)

    monkeypatch.setattr(checkpoint, "datetime", Clock)
    name = "tiny-v4-seed1-20300102-030405"
    assert [save().name for _ in range(3)] == [name, f"{name}-2", f"{name}-3"]
    assert len(list((tmp_path / "runs").iterdir())) == 3


@pytest.mark.parametrize(
    "strategy", ["provided:item_emb_d128", "provided:a/b", "provided:../up", "provided:a b:c"]
)
def test_any_strategy_makes_a_plain_folder_name(tmp_path, save, strategy):
    run = save(strategy)
    assert run.folder.parent == tmp_path / "runs"
    assert re.fullmatch(r"[\w.-]+", run.name)
    assert Run.load(run.folder).strategy == strategy


def test_a_taken_name_is_never_written_over(tmp_path):
    for number, expected in enumerate(["run", "run-2", "run-3"]):
        new = tmp_path / f".new{number}"
        new.mkdir()
        (new / "file").write_text(str(number))
        assert checkpoint._move_to_free_name(new, tmp_path / "run").name == expected
    assert (tmp_path / "run" / "file").read_text() == "0"


@pytest.mark.parametrize(
    "step",
    [
        "mmctr.model.pretrained.save_file",
        "pandas.DataFrame.to_parquet",
        "pandas.DataFrame.to_json",
        "mmctr.runs.run.write_json",
        "pathlib.Path.rename",
    ],
)
@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (OSError(28, "No space left on device"), MMCTRError),
        (SafetensorError("No space left on device"), MMCTRError),
        (KeyboardInterrupt(), KeyboardInterrupt),
    ],
)
def test_a_failed_write_leaves_nothing(tmp_path, monkeypatch, save, step, error, expected):
    def fail(*_, **__):
        raise error

    with monkeypatch.context() as patch:
        patch.setattr(step, fail)
        with pytest.raises(expected, match=r"could not be written .No space left on device|^$"):
            save()
    assert not list((tmp_path / "runs").iterdir())
    assert save().model()


def test_a_place_that_cannot_be_written_is_named(tmp_path, save):
    (tmp_path / "runs").touch()
    with pytest.raises(RunError, match=r"runs/tiny-v4-seed1.* could not be written"):
        save()


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
        np.ones(1 << 30, dtype=np.uint8)
    assert np.ones(1 << 30, dtype=np.uint8).nbytes == 1 << 30


def test_the_memory_limit_does_not_count_addresses_that_threads_reserve():
    with limited_memory(), mmap.mmap(-1, 1 << 30, prot=mmap.PROT_READ) as reserved:
        assert len(reserved) == 1 << 30


def test_a_measure_that_could_not_be_taken_is_written_as_null_and_read_as_nan(tmp_path, save):
    run = save()
    summary = run.summary | {"metrics": run.summary["metrics"] | {"gauc": float("nan")}}
    checkpoint.write_json(run.folder / "summary.json", summary)
    assert json.loads((run.folder / "summary.json").read_text())["metrics"]["gauc"] is None
    again = Run.load(run.folder)
    assert np.isnan(again.summary["metrics"]["gauc"])
    assert again.summary["metrics"]["auc"] == run.summary["metrics"]["auc"]
    assert strategy_table([again])["GAUC"].isna().all()
    text = (run.folder / "summary.json").read_text().replace('"gauc": null', '"gauc": NaN')
    (run.folder / "summary.json").write_text(text)  # as runs of earlier versions have it
    assert np.isnan(Run.load(run.folder).summary["metrics"]["gauc"])


def test_a_run_of_an_earlier_version_reads(tiny_run, tmp_path):
    def older(summary):
        for name in ("cost", "device", "processes", "best_epoch"):
            del summary[name]

    run = Run.load(edited(tiny_run, tmp_path / "run", "summary.json", older))
    assert strategy_table([run])["samples/s"].isna().all()
    assert run.summary == {k: tiny_run.summary[k] for k in run.summary}


def test_earlier_runs_stay_readable_when_the_disk_is_full(tmp_path, monkeypatch, save):
    first = save()

    def full(*_, **__):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("pandas.DataFrame.to_parquet", full)
        with pytest.raises(RunError, match="No space left"):
            save()
    assert [path.name for path in (tmp_path / "runs").iterdir()] == [first.name]
    assert use_all_of(Run.load(first.folder))


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


@pytest.mark.parametrize("notes", [b"\xff", b"{", b'{"index_columns": ["user"], "columns": []}'])
def test_notes_of_pandas_do_not_change_what_is_read(tiny_run, tmp_path, notes):
    folder = tmp_path / "run"
    shutil.copytree(tiny_run.folder, folder)
    table = pq.read_table(folder / "predictions.parquet").replace_schema_metadata({"pandas": notes})
    pq.write_table(table, folder / "predictions.parquet")
    assert Run.load(folder).predictions.equals(tiny_run.predictions)


def test_predictions_of_other_rows_are_refused(tiny_run, tmp_path):
    folder = tmp_path / "run"
    shutil.copytree(tiny_run.folder, folder)
    table = pq.read_table(folder / "predictions.parquet")
    pq.write_table(table.slice(1), folder / "predictions.parquet")
    with pytest.raises(RunError, match=r"predictions\.parquet has 299 rows, expected 300"):
        _ = Run.load(folder).predictions
