"""What notebooks say, show and record, without a kernel around them."""

from pathlib import Path

import pandas as pd
import pytest

from mmctr.errors import ConfigError, RunError
from mmctr.report import notebook, pages


@pytest.fixture
def displayed(monkeypatch):
    """Everything that is shown, in order: objects, or data by MIME type."""
    shown = []
    monkeypatch.setattr(notebook, "display", lambda content, raw=False: shown.append(content))
    return shown


def test_values_are_recorded_for_the_report_and_told_to_the_reader(displayed):
    notebook.record(rows=3, name="v4")
    assert displayed == [
        {pages.RECORD: {"rows": 3, "name": "v4"}, "text/plain": "Recorded: rows = 3, name = v4"}
    ]


def test_sentences_answers_and_captions_are_text(displayed):
    notebook.say("<b>1</b>")
    notebook.answer("a < b")
    notebook.show("a figure", "it <i>rises</i>")
    sentence, answer, figure, caption = displayed
    assert "&lt;b&gt;1&lt;/b&gt;" in sentence.data
    assert answer[pages.ANSWER] == "a < b"
    assert "a &lt; b" in answer["text/html"]
    assert figure == "a figure"
    assert caption[pages.CAPTION] == "it <i>rises</i>"
    assert "&lt;i&gt;" in caption["text/html"]


def test_tables_show_text_as_text():
    html = notebook.table(pd.DataFrame({"<b>": ["<script>"], "n": [1234]}), thousands=",").to_html()
    assert "<script>" not in html
    assert "&lt;script&gt;" in html
    assert "&lt;b&gt;" in html
    assert "1,234" in html


def test_the_latest_run_on_the_same_data_is_opened(
    displayed, monkeypatch, tmp_path, tiny, tiny_run
):
    monkeypatch.setenv("MMCTR_HOME", str(tmp_path))
    (tmp_path / "runs").symlink_to(tiny_run.folder.parent, target_is_directory=True)
    assert notebook.open_run("", tiny).folder.name == tiny_run.name
    assert notebook.open_run(str(tiny_run.folder), tiny).name == tiny_run.name
    assert f"Run: {tiny_run.name}, strategy v4, seed 1." in displayed[-1].data


def test_what_is_not_there_is_one_sentence(displayed, monkeypatch, tmp_path, tiny, tiny_report):
    monkeypatch.setenv("MMCTR_HOME", str(tmp_path))
    with pytest.raises(RunError, match="run mmctr search first"):
        notebook.open_study("")
    with pytest.raises(RunError, match="is not a finished run"):
        notebook.open_run("nothing", tiny)
    with pytest.raises(ConfigError, match=r"has no runs on .*: choose another report or data"):
        notebook.open_runs(str(tiny_report.folder), tiny)


def test_a_relative_folder_of_a_notebook_is_that_of_the_import(
    displayed, monkeypatch, tmp_path, tiny_folder
):
    """With MMCTR_HOME a dataset that was imported as data/ml is found as data/ml from anywhere."""
    monkeypatch.setenv("MMCTR_HOME", str(tmp_path))
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "ml").symlink_to(tiny_folder, target_is_directory=True)
    monkeypatch.chdir(Path(__file__).parents[2] / "notebooks")
    assert notebook.open_dataset("data/ml").fingerprint
    assert "simulated" in displayed[-1].data
