"""The command line does what the library does, and fails with one sentence."""

import json
import shlex
import shutil
import subprocess
import sys
import zipfile
from importlib.metadata import version
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.metrics import log_loss, roc_auc_score

import mmctr
from mmctr import cli
from mmctr.content.strategies import STRATEGIES
from mmctr.data.demo import write_demo
from mmctr.errors import MMCTRError
from mmctr.model.config import DINConfig
from mmctr.model.presets import PRESETS
from mmctr.runs.run import Run
from mmctr.training.config import TrainConfig
from tests.data.folders import narrow

IMPORT = ["data", "import", "--interactions", "a", "--items", "b", "--out", "c"]
QUICK = ["-p", "epochs=1", "-p", "embedding_dim=4", "-p", "heads=1", "-p", "hidden=[8]"]


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    """Runs and reports of these tests go here."""
    monkeypatch.setenv("MMCTR_HOME", str(tmp_path))
    return tmp_path


def call(monkeypatch, capsys, *words):
    """Exit status, standard output and standard error of a command."""
    monkeypatch.setattr(sys, "argv", ["mmctr", *map(str, words)])
    with pytest.raises(SystemExit) as end:
        cli.main()
        sys.exit(0)
    out = capsys.readouterr()
    return end.value.code or 0, out.out, out.err


def test_train_then_predict(monkeypatch, capsys, tiny_folder, home):
    words = ["train", "--data", tiny_folder, "--strategy", "v1", "--seed", 3, *QUICK]
    status, out, _ = call(monkeypatch, capsys, *words)
    assert status == 0
    run = Run.load(out.splitlines()[-1])
    assert run.folder.parent == home / "runs"
    assert (run.strategy, run.seed, run.config["model"]["hidden"]) == ("v1", 3, [8])
    assert f"valid AUC {run.summary['metrics']['auc']:.4f}" in out
    csv, archive = home / "scores.csv", home / "s.zip"
    words = ["predict", run.folder, "--data", tiny_folder, "--split", "valid", "--out", csv]
    status, out, _ = call(monkeypatch, capsys, *words, "--submission", archive)
    assert status == 0
    assert f"valid AUC {run.summary['metrics']['auc']:.4f}" in out
    expected = run.predictions["probability"].to_numpy()
    assert pd.read_csv(csv)["probability"].to_numpy() == pytest.approx(expected, abs=1e-6)
    with zipfile.ZipFile(archive) as file:
        submitted = pd.read_csv(file.open("prediction.csv"))
    assert submitted.columns.tolist() == ["ID", "Task2"]
    assert submitted["Task2"].to_numpy() == pytest.approx(expected, abs=1e-6)


def test_verify_says_yes_or_what_differs(monkeypatch, capsys, tiny_run, tmp_path):
    status, out, _ = call(monkeypatch, capsys, "verify", tiny_run.folder)
    assert (status, out.strip().endswith("are as it says.")) == (0, True)
    copy = shutil.copytree(tiny_run.folder, tmp_path / "copy")
    table = pd.read_parquet(copy / "predictions.parquet")
    table.assign(probability=0.5).to_parquet(copy / "predictions.parquet")
    status, _, error = call(monkeypatch, capsys, "verify", copy)
    assert status == 1
    assert "does not verify. summary.json says auc" in error


def test_search_prints_what_train_takes(monkeypatch, capsys, tiny_folder, home):
    def make_page(notebook, dataset, parameters, folder):  # tests/test_search.py makes a real one
        assert parameters == {"study": str(home / "runs" / "search-tiny-v1")}
        return folder / f"{notebook}.html"

    monkeypatch.setattr("mmctr.report.make.make_page", make_page)
    words = ["search", "--data", tiny_folder, "--strategy", "v1", *QUICK, "-p", "batch_size=256"]
    words += ["-p", "rows=1500"]  # as a first look
    for trials in (1, 2):
        status, out, _ = call(monkeypatch, capsys, *words, "--trials", trials)
        assert status == 0
    assert out.startswith("2/2: finished"), "the first trial was there"
    *_, options, page = out.splitlines()
    assert page == str(home / "reports" / "search-tiny-v1" / "07_search.html")
    best = out.split("best valid AUC ")[1].split()[0]
    words = ["train", "--data", tiny_folder, "--strategy", "v1", *shlex.split(options)]
    status, out, _ = call(monkeypatch, capsys, *words)
    assert out.startswith(f"valid AUC {best} ")
    assert "of 2,464 train rows: a first look\n" in out


