"""mmctr backtest does what the library does, and fails with one sentence."""

import sys

import pytest

from mmctr import cli
from mmctr.evaluation.backtest import Backtest
from tests.data.folders import write_folder
from tests.evaluation.timed import timed

QUICK = ["-p", "epochs=1", "-p", "embedding_dim=4", "-p", "heads=1", "-p", "hidden=[8]"]


def call(monkeypatch, capsys, *words):
    """Exit status, standard output and standard error of mmctr backtest."""
    monkeypatch.setattr(sys, "argv", ["mmctr", "backtest", *map(str, words)])
    with pytest.raises(SystemExit) as end:
        cli.main()
    out = capsys.readouterr()
    return end.value.code or 0, out.out, out.err


@pytest.mark.parametrize("named", [False, True])
def test_a_table_the_answer_and_the_page_are_printed(monkeypatch, capsys, tmp_path, named):
    monkeypatch.setenv("MMCTR_HOME", str(tmp_path))
    data = timed(tmp_path).folder
    folder = tmp_path / ("mine" if named else "runs/backtest-out-v1")

    def make_page(notebook, dataset, parameters, page_folder):
        assert (parameters, dataset.folder) == ({"backtest": str(folder)}, data)
        return (
            page_folder / f"{notebook}.html"
        )  # tests/evaluation/test_backtest.py makes a real one

    monkeypatch.setattr("mmctr.report.make.make_page", make_page)
    capsys.readouterr()
    words = ["--data", data, "--windows", 2, "--strategy", "v1", "--seed", 7, *QUICK]
    words += ["--out", "mine"] if named else []
    status, out, _ = call(monkeypatch, capsys, *words)
    tested = Backtest.load(folder)
    assert status == 0
    assert tested.facts["parameters"] == {
        "seed": 7,
        "epochs": 1,
        "embedding_dim": 4,
        "heads": 1,
        "hidden": [8],
    }
    header, first, second, answer, page = out.splitlines()
    assert "cold start" in header and "not retrained" in header
    assert f"{tested.summary['warm start'][0]:.4f}" in first and second.split()[0] == "2"
    assert answer == tested.verdict
    assert page == str(tmp_path / "reports" / folder.name / "10_backtest.html")


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["--data", "nowhere"], "nowhere is not a folder"),
        (["--data", ".", "-p", "heads=many"], "Parameter 'heads' is 'many', expected a valid"),
        (["--data", ".", "--strategy", "v9"], "Strategy 'v9' is unknown"),
    ],
)
def test_errors_are_one_sentence_and_status_1(monkeypatch, capsys, words, sentence):
    status, _, err = call(monkeypatch, capsys, *words)
    assert (status, len(err.strip().splitlines())) == (1, 1)
    assert err.startswith("mmctr: ") and sentence in err


def test_challenge_files_have_no_times(monkeypatch, capsys, tmp_path):
    monkeypatch.setenv("MMCTR_HOME", str(tmp_path / "home"))
    folder = write_folder(tmp_path / "challenge")
    status, _, err = call(monkeypatch, capsys, "--data", folder)
    assert status == 1 and "has no column time in train.parquet" in err
    assert not (tmp_path / "home").exists()
