"""A dataset's files, written from clicks, items, negatives and embeddings."""

import json
import shutil
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
from mmctr.data.fields import column_of
from mmctr.data.importing.events import Events, Log
from mmctr.data.importing.items import Embeddings, Items, embedding_columns
from mmctr.data.importing.negatives import sample_negatives
from mmctr.data.importing.recipe import Recipe
from mmctr.data.importing.splits import Splitter
from mmctr.data.impressions import slice_positions
from mmctr.data.popularity import popularity_levels

HISTORY = "item_seq"
TAGS = 5  # tags an item keeps
VALUES = 1 << 23  # clicks of histories that are written at once; a row weighs as ten more
EMBEDDING_ROWS = 1 << 14  # items whose embeddings are written at once


def write_splits(
    folder: Path, log: Log, split: Splitter, train_clicks: np.ndarray, recipe: Recipe
) -> None:
    """Write train, valid and test: events in their order, then the negatives drawn for each.

    train_clicks: int64 [items + 1].
    """
    draws = 0 if recipe.labelled else recipe.negatives
    types = [("user_id", pa.int64()), (HISTORY, pa.list_(pa.int32())), ("item_id", pa.int64())]
    types += [("label", pa.int8()), ("time", pa.int64())]
    types += [("impression_id", pa.int64())] if log.impressions else []
    types += [
        (column_of(c.name), pa.float64() if c.is_number else pa.string()) for c in log.context
    ]
    drawn = {schema.NEGATIVES: recipe.sampling.encode()} if draws else None
    form = pa.schema(types, metadata=drawn)
    with ExitStack() as stack:
        files = [
            stack.enter_context(_writer(folder / f"{name}.parquet", form)) for name in schema.SPLITS
        ]
        # Packing takes longer than drawing: a thread for each file, and few tables wait in memory.
        threads = [stack.enter_context(ThreadPoolExecutor(1)) for _ in files]
        waiting = deque()
        for events in log.chunks("write"):
            items = events.item[:, None]
            if draws:
                held_out = split.held_out
                negatives = sample_negatives(events, train_clicks, held_out, recipe, log.own_id)
                items = np.hstack([items, negatives])
            number = split(events)
            for place, (file, thread) in enumerate(zip(files, threads, strict=True)):
                rows = np.flatnonzero(number == place)
                for table in _rows(events, rows, items, split.history(events), recipe, form):
                    waiting.append(thread.submit(file.write_table, table))
                    if len(waiting) > 2:
                        waiting.popleft().result()
        for last in waiting:
            last.result()


def gather_splits(folder: Path, parts: list[Path]) -> None:
    """Make train, valid and test, each a folder of the files that lie in other folders."""
    for name in schema.SPLITS:
        place = folder / f"{name}.parquet"
        place.mkdir()
        for number, part in enumerate(parts):
            shutil.move(part / f"{name}.parquet", place / f"part-{number:05}.parquet")


def _writer(path: Path, form: pa.Schema) -> pq.ParquetWriter:
    # Without a dictionary what hardly repeats is smaller, and quicker to write and read.
    repeated = [name for name in form.names if name not in (HISTORY, "item_id", "time")]
    flat = [name for name in form.names if name != HISTORY]
    how = {"compression": "zstd", "use_dictionary": repeated, "write_statistics": flat}
    how |= {"column_encoding": {"item_id": "DELTA_BINARY_PACKED"}}
    return pq.ParquetWriter(path, form, **how)


def _rows(
    events: Events,
    rows: np.ndarray,
    items: np.ndarray,
    in_history: np.ndarray,
    recipe: Recipe,
    form: pa.Schema,
) -> Iterator[pa.Table]:
    """Tables of some events: of each as many rows as items has columns, int64 [events, columns]."""
    shown = items.shape[1]
    # Half as wide, because positions in histories are most of what is held and moved.
    clicks = events.item[in_history].astype(np.int32)
    earlier = np.r_[0, np.cumsum(in_history)].astype(np.int32)
    stop = earlier[events.before][rows]
    first = np.maximum(earlier[events.start][rows], stop - min(recipe.max_history, len(events)))
    lengths = stop - first
    weight = np.cumsum(shown * (lengths + 10))
    bounds = np.r_[0, np.flatnonzero(np.diff(weight // VALUES)) + 1, len(rows)]
    for start, end in pairwise(bounds if len(rows) else []):
        part = rows[start:end]
        label = np.zeros((len(part), shown), dtype=np.int8)
        label[:, 0] = events.label[part]
        again = np.repeat(np.arange(len(part)), shown)
        width = lengths[start:end][again]
        seen = clicks[slice_positions(first[start:end][again], width)]
        history = pa.ListArray.from_arrays(np.r_[0, np.cumsum(width)].astype(np.int32), seen)
        further = [events.impression[part]] if events.impression is not None else []
        columns = [
            events.user[part][again],
            history,
            items[part].ravel(),
            label.ravel(),
            events.time[part][again],
            *(column[again] for column in further),
            *(c.combine_chunks().take(part[again]) for c in events.context.columns),
        ]
        arrays = [pa.array(c).cast(t) for c, t in zip(columns, form.types, strict=True)]
        yield pa.Table.from_arrays(arrays, schema=form)


def write_items(
    folder: Path,
    items: Items,
    train_clicks: np.ndarray,
    held_out: np.ndarray,
    embeddings: Embeddings,
) -> int:
    """Write the tables of items, of their own ids and of tags; how many tags there are.

    train_clicks: int64 [items + 1], whose levels are those of the end of train. held_out: int8
    [items + 1].
    """
    levels = popularity_levels(train_clicks, train_clicks.sum(), len(items))
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
        "likes_level": levels[1:, 0],
        "views_level": levels[1:, 1],
        **({"held_out": held_out[1:]} if held_out.any() else {}),
        **({schema.AVAILABLE: items.available} if items.available is not None else {}),
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