def test_without_labels_there_is_no_auc(monkeypatch, capsys, tiny_folder, tiny_run, home):
    blind = home / "blind"
    shutil.copytree(tiny_folder, blind, ignore=shutil.ignore_patterns("item_images"))
    path = next(blind.rglob("test.parquet"))
    pd.read_parquet(path).drop(columns="label").to_parquet(path)
    scores = {}
    for folder in (tiny_folder, blind):
        out = home / f"{folder.name}.csv"
        words = ["predict", tiny_run.folder, "--data", folder, "--out", out]
        status, text, _ = call(monkeypatch, capsys, *words)
        assert status == 0
        assert text.startswith(f"{out}: 300 rows")
        assert ("AUC" in text) == (folder == tiny_folder)
        scores[folder] = out.read_text()
    assert scores[blind] == scores[tiny_folder]


def test_predictions_are_compared_with_the_references(
    monkeypatch, capsys, tiny, tiny_folder, tiny_run, home
):
    words = ["predict", tiny_run.folder, "--data", tiny_folder, "--out", home / "p.csv"]
    _, text, _ = call(monkeypatch, capsys, *words)
    rows = tiny.split("test")
    found = pd.read_csv(home / "p.csv")["probability"]
    lines = text.splitlines()[1:]
    assert lines[0] == f"test AUC {roc_auc_score(rows.label, found):.4f}"
    oracle = roc_auc_score(rows.label, rows.probability)
    assert f"  beside it: oracle AUC {oracle:.4f}" in lines
    assert lines[-1] == f"test logloss {log_loss(rows.label, found):.4f}"


def test_predict_refuses_what_does_not_fit(monkeypatch, capsys, tiny_folder, tiny_run, home):
    out = home / "p.csv"
    words = ["predict", tiny_run.folder, "--data", tiny_folder, "--out", out]
    status, _, err = call(monkeypatch, capsys, *words, "--split", "extra")
    assert (status, "Found --split 'extra', expected one of train, valid, test" in err) == (1, True)
    (home / "file").touch()
    status, _, err = call(monkeypatch, capsys, *words[:-1], home / "file" / "p.csv")
    assert (status, "p.csv could not be written" in err) == (1, True)
    other = narrow(write_demo(home / "other", seed=2, items=250, users=64))
    words = ["predict", tiny_run.folder, "--data", other, "--out", out]
    status, _, err = call(monkeypatch, capsys, *words)
    assert status == 1
    assert "mean other items" in err
    assert "Traceback" not in err
    assert not out.exists()


@pytest.mark.parametrize(
    ("words", "name", "value"),
    [
        (["-p", "heads=2"], "heads", 2),
        (["-p", "senet=false"], "senet", False),
        (["-p", "hidden=[8, 4]"], "hidden", (8, 4)),
        (["-p", "bilinear=each"], "bilinear", "each"),
        (["-p", 'bilinear="off"'], "bilinear", "off"),
        (["-p", "learning_rate=1e-2"], "learning_rate", 0.01),
        (["-p", "heads=2", "-p", "heads=8"], "heads", 8),
        (["--seed", "7"], "seed", 7),
        (["--seed", "7", "-p", "seed=9"], "seed", 9),
        ([], "seed", 1),
    ],
)
def test_parameters_arrive_where_they_belong(
    monkeypatch, capsys, tiny_folder, home, words, name, value
):
    def stop(_, strategy, model, training, runs):
        found = {**model.model_dump(), **training.model_dump()}
        assert (strategy, found[name], runs) == ("v4", value, home / "runs")
        raise MMCTRError("Stopped here.")

    monkeypatch.setattr("mmctr.runs.train.train", stop)
    status, _, err = call(monkeypatch, capsys, "train", "--data", tiny_folder, *words)
    assert (status, err) == (1, "mmctr: Stopped here.\n")


