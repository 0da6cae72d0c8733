"""Files appear whole or not at all."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from mmctr.errors import MMCTRError
from mmctr.files import alone, atomic_folder, atomic_path, find, home, place, write_json


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


@pytest.mark.parametrize("atomic", [atomic_path, atomic_folder])
def test_an_error_of_another_file_is_not_called_an_error_of_writing(tmp_path, atomic):
    with pytest.raises(FileNotFoundError, match="absent"), atomic(tmp_path / "new"):
        (tmp_path / "absent").read_text()
    with pytest.raises(OSError, match="no picture"), atomic(tmp_path / "new"):
        raise OSError("no picture")
    assert not list(tmp_path.iterdir())


def test_a_full_disk_is_told_whatever_file_the_error_names(tmp_path):
    """shutil.copyfile names the file that it reads."""
    with (
        pytest.raises(MMCTRError, match=r"new could not be written \(No space left on device\)"),
        atomic_folder(tmp_path / "new"),
    ):
        raise OSError(28, "No space left on device", "elsewhere/cover.jpg")


@pytest.mark.parametrize("atomic", [atomic_path, atomic_folder])
def test_a_folder_that_vanishes_is_a_sentence(tmp_path, atomic):
    with (
        pytest.raises(MMCTRError, match="new could not be written"),
        atomic(tmp_path / "folder" / "new") as temporary,
    ):
        shutil.rmtree(tmp_path / "folder")
        (temporary if atomic is atomic_path else temporary / "file").write_text("lost")
    assert not list(tmp_path.iterdir())


@pytest.mark.skipif(not Path("/dev/full").is_char_device(), reason="there is no /dev/full")
@pytest.mark.parametrize(
    "write",
    [
        lambda file: file.write(bytes(100_000)),
        lambda file: pq.write_table(pa.table({"a": np.arange(100_000)}), file),
        lambda file: pd.DataFrame({"a": np.arange(100_000)}).to_csv(file),
    ],
)
def test_a_disk_that_is_really_full_is_a_sentence(tmp_path, write):
    """Libraries say it in different ways, mostly without the file's name."""
    earlier = tmp_path / "a"
    earlier.write_text("earlier")
    with (
        pytest.raises(MMCTRError, match=r"a could not be written .*No space left"),
        atomic_path(earlier),
        # As a file and not by name: some libraries delete what they could not write.
        Path("/dev/full").open("wb") as full,
    ):
        write(full)
    assert earlier.read_text() == "earlier"
    assert list(tmp_path.iterdir()) == [earlier]


def test_numbers_that_json_lacks_become_null(tmp_path):
    value = {"gauc": float("nan"), "deep": [{"a": (float("inf"), 1.5, np.float64("nan"))}]}
    write_json(tmp_path / "a.json", value)

    def refuse(word):
        raise AssertionError(f"{word} is not JSON")

    read = json.loads((tmp_path / "a.json").read_text(), parse_constant=refuse)
    assert read == {"gauc": None, "deep": [{"a": [None, 1.5, None]}]}


def test_a_folder_in_work_is_refused_until_its_process_is_gone(tmp_path):
    code = (
        "import pathlib, sys; from mmctr.files import alone\n"
        "with alone(pathlib.Path(sys.argv[1])): print(flush=True); sys.stdin.read()"
    )
    command = [sys.executable, "-c", code, str(tmp_path)]
    for end in ("kill", "close"):
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
            assert other.stdout.readline()
            for _ in range(2):
                with (
                    pytest.raises(MMCTRError, match=f"{tmp_path} is in use by another process"),
                    alone(tmp_path),
                ):
                    pass
            if end == "kill":
                other.kill()
        with alone(tmp_path), pytest.raises(MMCTRError, match="in use"), alone(tmp_path):
            pass
        assert list(tmp_path.iterdir()) == []


def test_a_folder_is_left_when_work_in_it_fails_or_deletes_it(tmp_path):
    with pytest.raises(ValueError, match="stop"), alone(tmp_path / "new"):
        raise ValueError("stop")
    with alone(tmp_path / "new"):
        shutil.rmtree(tmp_path / "new")
    assert list(tmp_path.iterdir()) == []


def test_a_folder_is_found_from_here_or_else_from_the_project(tmp_path, monkeypatch):
    monkeypatch.delenv("MMCTR_HOME", raising=False)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mmctr").mkdir()  # the project has a folder of that name too
    assert find("mmctr") == place("mmctr") == tmp_path / "mmctr"
    assert find("notebooks") == home() / "notebooks"
    assert place("notebooks") == tmp_path / "notebooks"


def test_with_a_home_what_was_placed_is_found(tmp_path, monkeypatch):
    project, here = tmp_path / "project", tmp_path / "here"
    monkeypatch.setenv("MMCTR_HOME", str(project))
    for folder in (project / "data", here / "data", here / "only"):
        folder.mkdir(parents=True)
    monkeypatch.chdir(here)
    assert place("data") == find("data") == project / "data"
    assert find("only") == here / "only", "what is not below home is looked for here"
    assert place(here / "data") == find(here / "data") == here / "data", "absolute paths stay"
