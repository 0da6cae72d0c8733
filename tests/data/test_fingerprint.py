"""The fingerprint of a dataset: of the contents of its files, wherever they are."""

import shutil
from hashlib import sha256

import pytest

from mmctr.data import fingerprint, schema
from mmctr.data.dataset import Dataset
from mmctr.data.fingerprint import files_fingerprint
from mmctr.errors import DataError
from tests.data.folders import load_changed, replaced, write_folder


def by_hand(folder):
    """The fingerprint as runs of earlier versions have it."""
    content = b""
    for name in schema.FILES:
        if path := schema.find_file(folder, name):
            files = sorted(path.iterdir()) if path.is_dir() else []
            named = (file.name.encode() + sha256(file.read_bytes()).digest() for file in files)
            content += name.encode()
            content += sha256(b"".join(named) if files else path.read_bytes()).digest()
    return sha256(content).hexdigest()[:16]


def test_a_dataset_keeps_the_fingerprint_that_runs_know(tmp_path):
    write_folder(tmp_path, nested=False)
    assert files_fingerprint(tmp_path) == Dataset.load(tmp_path).fingerprint == by_hand(tmp_path)
    one = by_hand(tmp_path)
    (tmp_path / "train.parquet").rename(tmp_path / "part-0.parquet")
    (tmp_path / "train.parquet").mkdir()
    (tmp_path / "part-0.parquet").rename(tmp_path / "train.parquet" / "part-0.parquet")
    assert one != files_fingerprint(tmp_path) == by_hand(tmp_path)


def test_it_changes_with_the_contents_alone(tmp_path):
    first = Dataset.load(write_folder(tmp_path / "a"))
    shutil.copytree(tmp_path / "a", tmp_path / "b")
    assert Dataset.load(tmp_path / "b").fingerprint == first.fingerprint
    changed = load_changed(tmp_path / "c", replaced("train", "label", 0, 1))
    assert changed.fingerprint != first.fingerprint


def test_a_file_that_may_not_be_read_is_named(tmp_path, monkeypatch):
    def deny(*_):
        raise PermissionError(13, "Permission denied")

    write_folder(tmp_path)
    monkeypatch.setattr(fingerprint.hashlib, "file_digest", deny)
    match = r"train\.parquet is not a readable parquet file \(Permission denied\)"
    with pytest.raises(DataError, match=match):
        Dataset.load(tmp_path)
