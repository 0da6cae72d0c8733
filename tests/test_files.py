"""Files appear whole or not at all."""

import json
from pathlib import Path

import pytest

from mmctr.errors import MMCTRError
from mmctr.files import atomic_folder, atomic_path, write_json


def test_the_file_appears_only_at_the_end(tmp_path):
    path = tmp_path / "new" / "folder" / "a.txt"
    with atomic_path(path) as temporary:
        temporary.write_text("whole")
        assert not path.exists()
        assert temporary.parent == path.parent
    assert path.read_text() == "whole"
    assert list(path.parent.iterdir()) == [path]
    assert path.stat().st_mode & 0o777 == 0o644


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, MMCTRError])
def test_a_failure_leaves_the_old_file(tmp_path, error):
    path = tmp_path / "a.txt"
    path.write_text("old")
    with pytest.raises(error), atomic_path(path) as temporary:
        temporary.write_text("half")
        raise error("stop")
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_full_disk_is_a_sentence(tmp_path):
    path = tmp_path / "a.txt"
    with (
        pytest.raises(MMCTRError, match=r"a\.txt could not be written \(No space left"),
        atomic_path(path),
    ):
        raise OSError(28, "No space left on device")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["file/a.txt", "folder"])
def test_places_that_cannot_be_written_are_named(tmp_path, name):
    (tmp_path / "file").touch()
    (tmp_path / "folder").mkdir()
    with pytest.raises(MMCTRError, match=f"{name} could not be written"):
        write_json(tmp_path / name, {})
    assert {path.name for path in tmp_path.iterdir()} == {"file", "folder"}


def test_write_json_writes_values_paths_and_unicode(tmp_path):
    write_json(tmp_path / "a.json", {"auc": 0.5, "folder": Path("x/y"), "title": "Größe"})
    text = (tmp_path / "a.json").read_text(encoding="utf-8")
    assert json.loads(text) == {"auc": 0.5, "folder": "x/y", "title": "Größe"}
    assert text.endswith("}\n")


def test_a_folder_appears_only_at_the_end(tmp_path):
    path = tmp_path / "new" / "folder"
    with atomic_folder(path) as temporary:
        (temporary / "a.txt").write_text("whole")
        assert not path.exists()
    assert (path / "a.txt").read_text() == "whole"
    assert list(path.parent.iterdir()) == [path]
    assert path.stat().st_mode & 0o777 == 0o755


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, MMCTRError])
def test_a_failure_leaves_no_folder(tmp_path, error):
    with pytest.raises(error), atomic_folder(tmp_path / "folder") as temporary:
        (temporary / "a.txt").write_text("half")
        raise error("stop")
    assert not list(tmp_path.iterdir())


def test_folders_that_cannot_be_written_are_named(tmp_path):
    (tmp_path / "file").touch()
    for name in ("file/folder", "file"):
        with (
            pytest.raises(MMCTRError, match=f"{name} could not be written"),
            atomic_folder(tmp_path / name),
        ):
            pass
    assert [path.name for path in tmp_path.iterdir()] == ["file"]
