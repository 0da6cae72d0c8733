"""The commands of finished runs: on their own data, and on a catalog that has grown since."""

import json
import shutil
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from mmctr.runs.run import Run
from tests.data.importing.logs import ITEMS, imported
from tests.test_cli import call

RNG = np.random.default_rng(0)
LOG = pd.DataFrame(
    [
        (f"u{user}", f"i{item}", time)
        for user in range(12)
        for time, item in enumerate(RNG.permutation(12)[:6])
    ],
    columns=["user_id", "item_id", "timestamp"],
)
NEW = ["i3", "i7"]  # items of tuesday


@pytest.fixture(scope="module")
def days(tmp_path_factory):
    """Two datasets of one shop: tuesday's has two items more."""
    place = tmp_path_factory.mktemp("days")
    rng, quiet = np.random.default_rng(1), lambda _: None
    features = {
        "item_id": ITEMS["item_id"].tolist(),
        "txt_emb": rng.normal(size=(12, 4)).astype(np.float32).tolist(),
    }
    kept = ~LOG["item_id"].isin(NEW)
    items = ITEMS[~ITEMS["item_id"].isin(NEW)]
    options = {"features": features, "say": quiet, "negatives": 2}
    monday, _ = imported(place, LOG[kept], items, out="monday", **options)
    tuesday, _ = imported(place, LOG, out="tuesday", **options)
    return monday, tuesday


@pytest.fixture
def home(tmp_path, monkeypatch):
    """Runs of these tests go here."""
    monkeypatch.setenv("MMCTR_HOME", str(tmp_path))
    return tmp_path


@pytest.fixture
def command(monkeypatch, capsys, home):
    """Run a command: its output, or the sentence it failed with."""

    def run(*words):
        status, out, err = call(monkeypatch, capsys, *words)
        assert status in (0, 1)
        return out if status == 0 else err

    return run


@pytest.fixture(scope="module")
def trained(days, tmp_path_factory):
    """A run of monday."""
    home = tmp_path_factory.mktemp("trained")
    with pytest.MonkeyPatch.context() as patch:
        from mmctr.data.dataset import Dataset
        from mmctr.runs.train import train
        from mmctr.training.config import configs

        patch.setenv("MMCTR_HOME", str(home))
        small = configs(epochs=1, embedding_dim=4, heads=1, hidden=(8,), identity_dropout=0.1)
        return train(Dataset.load(days[0]), "v1", *small, home / "runs").folder


def test_predict_serves_a_catalog_that_has_grown_and_says_how_far_it_is(
    command, days, trained, home
):
    out = command("predict", trained, "--data", days[1], "--out", home / "p.csv")
    lines = [" ".join(line.split()) for line in out.splitlines()]
    assert "items 2 of 12 16.7%" in lines
    assert "of its items gone 0" in lines
    assert any(line.startswith("the run's valid") for line in lines)
    table = pd.read_csv(home / "p.csv", dtype={"item_id": str})
    assert table["probability"].between(0, 1).all()
    assert set(table["item_id"]) & set(NEW)
    own = command("predict", trained, "--out", home / "own.csv")
    assert "Unknown to the run" not in own


def test_train_from_a_run_then_verify_predict_and_rerun(command, days, trained, home):
    words = ["--from", trained, "--data", days[1], "-p", "epochs=2", "--seed", 3]
    out = command("train", *words)
    assert "Unknown to the run" in out
    run = Run.load(out.splitlines()[-1])
    assert run.folder.parent == home / "runs"
    assert (run.config["training"]["epochs"], run.seed) == (2, 3)
    assert run.config["model"] == Run.load(trained).config["model"]
    assert run.config["origin"]["name"] == trained.name
    assert "are as it says" in command("verify", run.folder)
    assert "AUC" in command("predict", run.folder, "--out", home / "p.csv")
    assert "identical, bit for bit" in command("rerun", run.folder)
    gone = shutil.copytree(run.folder, home / "elsewhere" / "copy")
    text = json.loads((gone / "config.json").read_text())
    text["origin"]["folder"] = "/gone/run"
    (gone / "config.json").write_text(json.dumps(text))
    assert "was started from /gone/run, which is not there with" in command("rerun", gone)


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["-p", "heads=2"], "Found -p heads with --from"),
        (["-p", "preset=din"], "Found -p preset with --from"),
        (["--strategy", "v2"], "Found --strategy with --from"),
        (["-p", "colour=red"], "Parameter 'colour' is unknown"),
        (["--resume", "x"], "with --resume x, expected one of them"),
    ],
)
def test_the_model_of_a_run_stays_as_it_is(command, trained, words, sentence):
    assert sentence in command("train", "--from", trained, *words)


