"""A dataset's files, written from clicks, items, negatives and embeddings."""

import json
from collections import deque
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from itertools import pairwise
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from mmctr.data import schema
from mmctr.data.importing.events import Clicks, Log
from mmctr.data.importing.items import Embeddings, Items, embedding_columns
from mmctr.data.importing.negatives import sample_negatives
from mmctr.data.importing.recipe import Recipe
from mmctr.data.importing.splits import Splitter
from mmctr.data.impressions import slice_positions

# Histories without a dictionary are smaller, and quicker to write and read.
FLAT = ["user_id", "item_id", "likes_level", "views_level", "label"]
TAGS = 5  # tags an item keeps
VALUES = 1 << 23  # clicks of histories that are written at once; a row weighs as ten more
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


def write_splits(
    folder: Path,
    log: Log,
    split: Splitter,
    train_clicks: np.ndarray,
    levels: np.ndarray,
    recipe: Recipe,
) -> None:
    """Write train, valid and test, group after group: the click first, then its negatives.

    train_clicks: int64 [items + 1]. levels: int64 [2, items + 1].
    """
    types = [("user_id", pa.int64()), ("item_seq", pa.list_(pa.int32())), ("item_id", pa.int64())]
    types += [("likes_level", pa.int8()), ("views_level", pa.int8()), ("label", pa.int8())]
    drawn = {schema.NEGATIVES: recipe.sampling.encode()} if recipe.negatives else None
    form = pa.schema(types, metadata=drawn)
    levels = levels.astype(np.int8)
    users = log.path.with_name("user_ids.parquet")

    def original(user: int) -> str:
        found = pq.read_table(users, filters=[("user_id", "=", int(user))])
        return found["original_id"][0].as_py()

    with ExitStack() as stack:
        files = [
            stack.enter_context(
                pq.ParquetWriter(
                    folder / f"{name}.parquet", form, compression="zstd", use_dictionary=FLAT
                )
            )
            for name in schema.SPLITS
        ]
        # Packing takes as long as drawing: both cores have work, and few tables wait in memory.
        writer, waiting = stack.enter_context(ThreadPoolExecutor(1)), deque()
        for clicks in log.chunks("write"):
            negatives = sample_negatives(clicks, train_clicks, recipe, original)
            number = split(clicks)
            for place, file in enumerate(files):
                rows = np.flatnonzero(number == place)
                for table in _groups(clicks, rows, negatives, levels, recipe, form):
                    waiting.append(writer.submit(file.write_table, table))
                    if len(waiting) > 2:
                        waiting.popleft().result()
        for last in waiting:
            last.result()


def _groups(
    clicks: Clicks,
    rows: np.ndarray,
    negatives: np.ndarray,
    levels: np.ndarray,
    recipe: Recipe,
    form: pa.Schema,
) -> Iterator[pa.Table]:
    shown = 1 + negatives.shape[1]
    label = np.arange(shown) == 0
    first = np.maximum(clicks.start, clicks.before - recipe.max_history)[rows]
    lengths = clicks.before[rows] - first
    weight = np.cumsum(shown * (lengths + 10))
    bounds = np.r_[0, np.flatnonzero(np.diff(weight // VALUES)) + 1, len(rows)]
    for start, stop in pairwise(bounds if len(rows) else []):
        part, width = rows[start:stop], lengths[start:stop]
        seen = clicks.item[slice_positions(first[start:stop], width)].astype(np.int32)
        history = pa.ListArray.from_arrays(np.r_[0, np.cumsum(width)].astype(np.int32), seen)
        item = np.column_stack([clicks.item[part], negatives[part]]).ravel()
        columns = [
            np.repeat(clicks.user[part], shown),
            history.take(np.repeat(np.arange(len(part)), shown)),
            item,
            *levels[:, item],
            np.tile(label, len(part)),
        ]
        arrays = [pa.array(c).cast(t) for c, t in zip(columns, form.types, strict=True)]
        yield pa.Table.from_arrays(arrays, schema=form)


def write_items(folder: Path, items: Items, levels: np.ndarray, embeddings: Embeddings) -> int:
    """Write the tables of items, of their own ids and of tags; how many tags there are."""
    words = pd.Series(items.tags, dtype=object).explode().dropna()
    # The most frequent tag has number 1; tags of equal frequency follow the alphabet.
    counts = words.value_counts().rename_axis("name").reset_index()
    counts = counts.sort_values(["count", "name"], ascending=[False, True], ignore_index=True)
    number = pd.Series(counts.index + 1, index=counts["name"])
    tags = np.zeros((len(items) + 1, TAGS), dtype=np.int64)
    place = words.groupby(level=0).cumcount().to_numpy()
    kept = place < TAGS
    tags[words.index.to_numpy()[kept] + 1, place[kept]] = number[words[kept]].to_numpy()
    ids = np.arange(len(items) + 1)
    feature = {
        "item_id": ids[1:],
        "item_title": items.titles,
        "item_tags": list(tags[1:]),
        "likes_level": levels[0, 1:],
        "views_level": levels[1, 1:],
    }
    written = pa.table(feature | embedding_columns(embeddings.features, EMBEDDING_ROWS))
    if embeddings.encoders:
        facts = json.dumps(embeddings.encoders).encode()
        written = written.replace_schema_metadata({schema.ENCODERS: facts})
    pq.write_table(written, folder / "item_feature.parquet", row_group_size=EMBEDDING_ROWS)
    if embeddings.provided:
        columns = embedding_columns(embeddings.provided, EMBEDDING_ROWS)
        provided = pa.table({"item_id": ids[1:]} | columns)
        pq.write_table(provided, folder / "item_emb.parquet", row_group_size=EMBEDDING_ROWS)
    info = pa.table({"item_id": ids, "item_tags": list(tags)})
    pq.write_table(info, folder / schema.NESTED_FOLDER / "item_info.parquet")
    own = pa.table({"item_id": ids[1:], "original_id": items.ids})
    pq.write_table(own, folder / schema.ITEM_IDS)
    names = pa.array(counts["name"], pa.string())
    vocabulary = pa.table({"tag": np.arange(1, len(counts) + 1), "name": names})
    pq.write_table(vocabulary, folder / schema.TAG_NAMES)
    return len(counts)