@pytest.mark.parametrize("words", [["train", "--seed", "-1"], ["train", "--colour"], ["fly"]])
def test_words_that_no_command_knows_are_a_usage_error(monkeypatch, capsys, words):
    status, out, err = call(monkeypatch, capsys, *words)
    assert (status, out) == (2, "")
    assert "Traceback" not in err


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["train", "--data", "nowhere"], "nowhere is not a folder"),
        (["train", "--strategy", "v9"], "Strategy 'v9' is unknown: choose one of v1"),
        (["train", "-p", "heads=many"], "Parameter 'heads' is 'many', expected a valid integer"),
        (["train", "-p", "heads"], "expected KEY=VALUE"),
        (["train", "-p", "bilinear=a=b"], "Parameter 'bilinear' is 'a=b', expected one of"),
        (["train", "-p", "colour=red"], "Parameter 'colour' is unknown: choose one of"),
        (["train", "-p", "device=mps"], "which this machine does not have"),
        (["train", "--strategy", "provided:none"], "names a column that neither"),
        (["data", "check", "nowhere"], "nowhere is not a folder"),
        (["features", "extract", "nowhere"], "nowhere is not a folder"),
        (["predict", "nowhere"], "nowhere is not a finished run"),
        (["search", "-p", "heads=many"], "Parameter 'heads' is 'many', expected a valid integer"),
        (["search", "--strategy", "v9"], "Strategy 'v9' is unknown"),
        (["report", "--seeds", "one"], "expected whole numbers"),
        (["report", "--strategies", "v1,v9"], "Strategy 'v9' is unknown"),
        (["data", "demo", "--out", "."], "exists already"),
        (["data", "demo", "--out", f"{__file__}/demo"], "could not be written"),
        (["data", "demo", "--out", f"{__file__}/deep/demo"], "could not be written"),
        (["data", "download", "other"], "Found dataset 'other', expected microlens-1m"),
        (["data", "download", "microlens-1m"], "add --accept-terms"),
    ],
)
def test_errors_are_one_sentence_and_status_1(monkeypatch, capsys, tiny_folder, words, sentence):
    monkeypatch.setattr(torch.mps, "is_available", lambda: False)
    if words[0] in ("train", "predict", "report", "search") and "--data" not in words:
        words = [*words, "--data", str(tiny_folder)]
    status, _, err = call(monkeypatch, capsys, *words)
    assert status == 1
    assert sentence in err
    assert err.startswith("mmctr: ")
    assert len(err.strip().splitlines()) == 1


WRONG = [
    (
        ["train", "--strategy", "v9"],
        "choose one of v1, v2, v3, v4, v5, v6, ids or provided:COLUMN",
    ),
    (["train", "--data", "nowhere"], "nowhere is not a folder"),
    (["train", "-p", "heads=many"], "Parameter 'heads' is 'many'"),
    (["train", "-p", "preset=big"], "Preset 'big' is unknown: choose one of default"),
    (
        ["train", "--resume", "x", "--seed", "2"],
        "leave out --strategy, --seed, --click-rate, --exclude and -p",
    ),
    (["search", "--strategy", "v9"], "Strategy 'v9' is unknown"),
    (["search", "--data", "nowhere"], "nowhere is not a folder"),
    (["backtest", "--data", "nowhere"], "nowhere is not a folder"),
    (["report", "--strategies", "v1,v9"], "Strategy 'v9' is unknown"),
    (["report", "--seeds", "1,-1"], "Parameter 'seed' is -1"),
    (["report", "--data", "nowhere"], "nowhere is not a folder"),
    (["predict", "nowhere"], "nowhere is not a finished run"),
    (["predict", ".", "--split", "all"], "Found --split 'all', expected one of train, valid"),
    (["predict", ".", "--data", "nowhere"], "nowhere is not a folder"),
    (["verify", "nowhere"], "nowhere is not a finished run"),
    (["rerun", "nowhere"], "nowhere is not a finished run"),
    (["data", "check", "nowhere"], "nowhere is not a folder"),
    (["features", "extract", "nowhere"], "nowhere is not a folder"),
    (["features", "extract", ".", "--pooling", "sum"], "Found --pooling 'sum', expected one"),
    (["features", "extract", ".", "--device", "tpu"], "Found --device 'tpu', expected one of"),
    ([*IMPORT, "--split", "last"], "Parameter 'split' is 'last', expected one of 'last-two'"),
    ([*IMPORT, "-p", "colour=red"], "Parameter 'colour' is unknown: choose one of"),
]
# A process for all of them: beginning one takes longer than a wrong word does.
TOLD = """
import contextlib, io, json, sys, mmctr.cli
told, heavy = [], {"torch", "plotly", "pandas", "numpy", "sklearn"}
for words in json.loads(sys.argv[1]):
    sys.argv, before = ["mmctr", *words], heavy & set(sys.modules)
    with contextlib.redirect_stderr(io.StringIO()) as error:
        try:
            status = mmctr.cli.main()
        except SystemExit as end:
            status = end.code
    told.append((status, error.getvalue(), sorted(heavy & set(sys.modules) - before)))
print(json.dumps(told))
"""