def test_a_run_that_was_moved_with_its_data_finds_them_again(command, days, home):
    """Below its new home at the old place or by its name, but never other files of that name."""
    old, small = home / "old", ["-p", "epochs=1", "-p", "embedding_dim=4", "-p", "hidden=[8]"]
    data = Path(shutil.copytree(days[0], old / "data" / "shop"))
    out = command("train", "--data", data, "--strategy", "v1", *small)
    run = Path(out.splitlines()[-1])
    shutil.move(run, old / "runs" / run.name)
    new = Path(shutil.move(old, home / "new"))
    moved = new / "runs" / run.name
    assert "are as it says" in command("verify", moved)
    assert "AUC" in command("predict", moved, "--out", home / "p.csv")
    shutil.move(new / "data" / "shop", new / "shop")
    assert "are as it says" in command("verify", moved)
    shutil.rmtree(new / "shop")
    shutil.copytree(days[1], new / "data" / "shop")
    sentence = f"{data}, on which {run.name} was trained, is not there: name its folder with --data"
    assert sentence in command("verify", moved)
    assert "are as it says" in command("verify", moved, "--data", days[0])


@pytest.mark.parametrize("ending", ["csv", "parquet"])
def test_recommend_ranks_what_was_not_clicked_new_items_among_it(
    command, days, trained, home, ending
):
    out = home / f"r.{ending}"
    words = ["recommend", trained, "--data", days[1], "--users", "u1,u4", "--top", 4, "--out", out]
    assert command(*words).startswith(f"{out}: 8 rows, 2 users\n")
    table = pd.read_csv(out) if ending == "csv" else pd.read_parquet(out)
    assert table["user_id"].tolist() == ["u1"] * 4 + ["u4"] * 4
    titles = dict(zip(ITEMS["item_id"], ITEMS["title"], strict=True))
    assert table["title"].tolist() == [titles[item] for item in table["item_id"]]
    assert table["new"].tolist() == table["item_id"].isin(NEW).tolist()
    clicked = set(zip(LOG["user_id"], LOG["item_id"], strict=True))
    assert not clicked & set(zip(table["user_id"], table["item_id"], strict=True))
    (home / "new.txt").write_text("i3\ni7\n")
    command(*words[:-2], "--candidates", home / "new.txt", "--out", home / "new.csv")
    found = pd.read_csv(home / "new.csv")
    assert found["new"].all()
    everybody = command(
        "recommend", trained, "--data", days[1], "--top", 1, "--out", home / "a.csv"
    )
    assert "12 rows, 12 users" in everybody


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["--users", "nobody"], "Found user 'nobody', expected one of the 12 users"),
        (["--candidates", "nowhere.txt"], "nowhere.txt cannot be read"),
        (["--out", "r.xlsx"], "Found --out r.xlsx, expected a name that ends in .csv or .parquet"),
    ],
)
def test_what_cannot_be_recommended_is_one_sentence(command, days, trained, words, sentence):
    err = command("recommend", trained, "--data", days[1], *words)
    assert sentence in err
    assert len(err.strip().splitlines()) == 1


