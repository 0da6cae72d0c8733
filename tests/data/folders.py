"""A dataset of four items in its files, made by hand, to be changed by the tests."""

import json
from itertools import pairwise
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from mmctr.data import parquet, schema
from mmctr.data.dataset import Dataset
from mmctr.data.fields import Field, as_json, column_of
from mmctr.files import write_json

FILES = {
    "item_info": {
        "item_id": [0, 1, 2, 3, 4],
        "item_tags": [[0, 0, 0], [1, 2, 0], [3, 0, 0], [2, 0, 0], [0, 0, 0]],
        "item_emb_d128": [[0.0, 0.0], [1.0, 2.0], [3.0, 4.0], [5.0, 6.0], [7.0, 8.0]],
    },
    "item_feature": {
        "item_id": [4, 2, 1, 3],
        "item_title": ["four", None, "one", "three"],
        "item_tags": [[0, 0, 0], [3, 0, 0], [1, 2, 0], [2, 0, 0]],
        "likes_level": [4, 2, 1, 3],
        "views_level": [10, 0, 1, 5],
        "txt_emb_BERT": [[4.0, 4.5, 4.0], [2.0, 2.5, 2.0], [1.0, 1.5, 1.0], [3.0, 3.5, 3.0]],
        "img_emb_CLIPRN50": [[4.0, -4.0], [2.0, -2.0], [1.0, -1.0], [3.0, -3.0]],
    },
    "train": {
        "user_id": [7, 7, 8, 8],
        "item_seq": [[0, 0, 1], [0, 0, 1], [0, 1, 2], [0, 0, 0]],
        "item_id": [2, 3, 4, 1],
        "likes_level": [6, 7, 8, 9],
        "views_level": [1, 2, 3, 4],
        "label": [0, 1, 0, 1],
    },
    "valid": {
        "user_id": [7, 9],
        "item_seq": [[1, 3], [4, 4]],
        "item_id": [4, 2],
        "likes_level": [1, 1],
        "views_level": [1, 1],
        "label": [1, 0],
    },
    "test": {
        "user_id": [8],
        "item_seq": [[2, 1]],
        "item_id": [3],
        "likes_level": [7],
        "views_level": [2],
        "label": [0],
    },
}
ITEM_FILES = ("item_feature", "item_emb")  # published beside the folder MicroLens_1M_x1


def write_folder(folder, changes=None, *, nested=True):
    """Write FILES with changes {file: {column: values}}; None leaves a column or file out."""
    changes = changes or {}
    for name in FILES | changes:
        change = changes.get(name, {})
        if change is None:
            continue
        columns = {k: v for k, v in (FILES.get(name, {}) | change).items() if v is not None}
        place = folder / schema.NESTED_FOLDER if nested and name not in ITEM_FILES else folder
        place.mkdir(parents=True, exist_ok=True)
        pq.write_table(pa.table(columns), place / f"{name}.parquet")
    return folder


def load_changed(folder, changes):
    """Load the folder's FILES with changes."""
    return Dataset.load(write_folder(folder, changes))


def load_with_fields(folder, negatives="shown", position="pos"):
    """FILES with fields of items, users and context, times, and impressions of two rows each."""
    fields = [
        Field("brand", "item", values=("a", "b")),
        Field("country", "user", values=("DE", "FR")),
        Field("device", "context", values=("phone",)),
        Field(position, "context", borders=(2.0,)),
    ]
    hour = 3_600_000_000_000
    day = 19_723 * 24 * hour  # 2024-01-01
    times = [
        day + 11 * hour // 2,
        day + 5 * hour + 59 * hour // 60,
        day + 23 * hour,
        day + 5 * hour,
    ]
    changes = {
        "item_fields": {"item_id": [1, 2, 3], column_of("brand"): ["a", "b", "a"]},
        "user_fields": {"user_id": [7, 8], column_of("country"): ["FR", "DE"]},
    }
    for name in schema.SPLITS:
        rows = len(FILES[name]["user_id"])
        changes[name] = {
            "time": times[:rows],
            "impression_id": [row // 2 for row in range(rows)],
            column_of("device"): ["phone"] * rows,
            column_of(position): [1.0 + row % 2 for row in range(rows)],
        }
    write_folder(folder, changes)
    write_json(folder / schema.FIELDS, as_json(fields))
    (folder / schema.ABOUT).write_text(json.dumps({"negatives": negatives}))
    return Dataset.load(folder)


def replaced(file, column, row, value):
    """A change of one value of a column of FILES."""
    return {file: {column: [*FILES[file][column][:row], value, *FILES[file][column][row + 1 :]]}}


def histories(rows):
    """Each row's history as a list."""
    return [rows.history(row).tolist() for row in range(len(rows))]


TRUTH = {
    "split": ["train"] * 4 + ["valid"] * 2 + ["test"],
    "row": [1, 0, 2, 3, 0, 1, 0],
    "probability": [0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7],
}
# What an import writes beside them: changes of FILES that name items, users and tags.
NAMES = {
    "item_ids": {
        "item_id": [2, 1, 4, 3],
        "original_id": ["x-2", "0007", "9007199254740993", "<b>"],
    },
    "user_ids": {"user_id": [9, 7, 8], "original_id": ["<i>", "ann", "0008"]},
    "tags": {"tag": [1, 2, 3], "name": ["Drama", "Sci-Fi & more", "Noir"]},
}
NAN, INFINITY = float("nan"), float("inf")


def in_parts(folder, name, cuts, ending="parquet"):
    """Put a folder of parts in place of a split's file, as engines write them."""
    path = schema.find_file(folder, f"{name}.parquet")
    table = pq.read_table(path)
    path.unlink()
    path.mkdir()
    (path / "_SUCCESS").touch()
    (path / ".part-0.parquet.crc").touch()
    for number, (start, stop) in enumerate(pairwise([0, *cuts, len(table)])):
        pq.write_table(table.slice(start, stop - start), path / f"part-{number:05}.{ending}")
    return path


def narrow(folder: Path) -> Path:
    """Leave a demo's features few of their numbers: what reads them then is not what takes long."""
    path = folder / "item_feature.parquet"
    table = pq.read_table(path)
    for column, width in ((schema.TEXT_COLUMN, 144), (schema.IMAGE_COLUMN, 160)):
        features = parquet.matrix(table[column], path, column, np.float32)[:, :width]
        place = table.schema.get_field_index(column)
        table = table.set_column(place, column, parquet.float_lists(features))
    pq.write_table(table, path)
    return folder
