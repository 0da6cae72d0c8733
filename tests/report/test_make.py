"""Reports end to end on small notebooks; the real ones are run in tests/notebooks."""

import re
import shutil

import pandas as pd
import pytest
from typer.testing import CliRunner

from mmctr.cli import app
from mmctr.errors import ConfigError, DataError, MMCTRError
from mmctr.files import alone
from mmctr.report import make as reports
from mmctr.report.make import make_report, write_single_file
from tests.report.conftest import write_notebooks


def test_pages_run_in_order_with_their_parameters(made, tiny_folder):
    report, _ = made
    assert [page.name for page in report.pages] == [
        "01_explore",
        "02_embeddings",
        "03_train_v4_seed1",
        "03_train_v1_seed1",
        "04_attention",
        "05_compare",
        "09_new_items",
    ]
    assert not report.failed
    assert {run.strategy for run in report.load_runs()} == {"v4", "v1"}
    best = max(report.load_runs(), key=lambda run: run.summary["metrics"]["auc"])
    assert f"looking at {best.folder}" in (report.folder / "04_attention.html").read_text()
    assert f"comparing {report.folder}" in (report.folder / "05_compare.html").read_text()
    assert f"new items of {report.folder}" in (report.folder / "09_new_items.html").read_text()
    assert str(tiny_folder) in (report.folder / "01_explore.html").read_text()


def test_a_single_file_holds_all_pages_and_needs_no_other(made, tmp_path):
    report, _ = made
    written = write_single_file(report)
    assert written.parent == report.folder
    text = written.read_text()
    written.unlink()  # the other tests look at pages
    assert text.count("plotly.js v") == 1
    assert '<script src="' not in text
    for page in report.pages:
        assert text.count(f'<article id="{page.name}">') == 1
    links = set(
        re.findall(r'href="([^"]*)"', re.sub(r"<script>.*?</script>", "", text, flags=re.S))
    )
    assert {"#index", "#02_embeddings", "#03_train_v4_seed1"} <= links
    assert all(link.startswith("#") for link in links), links
    assert all(f'id="{link[1:]}"' in text for link in links), links


@pytest.mark.parametrize(
    ("strategies", "seeds", "parameters", "message"),
    [
        (["v4", "v9"], [1], {}, "Strategy 'v9' is unknown"),
        (["v4"], [-1], {}, "Parameter 'seed' is -1"),
        (["v4"], [1], {"heads": 0}, "Parameter 'heads' is 0"),
    ],
)
def test_wrong_parameters_stop_before_anything_runs(
    tmp_path, tiny_folder, strategies, seeds, parameters, message
):
    with pytest.raises(ConfigError, match=message):
        make_report(tiny_folder, strategies, seeds, tmp_path / "out", parameters=parameters)
    assert not (tmp_path / "out").exists()


def test_a_folder_without_data_is_refused(tmp_path):
    with pytest.raises(DataError, match=r"has neither item_info\.parquet nor"):
        make_report(tmp_path, ["v4"], [1], tmp_path / "out")


def test_names_that_links_cannot_hold_are_mended_and_doubles_dropped(tmp_path, tiny_folder):
    data = tmp_path / "100% #1"
    shutil.copytree(tiny_folder, data)
    notebooks = write_notebooks(tmp_path / "notebooks", **{"03_train": "display(1)"})
    report = make_report(data, ["v1", "v1"], [1, 1], tmp_path / "reports", notebooks=notebooks)
    assert report.folder.name.startswith("100-1-")
    assert report.dataset["name"] == "100% #1"
    assert len(report.pages) == 6
    assert "recorded no run" in report.failed[0].error


def test_pages_are_made_anew_when_items_or_tags_have_other_names(
    again, tiny_folder, tmp_path, capsys
):
    """Numbers, and so the fingerprint, stay: a dataset imported anew in place may be like this."""
    data = shutil.copytree(tiny_folder, tmp_path / "data")
    tags = {"tag": [1], "name": ["Drama"]}
    ids = {"item_id": range(1, 301), "original_id": [f"i{number}" for number in range(300)]}
    reused = []
    for table in (None, None, tags, ids):
        if table:
            name = "tags" if table is tags else "item_ids"
            pd.DataFrame(table).to_parquet(data / f"{name}.parquet")
        make_report(data, ["v4"], [1], again.out, notebooks=again.notebooks)
        reused.append("01_explore: reused" in capsys.readouterr().err)
    assert reused == [False, True, False, False]


def test_two_processes_do_not_make_the_same_report(again):
    report, _ = again()
    with (
        alone(report.folder),
        pytest.raises(MMCTRError, match="is being made by another process"),
    ):
        again()
    assert again()[1] == []


def test_the_command_writes_the_single_file_if_asked(made, tiny_folder, monkeypatch):
    report, _ = made
    monkeypatch.setattr(reports, "make_report", lambda *values, **options: report)
    for words, written in ((["--single-file"], True), ([], False)):
        result = CliRunner().invoke(app, ["report", "--data", str(tiny_folder), *words])
        single = report.folder / f"{report.folder.name}.html"
        assert (str(single) in result.stdout.splitlines()) == written == single.exists()
        assert result.stdout.splitlines()[-1] == str(report.index)
        single.unlink(missing_ok=True)


def test_the_challenge_is_asked_for_and_says_first_how_long_it_takes(
    made, tiny_folder, monkeypatch
):
    report, _ = made
    given = {}
    monkeypatch.setattr(
        reports, "make_report", lambda *_, **options: given.update(options) or report
    )
    monkeypatch.setattr("mmctr.cli._estimate", lambda data, parameters, seeds: f"{seeds} runs each")
    result = CliRunner().invoke(app, ["report", "--data", str(tiny_folder), "--challenge"])
    assert given["challenge"] and not given["ablation"]
    assert result.stderr.startswith("2 runs each")


def test_what_is_excluded_reaches_03_and_other_decisions_make_pages_anew(
    again, tiny_folder, tmp_path
):
    folder = shutil.copytree(tiny_folder, tmp_path / "data")
    lines = [("title", "5", "mine", 1.0, True), ("title", "6", "mine", 1.0, True)]
    table = pd.DataFrame(lines, columns=["what", "id", "kind", "score", "excluded"])
    table.to_parquet(folder / "errors.parquet")

    def make(exclude):
        return make_report(
            folder, ["v4", "v1"], [1], again.out, notebooks=again.notebooks, exclude=exclude
        )

    with pytest.raises(ConfigError, match="Found 'drak' to exclude, expected all or kinds of"):
        make("drak")
    report = make("mine")
    given = {page.name: page.parameters.get("exclude") for page in report.pages}
    assert {name for name, kinds in given.items() if kinds == "mine"} == {
        "03_train_v4_seed1",
        "03_train_v1_seed1",
    }
    before = report.folder
    assert make("mine").folder == before, "the same inputs are the same report"
    table.assign(excluded=[True, False]).to_parquet(folder / "errors.parquet")
    assert make("mine").folder != before