def test_export_writes_the_scorer_and_the_items_of_a_catalog_that_has_grown(
    command, days, trained, home
):
    for name in ("onnxscript", "onnxruntime"):
        pytest.importorskip(name)
    lines = command("export", trained, "--data", days[1], "--onnx").splitlines()
    folder = home / "exports" / trained.name
    assert lines[-1] == str(folder)
    assert float(lines[-2].removeprefix("largest difference of a probability from PyTorch ")) < 1e-5
    vectors = pd.read_parquet(folder / "items.parquet").set_index("item_id")["vector"]
    assert set(vectors.index) == set(ITEMS["item_id"]) > set(NEW)
    assert lines[-3].endswith(f"12 vectors of {len(vectors['i3'])} numbers")
    assert "exists already: delete it or choose another folder with --out" in command(
        "export", trained, "--onnx"
    )


def test_export_needs_a_form(command, trained, home):
    err = command("export", trained, "--out", home / "made")
    assert err == "mmctr: Found no form to export to, expected --onnx: name it.\n"
    assert not (home / "made").exists()


def test_train_and_track_write_the_same_for_tensorboard(command, days, home):
    pytest.importorskip("tensorboard")
    words = ["train", "--data", days[0], "--strategy", "v1", "-p", "epochs=1", "-p", "hidden=[8]"]
    folder = Run.load(command(*words, "--track").splitlines()[-1]).folder
    (file,) = folder.glob("*tfevents*")
    at_once = file.read_bytes()
    file.unlink()
    assert command("track", folder.name) == f"{file}\n"
    assert file.read_bytes() == at_once
    assert folder.name in command("runs") and "Passed over" not in command("runs")
    assert "are as it says" in command("verify", folder)
    assert "Found no run 'nothing'" in command("track", folder.name, "nothing")


