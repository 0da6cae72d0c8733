"""What a result rests on."""

import json
import os
import platform
import subprocess
from datetime import datetime
from importlib.metadata import version

import fsspec
import pytest
from fsspec.implementations.memory import MemoryFileSystem

from mmctr.content.fusion import embedding_hash, item_embeddings
from mmctr.data import address
from mmctr.data.fingerprint import files_fingerprint
from mmctr.runs import provenance
from mmctr.runs.provenance import find_dataset
from mmctr.training.config import configs
from tests.data.folders import write_folder


def test_the_summary_says_what_a_result_rests_on(tiny, tiny_run):
    config, summary = tiny_run.config, tiny_run.summary
    assert summary["dataset"] == {
        "name": tiny.folder.name,
        "folder": str(tiny.folder),
        "fingerprint": tiny.fingerprint,
        "simulated": True,
        "negatives": "shown",
        "tag_names_sha256": tiny.catalog.tags_hash,
        "items": 300,
        "rows": {"train": 2464, "valid": 300, "test": 300},
    }
    for package in ("torch", "numpy", "pandas", "scikit-learn"):
        assert summary["versions"][package] == version(package)
    assert summary["versions"]["python"] == platform.python_version()
    assert summary["versions"]["mmctr"] == version("mmctr")
    assert set(summary["git"] or {"commit", "dirty"}) == {"commit", "dirty"}
    assert summary["hardware"]["cores"] == os.cpu_count()
    assert summary["item_embedding_sha256"] == embedding_hash(item_embeddings(tiny, "v4"))
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


def test_a_folder_of_the_same_name_is_passed_over_without_reading_a_store(tmp_path, monkeypatch):
    run = tmp_path / "new" / "inner" / "runs" / "run"
    strange, own = run.parents[1] / "data", tmp_path / "new" / "data"
    write_folder(own, nested=False)
    stated = {"folder": "/was/data", "fingerprint": files_fingerprint(own)}
    with fsspec.open("memory://strange/train.parquet", "wb") as file:
        file.write((own / "train.parquet").read_bytes())
    write_folder(strange, {"train": None}, nested=False)
    monkeypatch.setattr(MemoryFileSystem, "get_file", lambda *_: pytest.fail("it was brought over"))
    for said in ('{"train": "memory://strange/train.parquet"}', '{"train": "gone://strange"}', "?"):
        (strange / "dataset.json").write_text(said)
        assert find_dataset(stated, run) == own


def test_moved_data_whose_split_is_elsewhere_are_found_by_the_hashes_that_they_keep(
    tmp_path, monkeypatch
):
    was, run = write_folder(tmp_path / "old" / "data", nested=False), tmp_path / "new" / "run"
    (was / "train.parquet").rename(tmp_path / "clicks.parquet")
    (was / "dataset.json").write_text(json.dumps({"train": f"file://{tmp_path}/clicks.parquet"}))
    stated = {"folder": str(was), "fingerprint": files_fingerprint(was)}
    (tmp_path / "old").rename(tmp_path / "new")
    monkeypatch.setattr(address, "_hashes", {})  # as in another process
    assert find_dataset(stated, run) == tmp_path / "new" / "data"


def test_the_commit_is_that_of_the_source_tree(tmp_path, monkeypatch):
    monkeypatch.setattr(provenance, "SOURCE", tmp_path)
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    assert provenance.provenance()["git"] is None

    def git(*words):
        who = ["-c", "user.name=a", "-c", "user.email=a@b", "-c", "commit.gpgsign=false"]
        command = ["git", "-C", str(tmp_path), *who, *words]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()

    (tmp_path / "file").write_text("one")
    git("init")
    git("add", "file")
    git("commit", "-m", "one")
    clean = {"commit": git("rev-parse", "HEAD"), "dirty": False}
    assert provenance.provenance()["git"] == clean
    (tmp_path / "file").write_text("two")
    assert provenance.provenance()["git"] == clean | {"dirty": True}
    # An installed wheel has none, though its environment may lie in such a tree.
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(provenance, "SOURCE", None)
    assert provenance.provenance()["git"] is None
