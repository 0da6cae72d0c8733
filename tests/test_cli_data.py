"""The commands of data do what the library does."""

import shutil

import numpy as np
import pandas as pd

from mmctr.content.fusion import available_strategies, item_embeddings
from mmctr.data.dataset import Dataset
from mmctr.data.importing.recipe import Recipe
from tests.test_cli import QUICK, call, home

__all__ = ["home"]


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


def test_import_then_check(monkeypatch, capsys, home):
    log = pd.DataFrame({"user_id": [1, 1, 1, 2], "item_id": [1, 2, 3, 2], "when": [1, 2, 3, 4]})
    log.to_csv(home / "log.csv", index=False)
    items = pd.DataFrame({"item_id": range(1, 6), "title": list("abcde"), "tags": "x|y"})
    items.to_csv(home / "items.csv", index=False)
    words = ["data", "import", "--interactions", home / "log.csv", "--items", home / "items.csv"]
    features = pd.DataFrame({"item_id": [1, 2, 3, 9], "words": [[1.0], [2.0], [3.0], [4.0]]})
    features.to_parquet(home / "features.parquet")
    words += ["--out", home / "mine", "--negatives", 1, "-p", "time_column=when"]
    words += ["--features", home / "features.parquet", "-p", "text_embedding_column=words"]
    status, out, _ = call(monkeypatch, capsys, *words)
    assert status == 0
    assert ["without_features", "2"] in [line.split() for line in out.splitlines()]
    assert out.splitlines()[-1] == str(home / "mine")
    status, out, _ = call(monkeypatch, capsys, "data", "check", home / "mine")
    assert status == 0
    assert "text features    1 numbers an item" in out
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


def test_every_column_is_listed_where_p_of_import_is_explained(monkeypatch, capsys):
    status, out, _ = call(monkeypatch, capsys, "data", "import", "--help")
    assert status == 0
    for name in Recipe.model_fields:
        assert name in out, name


def test_an_item_embedding_is_kept_for_use_elsewhere(monkeypatch, capsys, tiny_folder, home):
    folder = home / "mine"
    shutil.copytree(tiny_folder, folder, ignore=shutil.ignore_patterns("item_images"))
    for strategy, name in (("v4", "v4"), ("v5", "aligned")):
        words = ["content", "fit", strategy, "--data", folder]
        words += [] if strategy == name else ["--column", name]
        status, out, _ = call(monkeypatch, capsys, *words)
        assert status == 0 and out.strip().endswith("item_emb.parquet")
    dataset = Dataset.load(folder)
    assert {"provided:v4", "provided:aligned"} <= set(available_strategies(dataset.catalog))
    kept, made = (item_embeddings(dataset, name) for name in ("provided:v4", "v4"))
    np.testing.assert_allclose(kept, made / np.sqrt(np.mean(np.square(made[1:]))), atol=1e-5)
    before = (folder / "item_emb.parquet").read_bytes()
    for words, told in ((["v4"], "has a column v4 already"), (["ids"], "has nothing to keep")):
        status, _, err = call(monkeypatch, capsys, "content", "fit", *words, "--data", folder)
        assert status == 1 and told in err
    assert (folder / "item_emb.parquet").read_bytes() == before


def test_clean_then_train_without_what_it_found(monkeypatch, capsys, tiny_folder, home):
    folder = shutil.copytree(tiny_folder, home / "mine")
    train = ["train", "--data", folder, *QUICK, "--exclude"]
    status, _, err = call(monkeypatch, capsys, *train, "dark")
    assert (status, err) == (
        1,
        f"mmctr: {folder} has no errors.parquet: run mmctr data clean {folder} first.\n",
    )
    status, out, _ = call(monkeypatch, capsys, "data", "clean", folder)
    assert status == 0
    table = pd.read_parquet(folder / "errors.parquet")
    for kind, count in table["kind"].value_counts().items():
        assert [str(count), kind] in [line.split()[:2] for line in out.splitlines()]
    assert out.splitlines()[-1].endswith(f"{len(table):,} rows, 0 of them kept by a person")
    table.loc[table["kind"] == "untitled", "excluded"] = False
    table.to_parquet(folder / "errors.parquet")
    _, out, _ = call(monkeypatch, capsys, "data", "clean", folder)
    assert out.splitlines()[-1].endswith("rows, 3 of them kept by a person")
    status, out, _ = call(monkeypatch, capsys, *train, "untitled, dark,sweep")
    assert status == 0
    assert "left out as erroneous: untitled, dark, sweep: 0 titles, 1 covers, 1 users" in out
    run = out.splitlines()[-1]
    for words in (["verify", run], ["predict", run, "--out", home / "p.csv"], ["rerun", run]):
        status, _, err = call(monkeypatch, capsys, *words)
        assert (status, err) == (0, err)
    status, _, err = call(monkeypatch, capsys, *train, "drak")
    assert status == 1
    assert "Found 'drak' to exclude, expected all or kinds of" in err
    status, _, err = call(monkeypatch, capsys, "train", "--resume", run, "--exclude", "dark")
    assert (status, "leave out --strategy" in err) == (1, True)
