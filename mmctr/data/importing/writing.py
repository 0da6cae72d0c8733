"""A dataset's files, written from clicks, items, negatives and embeddings."""

import json
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from mmctr.data import parquet, schema
from mmctr.data.importing.events import Clicks
from mmctr.data.importing.recipe import Recipe
from mmctr.data.importing.sources import Embeddings
from mmctr.data.impressions import slice_positions
from mmctr.errors import DataError

TAGS = 5  # tags an item keeps
CHUNK = 200_000  # impression groups written at once
EMBEDDING_ROWS = 1 << 14  # items whose embeddings are written at once


def popularity_levels(clicks: np.ndarray) -> np.ndarray:
    """likes_level and views_level of items by their clicks, of which a log knows no finer kinds.

    int64 [2, items]: 0 for items never clicked, 1..10 for others, the same for equally many clicks.
    likes_level cuts the clicked items into tenths, the unpopular ones finely; views_level cuts the
    clicks into tenths, which tells apart the few items that most of them go to.
    """
    levels = np.zeros((2, len(clicks)), dtype=np.int64)
    clicked = clicks > 0
    amounts, place, items = np.unique(clicks[clicked], return_inverse=True, return_counts=True)
    for level, mass in zip(levels, (items, items * amounts.astype(np.int64)), strict=True):
        upto = mass.cumsum()
        level[clicked] = -(-10 * upto // upto[-1:])[place]
    return levels


def write_split(
    path: Path,
    clicks: Clicks,
    rows: np.ndarray,
    negatives: np.ndarray,
    levels: np.ndarray,
    recipe: Recipe,
) -> None:
    """Write one split, group after group: the click first, then its negatives."""
    types = [("user_id", pa.int64()), ("item_seq", pa.list_(pa.int32())), ("item_id", pa.int64())]
    types += [("likes_level", pa.int8()), ("views_level", pa.int8()), ("label", pa.int8())]
    drawn = {schema.NEGATIVES: recipe.sampling.encode()} if recipe.negatives else None
    form = pa.schema(types, metadata=drawn)
    shown = 1 + negatives.shape[1]
    label = np.arange(shown) == 0
    with pq.ParquetWriter(path, form, compression="zstd") as writer:
        for part in np.array_split(rows, max(1, -(-len(rows) // CHUNK))):
            first = np.maximum(clicks.start[part], clicks.before[part] - recipe.max_history)
            lengths = np.repeat(clicks.before[part] - first, shown)
            offsets = np.r_[0, np.cumsum(lengths)]
            flat = slice_positions(np.repeat(first, shown), lengths)
            history = clicks.item[flat].astype(np.int32)
            item = np.column_stack([clicks.item[part], negatives[part]]).ravel()
            columns = [
                np.repeat(clicks.user[part], shown),
                pa.ListArray.from_arrays(offsets.astype(np.int32), history),
                item,
                *levels[:, item],
                np.tile(label, len(part)),
            ]
            arrays = [pa.array(c).cast(t) for c, t in zip(columns, form.types, strict=True)]
            writer.write_table(pa.Table.from_arrays(arrays, schema=form))


def write_items(
    folder: Path, table: pa.Table, recipe: Recipe, levels: np.ndarray, embeddings: Embeddings
) -> int:
    """Write the tables of items and of tags; how many tags there are."""
    names = [recipe.tags_column, "genres"]
    column = next((name for name in names if name in table.column_names), None)
    texts = table[column].to_pandas() if column else pd.Series("", index=range(len(table)))
    words = texts.astype(str).str.split(r"[|,]").explode().str.strip()
    words = words[words != ""]
    # The most frequent tag has number 1; tags of equal frequency follow the alphabet.
    counts = words.value_counts().rename_axis("name").reset_index()
    counts = counts.sort_values(["count", "name"], ascending=[False, True], ignore_index=True)
    number = pd.Series(counts.index + 1, index=counts["name"])
    tags = np.zeros((len(table) + 1, TAGS), dtype=np.int64)
    place = words.groupby(level=0).cumcount().to_numpy()
    kept = place < TAGS
    tags[words.index.to_numpy()[kept] + 1, place[kept]] = number[words[kept]].to_numpy()
    ids = np.arange(len(table) + 1)
    feature = {
        "item_id": ids[1:],
        "item_title": table[recipe.title_column],
        "item_tags": list(tags[1:]),
        "likes_level": levels[0, 1:],
        "views_level": levels[1, 1:],
    }
    written = pa.table(feature | _columns(embeddings.features))
    if embeddings.encoders:
        facts = json.dumps(embeddings.encoders).encode()
        written = written.replace_schema_metadata({schema.ENCODERS: facts})
    pq.write_table(written, folder / "item_feature.parquet", row_group_size=EMBEDDING_ROWS)
    if embeddings.provided:
        provided = pa.table({"item_id": ids[1:]} | _columns(embeddings.provided))
        pq.write_table(provided, folder / "item_emb.parquet", row_group_size=EMBEDDING_ROWS)
    info = pa.table({"item_id": ids, "item_tags": list(tags)})
    pq.write_table(info, folder / schema.NESTED_FOLDER / "item_info.parquet")
    vocabulary = pa.table({"tag": np.arange(1, len(counts) + 1), "name": counts["name"]})
    pq.write_table(vocabulary, folder / "tags.parquet")
    return len(counts)


def _columns(embeddings: dict[str, np.ndarray]) -> dict[str, pa.ChunkedArray]:
    """Matrices as list columns; in chunks, because a list column counts its values in 32 bits."""
    return {
        name: pa.chunked_array(
            parquet.float_lists(values[start : start + EMBEDDING_ROWS])
            for start in range(0, len(values), EMBEDDING_ROWS)
        )
        for name, values in embeddings.items()
    }


def copy_covers(covers: Path | None, original: pa.ChunkedArray, folder: Path) -> int:
    """Copy the covers named by original item ids under their new numbers; how many there are."""
    if covers is None:
        return 0
    if not covers.is_dir():
        raise DataError(f"{covers} is not a folder: name the one that holds the covers.")
    folder.mkdir()
    number = {str(name): new for new, name in enumerate(original.to_pylist(), start=1)}
    copied = 0
    for path in sorted(covers.iterdir()):
        if path.suffix.lower() in schema.COVER_SUFFIXES and path.stem in number:
            shutil.copyfile(path, folder / f"{number[path.stem]}{path.suffix.lower()}")
            copied += 1
    return copied
