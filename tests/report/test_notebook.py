"""What notebooks say, show and record, without a kernel around them."""

import json
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from mmctr.errors import ConfigError, RunError
from mmctr.report import notebook, pages
from tests.data.folders import write_folder


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


def test_a_row_is_named_by_its_place(tiny):
    last = len(tiny.valid) - 1
    given = (None, "", "null", 0, "7", last)
    rows = [notebook.row_of(one, tiny) for one in given]
    assert rows[:2] == [None, None]
    assert rows[-3:] == [0, 7, last]
    for wrong in (-1, last + 1, 1.5, "first", True):
        with pytest.raises(ConfigError, match=f"expected a number from 0 to {last}, a row of"):
            notebook.row_of(wrong, tiny)


def test_what_valid_can_show_is_said_beside_where_negatives_come_from(displayed, tiny, tiny_run):
    notebook.ledger(tiny, [tiny_run])
    words = displayed[-1][pages.LEDGER]
    assert f"{tiny_run.summary['reference_auc']['popularity']:.4f}, v4 with" in words
    shown = displayed[-1]["text/html"]
    assert shown == f"<p>Negatives: impressions that were not clicked. {words}</p>"


def test_tables_show_text_as_text():
    html = notebook.table(pd.DataFrame({"<b>": ["<script>"], "n": [1234]}), thousands=",").to_html()
    assert "<script>" not in html
    assert "&lt;script&gt;" in html
    assert "&lt;b&gt;" in html
    assert "1,234" in html


def test_words_of_a_table_start_at_the_left():
    frame = pd.DataFrame({"n": [1.5], "why": ["it is dark"], "share": ["1.5%"], "what": [None]})
    styles = notebook.table(frame).to_html()
    assert [f".col{n} {{\n  text-align: left" in styles for n in range(4)] == [
        False,
        True,
        False,
        False,
    ]


def test_the_latest_run_on_the_same_data_is_opened(
    displayed, monkeypatch, tmp_path, tiny, tiny_run
):
    monkeypatch.setenv("MMCTR_HOME", str(tmp_path))
    (tmp_path / "runs").symlink_to(tiny_run.folder.parent, target_is_directory=True)
    assert notebook.open_run("", tiny).folder.name == tiny_run.name
    assert notebook.open_run(str(tiny_run.folder), tiny).name == tiny_run.name
    assert f"Run: {tiny_run.name}, strategy v4, seed 1." in displayed[-1].data


def test_a_first_look_is_said_wherever_it_is_opened(
    displayed, monkeypatch, tmp_path, tiny, tiny_run
):
    monkeypatch.setenv("MMCTR_HOME", str(tmp_path))
    shutil.copytree(tiny_run.folder, tmp_path / "runs" / "part")
    path = tmp_path / "runs" / "part" / "summary.json"
    look = {"learned_from": {"rows": 1000, "of": 2400}}
    path.write_text(json.dumps(json.loads(path.read_text()) | look))
    told = "Learned from 1,000 of 2,400 train rows: a first look."
    assert notebook.open_run("", tiny).name == "part"
    assert told in displayed[-1].data
    notebook.open_runs("", tiny, "part")
    assert told in displayed[-1].data and len(displayed) == 4


def test_covers_name_the_items_own_ids(named):
    html = notebook.covers(named.catalog, np.array([5])).data
    assert "(item &lt;i&gt;0005&lt;/i&gt;)" in html
    assert "<i>0005" not in html


def test_a_run_on_items_of_other_ids_is_not_opened(
    displayed, monkeypatch, tmp_path, named, tiny_run
):
    monkeypatch.setenv("MMCTR_HOME", str(tmp_path))
    shutil.copytree(tiny_run.folder, tmp_path / "runs" / "other")
    path = tmp_path / "runs" / "other" / "summary.json"
    summary = json.loads(path.read_text())
    summary["dataset"]["item_ids_sha256"] = "0"
    path.write_text(json.dumps(summary))
    monkeypatch.setattr(notebook, "_quick_run", lambda *_, **__: tiny_run)
    assert notebook.open_run("", named) is tiny_run
    summary["dataset"]["item_ids_sha256"] = named.catalog.ids_hash
    path.write_text(json.dumps(summary))
    assert notebook.open_run("", named).name == "other"


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


def test_names_that_papermill_read_as_numbers_are_found(
    displayed, monkeypatch, tmp_path, tiny, tiny_folder, tiny_run, tiny_report
):
    """`-p data 20241231` is a number; so is a run, a report or a study that is named like this."""
    monkeypatch.setenv("MMCTR_HOME", str(tmp_path))
    for number, folder in enumerate((tiny_folder, tiny_run.folder)):
        (tmp_path / str(number)).symlink_to(folder, target_is_directory=True)
    (tmp_path / "2.5").symlink_to(tiny_report.folder, target_is_directory=True)
    assert notebook.open_dataset(0).fingerprint == tiny.fingerprint
    assert notebook.open_run(1, tiny).config == tiny_run.config
    with pytest.raises(ConfigError, match=r"2\.5 has no runs on .*: choose another report"):
        notebook.open_runs(2.5, tiny)
    with pytest.raises(RunError, match="20241231"):
        notebook.open_study(20241231)


