"""The command line does what the library does, and fails with one sentence."""

import shutil
import subprocess
import sys
import zipfile

import pandas as pd
import pytest

from mmctr import cli
from mmctr.training.checkpoint import Run

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


def test_check_describes_or_lists_errors(monkeypatch, capsys, tiny_folder, home):
    status, out, _ = call(monkeypatch, capsys, "data", "check", tiny_folder)
    assert status == 0
    assert "click rate" in out
    broken = home / "broken"
    shutil.copytree(tiny_folder, broken, ignore=shutil.ignore_patterns("item_images"))
    for name in ("train", "valid"):
        path = broken / "MicroLens_1M_x1" / f"{name}.parquet"
        pd.read_parquet(path).drop(columns="label").to_parquet(path)
    status, _, err = call(monkeypatch, capsys, "data", "check", broken)
    assert status == 1
    assert "train.parquet has no column label" in err
    assert "valid.parquet has no column label" in err


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["train", "--data", "nowhere"], "nowhere is not a folder"),
        (["train", "--strategy", "v9"], "Strategy 'v9' is unknown: choose one of v1"),
        (["train", "-p", "heads=many"], "Parameter 'heads' is 'many', expected a valid integer"),
        (["train", "-p", "heads"], "expected KEY=VALUE"),
        (["features", "extract", "nowhere"], "nowhere is not a folder"),
        (["predict", "nowhere"], "nowhere is not a finished run"),
        (["report", "--seeds", "one"], "expected whole numbers"),
        (["report", "--strategies", "v1,v9"], "Strategy 'v9' is unknown"),
        (["data", "demo", "--out", "."], "exists already"),
        (["data", "download", "other"], "Found dataset 'other', expected microlens-1m"),
        (["data", "download", "microlens-1m"], "add --accept-terms"),
    ],
)
def test_errors_are_one_sentence_and_status_1(monkeypatch, capsys, tiny_folder, words, sentence):
    if words[0] in ("train", "predict", "report") and "--data" not in words:
        words = [*words, "--data", str(tiny_folder)]
    status, _, err = call(monkeypatch, capsys, *words)
    assert status == 1
    assert sentence in err
    assert err.startswith("mmctr: ")
    assert len(err.strip().splitlines()) == 1


def test_import_then_check(monkeypatch, capsys, home):
    log = pd.DataFrame({"user_id": [1, 1, 1, 2], "item_id": [1, 2, 3, 2], "when": [1, 2, 3, 4]})
    log.to_csv(home / "log.csv", index=False)
    items = pd.DataFrame({"item_id": range(1, 6), "title": list("abcde"), "tags": "x|y"})
    items.to_csv(home / "items.csv", index=False)
    words = ["data", "import", "--interactions", home / "log.csv", "--items", home / "items.csv"]
    words += ["--out", home / "mine", "--negatives", 1, "-p", "time_column=when"]
    status, out, _ = call(monkeypatch, capsys, *words)
    assert status == 0
    assert out.splitlines()[-1] == str(home / "mine")
    status, out, _ = call(monkeypatch, capsys, "data", "check", home / "mine")
    assert status == 0
    status, _, err = call(monkeypatch, capsys, *words)
    assert (status, "exists already" in err) == (1, True)


def test_the_demo_is_made_where_it_is_asked_for(monkeypatch, capsys, home):
    made = {}

    def write(folder, seed):
        made[folder] = seed
        return folder

    monkeypatch.setattr("mmctr.data.demo.write_demo", write)
    assert call(monkeypatch, capsys, "data", "demo", "--out", home / "d", "--seed", 4)[0] == 0
    assert call(monkeypatch, capsys, "data", "demo")[0] == 0
    assert made == {home / "d": 4, home / "data" / "demo": 0}


def test_help_answers_without_the_heavy_libraries():
    code = "import sys, mmctr.cli; print({'torch', 'plotly', 'pandas'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


def test_the_core_runs_without_the_notebook_libraries():
    hidden = ("plotly", "papermill", "transformers", "open_clip", "typer", "IPython", "nbconvert")
    code = (
        f"import sys; sys.modules.update(dict.fromkeys({hidden}))\n"
        "import mmctr.data.demo, mmctr.fusion, mmctr.training.trainer, mmctr.explain, mmctr.compare"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