def test_without_tensorboard_no_training_is_begun(command, days, home, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    assert "need the extra track" in command("train", "--data", days[0], "--track")
    assert not (home / "runs").exists()


def test_a_killed_warm_start_is_gone_on_with(command, days, trained, home, monkeypatch):
    from mmctr.training import trainer

    real, steps = trainer.update, iter(range(99))

    def update(*arguments):
        if next(steps) == 2:
            raise KeyboardInterrupt
        return real(*arguments)

    words = ["train", "--from", trained, "--data", days[1], "-p", "epochs=3", "-p", "validations=1"]
    monkeypatch.setattr(trainer, "update", update)
    said = command(*words, "-p", "batch_size=64")
    assert "--resume" in said
    monkeypatch.setattr(trainer, "update", real)
    left = next((home / "runs").glob("*-unfinished"))
    resumed = Run.load(command("train", "--resume", left).splitlines()[-1])
    at_once = Run.load(command(*words, "-p", "batch_size=64").splitlines()[-1])
    for name in ("model.safetensors", "config.json", "predictions.parquet"):
        assert (resumed.folder / name).read_bytes() == (at_once.folder / name).read_bytes()


@pytest.fixture
def some(home, trained):
    """Copies of a run below runs/: of another seed, other heads, other data, and a damaged one."""
    changes = {
        "one": {},
        "seed": {"training": {"seed": 2}},
        "heads": {"model": {"heads": 2}},
        "elsewhere": {},
        "damaged": {},
    }
    for name, change in changes.items():
        folder = shutil.copytree(trained, home / "runs" / name)
        config = json.loads((folder / "config.json").read_text())
        for part, values in change.items():
            config[part] |= values
        (folder / "config.json").write_text(json.dumps(config))
        table = pd.read_parquet(folder / "predictions.parquet")
        noise = np.random.default_rng(len(name)).uniform(-0.2, 0.2, len(table))
        table["probability"] = (table["probability"] + noise).clip(0, 1)
        table.to_parquet(folder / "predictions.parquet")
    path = home / "runs" / "elsewhere" / "summary.json"
    summary = json.loads(path.read_text())
    summary["dataset"] |= {"fingerprint": "0" * 16, "name": "friday"}
    path.write_text(json.dumps(summary))
    (home / "runs" / "damaged" / "summary.json").write_text("[]")
    return home / "runs"


def test_runs_are_listed_by_what_they_are_comparable_with(command, some, days):
    out = command("runs")
    groups = out.split("\n\n")
    assert [group.split(":")[0] for group in groups[1:3]] == ["friday", "monday"]
    assert {line.split()[0] for line in groups[2].splitlines()[2:]} == {"one", "seed", "heads"}
    (heads,) = (line for line in out.splitlines() if line.startswith("heads "))
    assert "heads=2" in heads.split()
    assert groups[3] == "Passed over, for they are no readable finished runs: damaged.\n"
    of_monday = command("runs", "--data", days[0])
    assert "friday" not in of_monday and "monday" in of_monday
    assert "No finished run on" in command("runs", "--data", days[1])


def test_runs_where_there_are_none(command, home):
    assert command("runs").startswith(f"No finished run below {home / 'runs'}")


def test_compare_tells_differences_what_differs_and_where_they_disagree(command, some, home):
    out = command("compare", "one", some / "heads", "--out", home / "c.csv")
    tables = out.split("\n\n")
    assert {line.split()[0] for line in tables[0].splitlines()[2:]} == {"one", "heads"}
    table = pd.read_csv(home / "c.csv")
    probability = {name: Run.load(some / name).predictions for name in ("one", "heads")}
    assert table["difference"].isna().tolist() == [True, False]
    assert len(table) == 2 and set(table["strategy"]) == {"v1 heads=1", "v1 heads=2"}
    assert f"{table['p_holm'][1]:.3f}" in tables[1]
    (differing,) = tables[2].splitlines()[2:]
    assert sorted(differing.split()) == ["1", "2", "heads"]
    one, heads = (probability[name]["probability"] for name in ("one", "heads"))
    first = int((one - heads).abs().to_numpy().argmax())
    line = tables[3].splitlines()[2]
    row = Run.load(some / "one").predictions.iloc[first]
    own = pd.read_parquet(some / "one" / "predictions.parquet").iloc[first]
    assert line.split()[:2] == [own["user_id"], own["item_id"]]
    assert dict(zip(ITEMS["item_id"], ITEMS["title"], strict=True))[own["item_id"]] in line
    assert line.split()[-3:] == [f"{int(row['label'])}", f"{one[first]:.4f}", f"{heads[first]:.4f}"]


def test_seeds_alone_are_compared_run_by_run_and_beside_others_as_one_system(command, some, home):
    command("compare", "one", "seed", "--out", home / "c.csv")
    assert set(pd.read_csv(home / "c.csv")["run"]) == {"one", "seed"}
    command("compare", "one", "seed", "heads", "--out", home / "c.csv")
    table = pd.read_csv(home / "c.csv").set_index("strategy")
    assert table["seeds"].to_dict() == {"v1 heads=1": 2, "v1 heads=2": 1}


def test_without_its_data_a_comparison_says_that_rows_are_not_shown(command, some, days):
    for name in ("one", "heads"):
        path = some / name / "summary.json"
        summary = json.loads(path.read_text())
        summary["dataset"]["folder"] = "/gone"
        path.write_text(json.dumps(summary))
    assert "not shown: /gone, on which one was trained, is not there" in command(
        "compare", "one", "heads"
    )
    assert "Where they disagree" in command("compare", "one", "heads", "--data", days[0])
    assert "has " in command("compare", "one", "heads", "--data", days[1])


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["one", "elsewhere"], "one and elsewhere cannot be compared"),
        (["one"], "Found one run, one, expected two or more"),
        (["one", "one"], "Found one run, one, expected two or more"),
        (["one", "nothing"], "Found no run 'nothing', expected a folder or the name of one"),
        (["one", "damaged"], "holds no JSON object"),
    ],
)
def test_what_cannot_be_compared_is_one_sentence(command, some, home, words, sentence):
    err = command("compare", *words, "--out", home / "c.csv")
    assert sentence in err
    assert len(err.strip().splitlines()) == 1
    assert not (home / "c.csv").exists()
