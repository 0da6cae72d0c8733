"""Covers of any format, from folders and tables, by the id as text."""

from io import BytesIO

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from mmctr.data import schema
from mmctr.data.dataset import Dataset
from mmctr.data.importing.recipe import Recipe
from mmctr.data.importing.steps import import_dataset
from mmctr.errors import DataError
from tests.data.importing.logs import ITEMS, LOG, imported


def picture(color, form="PNG"):
    """The bytes of a small picture of one colour."""
    file = BytesIO()
    Image.new("RGB", (6, 4), color).save(file, form)
    return file.getvalue()


def colors(out):
    """The colour of each item's cover, by own id."""
    ids = pd.read_parquet(out / "item_ids.parquet")["original_id"]
    found = {}
    for item, path in Dataset.load(out).catalog.covers.items():
        with Image.open(path) as image:
            found[ids[item - 1]] = image.convert("RGB").getpixel((3, 2))
    return found


@pytest.mark.parametrize(
    "form", [f for f in schema.COVER_FORMATS if f in Image.registered_extensions().values()]
)
def test_every_format_is_found_whatever_its_name(tmp_path, form):
    covers = tmp_path / "covers"
    (covers / "deep" / "er").mkdir(parents=True)
    (covers / "i1").write_bytes(picture("black", form))  # without an ending
    (covers / "deep" / "i2.JPeG").write_bytes(picture("black", form))  # with a wrong one
    (covers / "deep" / "er" / "i3.x").write_bytes(picture("black", form))
    (covers / "i4.txt").write_text("no picture")
    (covers / "nobody.png").write_bytes(picture("black"))
    out, facts = imported(tmp_path, LOG, covers=covers, negatives=1)
    assert set(colors(out)) == {"i1", "i2", "i3"}
    counts = facts["counts"]
    assert (counts["covers"], counts["without_cover"], counts["covers_left_over"]) == (3, 9, 2)


def test_ids_with_dots_are_names_and_not_endings(tmp_path):
    items = pd.DataFrame({"item_id": ["a.b", "a", "c"]})
    log = pd.DataFrame({"user_id": "u", "item_id": ["a.b", "a", "c"], "timestamp": [1, 2, 3]})
    covers = tmp_path / "covers"
    covers.mkdir()
    for name, color in (("a.b", "red"), ("a.png", "lime"), ("c.png", "blue")):
        (covers / name).write_bytes(picture(color))
    out, _ = imported(tmp_path, log, items, covers=covers, negatives=0)
    assert colors(out) == {"a.b": (255, 0, 0), "a": (0, 255, 0), "c": (0, 0, 255)}


@pytest.mark.parametrize("kind", ["paths", "bytes", "struct", "csv"])
def test_a_table_names_or_holds_the_pictures(tmp_path, kind):
    (tmp_path / "files").mkdir()
    chosen = {"i5": "red", "i7": "blue", "gone": "lime"}
    for color in chosen.values():
        (tmp_path / "files" / f"{color}.png").write_bytes(picture(color))
    ids, raw = list(chosen), [picture(color) for color in chosen.values()]
    paths = [f"files/{color}.png" for color in chosen.values()]
    columns = {
        "paths": {"item_id": ids, "size": ["s"] * 3, "path": paths},
        "csv": {"item_id": ids, "path": paths},
        "bytes": {"item_id": ids, "image": raw},
        "struct": {"item_id": ids, "image": [{"bytes": b, "path": None} for b in raw]},
    }[kind]
    table = tmp_path / f"covers.{'csv' if kind == 'csv' else 'parquet'}"
    if kind == "csv":
        pd.DataFrame(columns).to_csv(table, index=False)
    else:
        pq.write_table(pa.table(columns), table)
    out, facts = imported(tmp_path, LOG, covers=table, negatives=1)
    assert colors(out) == {"i5": (255, 0, 0), "i7": (0, 0, 255)}
    assert facts["counts"]["covers_left_over"] == 1


def test_a_table_without_pictures_is_one_sentence(tmp_path):
    pd.DataFrame({"item_id": ["i1"], "n": [1]}).to_parquet(tmp_path / "covers.parquet")
    ITEMS.to_parquet(tmp_path / "items.parquet")
    pd.DataFrame(LOG, columns=["user_id", "item_id", "timestamp"]).assign(
        item_id=lambda log: "i" + log["item_id"].astype(str)
    ).to_csv(tmp_path / "log.csv", index=False)
    paths = [tmp_path / "log.csv"], [tmp_path / "items.parquet"], tmp_path / "covers.parquet"
    with pytest.raises(DataError, match="has no column of pictures, only item_id, n: expected"):
        import_dataset(*paths, tmp_path / "o", Recipe.of())
    assert not (tmp_path / "o").exists()


def test_covers_of_no_item_are_one_sentence(tmp_path):
    covers = tmp_path / "covers"
    covers.mkdir()
    (covers / "other.png").write_bytes(picture("red"))
    message = r"covers has a cover for 0 of 12 items: expected pictures .* such as i0\.jpg"
    with pytest.raises(DataError, match=message):
        imported(tmp_path, LOG, covers=covers)
    assert not (tmp_path / "out").exists()


def test_a_table_of_covers_may_be_json(tmp_path):
    (tmp_path / 'a "b".png').write_bytes(picture("red"))
    table = tmp_path / "covers.jsonl"
    rows = pd.DataFrame({"item_id": ["i5"], "path": ['a "b".png']})
    rows.to_json(table, orient="records", lines=True)
    assert colors(imported(tmp_path, LOG, covers=table)[0]) == {"i5": (255, 0, 0)}