@pytest.fixture(scope="module")
def told(tmp_path_factory):
    """Status, standard error and heavy imports of each command line of WRONG."""
    command = [sys.executable, "-c", TOLD, json.dumps([words for words, _ in WRONG])]
    folder = tmp_path_factory.mktemp("here")
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=folder)
    assert done.stderr == ""
    return json.loads(done.stdout)


@pytest.mark.parametrize("number", range(len(WRONG)), ids=lambda number: " ".join(WRONG[number][0]))
def test_what_is_wrong_at_sight_is_told_before_heavy_imports(told, number):
    status, error, heavy = told[number]
    assert (status, heavy) == (1, [])
    assert error.startswith("mmctr: ")
    assert WRONG[number][1] in error
    assert len(error.splitlines()) == 1


def test_the_version_says_where_it_was_imported_from(monkeypatch, capsys):
    status, out, _ = call(monkeypatch, capsys, "--version")
    assert (status, out) == (0, f"mmctr {version('mmctr')} from {Path(mmctr.__file__).parent}\n")
    command = [sys.executable, "-m", "mmctr", "--version"]
    assert subprocess.run(command, capture_output=True, text=True, check=True).stdout == out


def test_predict_takes_the_run_s_own_data_as_verify_does(monkeypatch, capsys, tiny_run, home):
    for words in (["--out", home / "own.csv"], ["--data", tiny_run.summary["dataset"]["folder"]]):
        out = [] if "--out" in words else ["--out", home / "named.csv"]
        assert call(monkeypatch, capsys, "predict", tiny_run.folder, *words, *out)[0] == 0
    assert (home / "own.csv").read_bytes() == (home / "named.csv").read_bytes()


def test_the_run_s_own_data_that_are_gone_are_named(monkeypatch, capsys, tiny_run, home):
    copy = shutil.copytree(tiny_run.folder, home / "copy")
    text = (copy / "summary.json").read_text()
    gone = str(tiny_run.summary["dataset"]["folder"])
    (copy / "summary.json").write_text(text.replace(gone, "/gone/tiny"))
    status, _, err = call(monkeypatch, capsys, "predict", copy)
    sentence = "/gone/tiny, on which copy was trained, is not there: name its folder with --data."
    assert (status, err) == (1, f"mmctr: {sentence}\n")


@pytest.mark.parametrize("command", ["train", "search", "backtest", "report"])
def test_every_parameter_is_listed_where_p_is_explained(monkeypatch, capsys, command):
    monkeypatch.setenv("COLUMNS", "400")
    status, out, _ = call(monkeypatch, capsys, command, "--help")
    assert status == 0
    for name in (*DINConfig.model_fields, *TrainConfig.model_fields, *PRESETS, "preset"):
        assert name in out, name
    for strategy in (*STRATEGIES, "ids", "provided:COLUMN"):
        assert strategy in out


