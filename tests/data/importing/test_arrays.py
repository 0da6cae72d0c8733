"""Embeddings in NumPy's files, whose rows are those of the items table."""

import numpy as np
import pandas as pd
import pytest

from mmctr.data.dataset import Dataset
from mmctr.data.importing.recipe import Recipe
from mmctr.data.importing.steps import import_dataset
from mmctr.errors import DataError
from tests.data.importing.logs import ITEMS, LOG

SHUFFLED = ITEMS.sample(frac=1, random_state=1)
WORDS = np.array([[int(own[1:]), 0.5, -int(own[1:])] for own in SHUFFLED["item_id"]])


def written(folder, form="csv", items=SHUFFLED, **arrays):
    """Import shuffled items with these arrays, each in a file of its name: dataset and facts."""
    folder.mkdir(exist_ok=True)
    log = pd.DataFrame(LOG, columns=["user_id", "item_id", "timestamp"])
    log.assign(item_id="i" + log["item_id"].astype(str)).to_csv(folder / "log.csv", index=False)
    table = folder / f"items.{form}"
    if form == "csv":
        items.to_csv(table, index=False)
    elif form == "parquet":
        items.to_parquet(table)
    else:
        items.to_json(table, orient="records", lines=True)
    for name, values in arrays.items():
        np.save(folder / f"{name}.npy", values)
    paths = [folder / f"{name}.npy" for name in arrays]
    out = folder / "second"
    facts = import_dataset([folder / "log.csv"], [table], None, out, Recipe.of(negatives=1), paths)
    return Dataset.load(out), facts


@pytest.mark.parametrize("form", ["csv", "parquet", "jsonl"])
@pytest.mark.parametrize("kind", ["float16", "float32", ">f8"])
def test_rows_are_those_of_the_items_table(tmp_path, form, kind):
    look = np.asfortranarray(WORDS[:, :2])
    arrays = {"txt_emb": WORDS.astype(kind), "img_emb": look.astype(kind), "graph": -WORDS}
    dataset, facts = written(tmp_path, form, **arrays)
    catalog = dataset.catalog
    for row, own in enumerate(catalog.ids[1:], start=1):
        number = int(own[1:])
        assert catalog.text_features[row].tolist() == [number, 0.5, -number]
        assert catalog.image_features[row].tolist() == [number, 0.5]
        assert catalog.provided_embedding("graph")[row].tolist() == [-number, -0.5, number]
    assert dataset.encoders["txt_emb_BERT"] == {"model": "txt_emb.npy (ready-made)"}
    assert facts["counts"]["features"] == 12


def test_rows_of_a_long_csv_keep_their_order(tmp_path):
    count = 300_000
    ids = np.random.default_rng(0).permutation(count)
    items = SHUFFLED.iloc[:0].reindex(range(count)).assign(title="some words " * 12)
    items["item_id"] = [f"i{number}" for number in ids]
    catalog = written(tmp_path, items=items, txt_emb=ids[:, None].astype(np.float32))[0].catalog
    assert [f"i{value:.0f}" for value in catalog.text_features[1:, 0]] == catalog.ids[1:].tolist()


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (WORDS[1:], r"txt_emb.npy has 11 rows, but .*items.csv has 12 items"),
        (WORDS[0], "found shape (3,) of float64, expected a row of numbers for each item"),
        (WORDS[:, :0], "found shape (12, 0) of float64"),
        (WORDS.astype(np.int64), "found shape (12, 3) of int64, expected .* float16, float32 or"),
        (WORDS.astype(object), "txt_emb.npy is not a readable NumPy file"),
        (np.where(WORDS == 3, np.nan, WORDS), "row [0-9]+: found NaN or infinity"),
        (np.where(WORDS == 3, 1e300, WORDS), "row [0-9]+: found NaN or infinity"),
    ],
)
def test_arrays_that_cannot_be_used_are_one_sentence(tmp_path, values, message):
    message = message.replace("(", r"\(").replace(")", r"\)")
    with pytest.raises(DataError, match=message) as caught:
        written(tmp_path, txt_emb=values)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "second").exists()


def test_arrays_and_items_need_one_order(tmp_path):
    written(tmp_path, txt_emb=WORDS)
    log, table, array = (tmp_path / name for name in ("log.csv", "items.csv", "txt_emb.npy"))
    other = tmp_path / "other.csv"
    other.write_text("item_id,title,genres\nnew,A title,Drama\n")
    for items, features, message in (
        ([table, other], [array], "expected one file of items, found 2"),
        ([table], [array, table], "of several kinds"),
        ([table], [array, array], r"txt_emb\.npy again"),
    ):
        with pytest.raises(DataError, match=message):
            import_dataset([log], items, None, tmp_path / "out2", Recipe.of(), features)
    chosen = Recipe.of(text_embedding_column="words")
    with pytest.raises(DataError, match=r"no file words\.npy, only txt_emb"):
        import_dataset([log], [table], None, tmp_path / "out2", chosen, [array])
