"""mmctr notebooks copies them and loses nothing; mmctr lab opens them in JupyterLab."""

import os
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from mmctr.cli import app
from mmctr.cli_notebooks import copy_notebooks
from mmctr.errors import ConfigError

OWN = Path(__file__).parents[1] / "notebooks"


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    """Copies of these tests go here."""
    monkeypatch.setenv("MMCTR_HOME", str(tmp_path))
    return tmp_path


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.glob("*.ipynb")}


def test_copies_are_those_of_the_source_tree_and_made_again_where_they_are_gone(home):
    for _ in range(2):
        result = CliRunner().invoke(app, ["notebooks", "--out", "mine"])
        assert (result.exit_code, result.stdout) == (0, f"{home / 'mine'}\n")
        assert contents(home / "mine") == contents(OWN)
        (home / "mine" / "03_train.ipynb").unlink()


def test_what_somebody_changed_is_kept_and_nothing_else_copied(home):
    changed = home / "mine" / "03_train.ipynb"
    changed.parent.mkdir()
    changed.write_text("{}")
    with pytest.raises(ConfigError, match=r"03_train\.ipynb is there already.* with --out"):
        copy_notebooks(changed.parent)
    assert contents(changed.parent) == {"03_train.ipynb": b"{}"}


def test_lab_opens_copies_below_the_home_with_jupyter_s_options(home, monkeypatch):
    started = []
    monkeypatch.setattr(os, "execve", lambda *arguments: started.append(arguments))
    for _ in range(2):
        assert CliRunner().invoke(app, ["lab", "--no-browser", "--port", "8899"]).exit_code == 0
        assert set(contents(home / "notebooks")) == set(contents(OWN))
        (home / "notebooks" / "03_train.ipynb").write_text("changed in JupyterLab")
    program, words, environment = started[1]
    assert (program, words[:3]) == (sys.executable, [sys.executable, "-m", "jupyterlab"])
    assert words[3:] == [f"--notebook-dir={home / 'notebooks'}", "--no-browser", "--port", "8899"]
    assert environment["MMCTR_HOME"] == str(home)
    assert (home / "notebooks" / "03_train.ipynb").read_text() == "changed in JupyterLab"