def test_with_a_home_relative_folders_are_the_same_for_all_commands(
    monkeypatch, capsys, home, tmp_path_factory
):
    log = {"user_id": [1, 1, 1, 2], "item_id": [1, 2, 3, 2], "timestamp": [1, 2, 3, 4]}
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    monkeypatch.chdir(elsewhere)
    pd.DataFrame(log).to_csv("log.csv", index=False)
    pd.DataFrame({"item_id": range(1, 6), "title": list("abcde")}).to_csv("items.csv", index=False)
    words = ["--interactions", "log.csv", "--items", "items.csv", "--out", "data/ml"]
    status, out, _ = call(monkeypatch, capsys, "data", "import", *words, "--negatives", 1)
    assert (status, out.splitlines()[-1]) == (0, str(home / "data" / "ml"))
    # A folder of that name where the command is given hides nothing.
    write_demo(elsewhere / "data" / "ml", seed=2, items=250, users=64)
    status, out, _ = call(monkeypatch, capsys, "data", "check", "data/ml")
    assert (status, out.splitlines()[0]) == (0, str(home / "data" / "ml"))


@pytest.mark.parametrize("words", [["--help"], ["train", "--help"]])
def test_help_answers_without_the_heavy_libraries(words):
    code = (
        "import sys, mmctr.cli\n"
        f"sys.argv = ['mmctr', *{words}]\n"
        "try:\n    mmctr.cli.main()\n"
        "except SystemExit as end:\n    assert not end.code\n"
        "print({'torch', 'plotly', 'pandas', 'numpy', 'sklearn'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "Usage" in done.stdout
    assert done.stdout.splitlines()[-1] == "set()"


def test_the_core_runs_without_the_notebook_libraries():
    hidden = ("plotly", "papermill", "transformers", "open_clip", "typer", "IPython", "nbconvert")
    code = (
        f"import sys; sys.modules.update(dict.fromkeys({hidden}))\n"
        "import mmctr.data.demo, mmctr.content.strategies, mmctr.training.trainer\n"
        "import mmctr.runs.train, mmctr.evaluation.explain, mmctr.evaluation.compare"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_a_name_that_is_too_long_is_one_sentence(monkeypatch, capsys, home):
    status, _, err = call(monkeypatch, capsys, "data", "demo", "--out", home / ("x" * 300))
    assert status == 1
    assert "xxx cannot be used (File name too long): check its name" in err
    assert len(err.strip().splitlines()) == 1


def test_a_known_click_rate_corrects_what_was_drawn_and_nothing_else(
    monkeypatch, capsys, tiny_folder, tiny_run, home
):
    words = "predict", tiny_run.folder, "--data", tiny_folder, "--click-rate"
    status, _, error = call(monkeypatch, capsys, *words, "0.02")
    assert status == 1
    assert "'click_rate' is 0.02, but no negatives of" in error and "leave click_rate out" in error
    status, _, error = call(monkeypatch, capsys, *words, "2")
    assert status == 1 and "'click_rate' is 2.0" in error
    rng = np.random.default_rng(0)
    log = pd.DataFrame({"user_id": np.repeat(range(40), 10), "timestamp": list(range(10)) * 40})
    log["item_id"] = np.concatenate([rng.permutation(30)[:10] for _ in range(40)])
    log.to_csv(home / "log.csv", index=False)
    pd.DataFrame({"item_id": range(30)}).to_csv(home / "items.csv", index=False)
    words = ["--interactions", home / "log.csv", "--items", home / "items.csv"]
    assert call(monkeypatch, capsys, "data", "import", *words, "--out", home / "clicks")[0] == 0
    words = ["train", "--data", home / "clicks", "--strategy", "ids", *QUICK]
    status, out, _ = call(monkeypatch, capsys, *words, "--click-rate", "0.02")
    assert status == 0
    run = Path(out.splitlines()[-1])
    odds = []
    for rate in ([], ["--click-rate", "0.25"]):
        words = ["predict", run, "--out", home / "out.csv", *rate]
        status, out, _ = call(monkeypatch, capsys, *words)
        assert status == 0 and "corrected from" in out
        probability = pd.read_csv(home / "out.csv")["probability"]
        odds.append(probability / (1 - probability))
    # 0.25 is the share that it was trained with: one click to three drawn negatives.
    expected = odds[1] * (0.02 / 0.98) / (0.25 / 0.75)
    np.testing.assert_allclose(odds[0], expected, rtol=1e-5)