def test_a_backtest_that_is_not_there_is_one_sentence(displayed, monkeypatch, tmp_path):
    monkeypatch.setenv("MMCTR_HOME", str(tmp_path))
    with pytest.raises(RunError, match="run mmctr backtest first"):
        notebook.open_backtest("")
    with pytest.raises(RunError, match="20241231 is not a readable backtest"):
        notebook.open_backtest(20241231)


@pytest.mark.parametrize("nothing", [None, "", "null", False])
def test_no_name_is_none_however_it_is_said(
    displayed, monkeypatch, tmp_path, tiny, tiny_run, nothing
):
    monkeypatch.setenv("MMCTR_HOME", str(tmp_path))
    (tmp_path / "runs").symlink_to(tiny_run.folder.parent, target_is_directory=True)
    assert notebook.open_run(nothing, tiny).name == tiny_run.name
    with pytest.raises(RunError, match="run mmctr search first"):
        notebook.open_study(nothing)
    assert notebook.by_comma(nothing) == []


@pytest.mark.parametrize(
    ("given", "expected"),
    [(3, ["3"]), ("1, 2", ["1", "2"]), ([1, 2], ["1", "2"]), ("a,b,", ["a", "b"])],
)
def test_lists_are_words_by_comma_a_number_or_a_list(given, expected):
    assert notebook.by_comma(given) == expected


def test_seeds_are_whole_numbers_or_one_sentence():
    assert notebook.seeds_of("1, 2") == [1, 2]
    assert notebook.seeds_of(7) == notebook.seeds_of([7]) == [7]
    for given in ("1,x", 1.5, "", None):
        with pytest.raises(ConfigError, match=r"Seeds are .*, expected whole numbers such as 1,2"):
            notebook.seeds_of(given)


def test_no_sentence_is_not_shown(displayed):
    notebook.say("")
    assert displayed == []


def test_data_that_are_null_are_the_demo(displayed, monkeypatch, tmp_path, tiny, tiny_folder):
    monkeypatch.setenv("MMCTR_HOME", str(tmp_path))
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "demo").symlink_to(tiny_folder, target_is_directory=True)
    assert notebook.open_dataset(None).fingerprint == tiny.fingerprint


@pytest.mark.parametrize(
    ("about", "said"),
    [
        (None, "Negatives: it is not known where they come from."),
        ("shown", "Negatives: impressions that were not clicked."),
        ("outcome", "Negatives: tried and not liked, so that a click stands for a like."),
        ("sampled", "Negatives: sampled by the import (1 negative was drawn for each click)"),
    ],
)
def test_the_line_of_the_data_says_where_negatives_come_from(displayed, tmp_path, about, said):
    folder = write_folder(tmp_path / "log")
    if about:
        (folder / "dataset.json").write_text(json.dumps({"negatives": about}))
    notebook.open_dataset(str(folder))
    assert "Data: log (real), fingerprint" in displayed[-1].data
    assert said in displayed[-1].data


def test_a_section_is_markdown(displayed):
    notebook.section("## Fields\nWhat is known.")
    assert displayed[-1].data == "## Fields\nWhat is known."


def test_named_runs_are_opened_instead_of_a_report(
    displayed, monkeypatch, tmp_path, tiny, tiny_run, tiny_report
):
    monkeypatch.setenv("MMCTR_HOME", str(tmp_path))
    for name in ("20241231", "b"):
        shutil.copytree(tiny_run.folder, tmp_path / "runs" / name)
    for given in ("20241231, b", [20241231, str(tmp_path / "runs" / "b")], "b,20241231,b"):
        found = notebook.open_runs(str(tiny_report.folder), tiny, given)
        assert {run.name for run in found} == {"20241231", "b"}
        assert len(found) == 2
    assert notebook.data_of("b") == str(tiny.folder)
    assert notebook.data_of("") is None
    other = tiny_report.load_runs()[0]
    with pytest.raises(RunError, match="cannot be compared, expected runs of the same data"):
        notebook.open_runs("", tiny, f"b,{other.folder}")
    with pytest.raises(RunError, match="was trained on data with fingerprint"):
        notebook.open_runs("", tiny, str(other.folder))


def test_parameters_are_told_as_they_are_in_force(tiny_run):
    values = tiny_run.config["model"] | tiny_run.config["training"]
    words = notebook.in_force(tiny_run, ["heads", "epochs", "of_no_run"])
    assert words == f"In force: heads {values['heads']}, epochs {values['epochs']}."
