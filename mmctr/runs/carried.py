"""What a run carries to serve other catalogs: its items' own ids, its tags' names, its strategy.

items.parquet: a row an item, by number. tags.parquet: the names of tags, if they have any.
strategy.json and strategy.safetensors: the fitted strategy, unless it is "ids".
"""

import json
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from pandas.util import hash_array
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from mmctr.content.fitted import FittedStrategy, from_state, to_state
from mmctr.data import parquet, schema
from mmctr.data.dataset import Dataset
from mmctr.data.names import Names, tag_names
from mmctr.errors import DataError, RunError, first_line
from mmctr.files import write_json

ITEMS, TAGS = "items.parquet", schema.TAG_NAMES
STRATEGY, ARRAYS = "strategy.json", "strategy.safetensors"
TITLE = "title_hash"  # 64 bits of each title: enough to see that it has changed
# Of what is known of an encoder, that which makes other vectors of the same item.
DECIDES = ("weights", "tokenizer", "max_tokens", "pooling", "preprocess")


@dataclass(frozen=True)
class Carried:
    """What a run knows of its items beyond its weights, which name them by number.

    ids: text, object [n_items + 1], "" for padding. titles: int64 [n_items + 1], a hash of each.
    tag_names: by number. strategy: as it was fitted, None for "ids". encoders: of the features.
    """

    ids: np.ndarray
    titles: np.ndarray
    tag_names: dict[int, str]
    strategy: FittedStrategy | None
    encoders: dict[str, dict[str, Any]] = field(default_factory=dict)

    @cached_property
    def _index(self) -> pd.Index:
        return pd.Index(self.ids[1:], dtype=object)

    def numbers(self, ids: np.ndarray) -> np.ndarray:
        """The run's numbers of items by own id, text [n]: int64 [n], 0 for those it lacks."""
        return self._index.get_indexer(pd.Index(ids, dtype=object)) + 1


def title_hashes(titles: np.ndarray) -> np.ndarray:
    """A hash of each title, text [n]: int64 [n]."""
    return hash_array(titles.astype(object), categorize=False).view(np.int64)


UNTITLED = title_hashes(np.array([""]))[0]


def require_kept(dataset: Dataset, strategy: FittedStrategy | None) -> None:
    """Raise, before a training is lost, what `write` would: ConfigError for a strategy that no
    file holds, DataError for damaged facts of the encoders.
    """
    if strategy is not None:
        to_state(strategy.transformer)
        _ = dataset.encoders


def write(folder: Path, dataset: Dataset, strategy: FittedStrategy | None) -> None:
    """Write what a run carries into its folder; ConfigError for a strategy that no file holds."""
    catalog = dataset.catalog
    items = {
        "item_id": np.arange(1, catalog.n_items + 1),
        "original_id": pa.array(catalog.ids[1:], pa.string()),
        TITLE: title_hashes(catalog.titles)[1:],
    }
    pq.write_table(pa.table(items), folder / ITEMS, compression="zstd")
    if catalog.tag_names:
        names = {"tag": list(catalog.tag_names), "name": list(catalog.tag_names.values())}
        pq.write_table(pa.table(names), folder / TAGS, compression="zstd")
    if strategy is not None:
        structure, arrays = to_state(strategy.transformer)
        save_file(arrays, folder / ARRAYS)
        about = {"strategy": strategy.name, "widths": strategy.widths}
        about |= {"encoders": dataset.encoders, "fitted": structure}
        write_json(folder / STRATEGY, about)


def read(folder: Path, n_items: int, strategy: str) -> Carried:
    """What the run of a folder carries; RunError if it is damaged, or older than these files."""
    wanted = [ITEMS] if strategy == "ids" else [ITEMS, STRATEGY, ARRAYS]
    missing = [name for name in wanted if not (folder / name).is_file()]
    if missing:
        raise RunError(
            f"{folder} has no {missing[0]}, because it was trained before runs kept what other "
            "catalogs need: use it on its own dataset, or train it again."
        )
    try:
        found = Names.read(folder / ITEMS, "item_id", "original_id", high=n_items)
        table = parquet.read_columns(folder / ITEMS, ["item_id", TITLE], kinds=_KINDS)
        titles = np.zeros(n_items + 1, dtype=np.int64)
        titles[table["item_id"].to_numpy()] = parquet.integers(table[TITLE], folder / ITEMS, TITLE)
        own = found.of(np.arange(1, n_items + 1))
        ids, tags = np.concatenate([np.array([""], dtype=object), own]), tag_names(folder)
        if strategy == "ids":
            return Carried(ids, titles, tags, None)
        about = json.loads((folder / STRATEGY).read_text(encoding="utf-8"))
        fitted = from_state(about["fitted"], load_file(folder / ARRAYS))
        widths = {str(name): int(width) for name, width in about["widths"].items()}
        encoders = {str(name): dict(facts) for name, facts in about["encoders"].items()}
        return Carried(ids, titles, tags, FittedStrategy(strategy, fitted, widths), encoders)
    except (
        *(DataError, SafetensorError, OSError, RecursionError),
        *(ValueError, KeyError, TypeError, AttributeError, IndexError),
    ) as error:
        raise RunError(
            f"{folder}: what it carries for other catalogs is damaged ({first_line(error)}): train "
            "the model again."
        ) from error


def other_encoder(carried: Carried, dataset: Dataset) -> str | None:
    """The column whose features another encoder has made than the run's, where both are known."""
    if carried.strategy is None:
        return None
    for column in carried.strategy.columns:
        stated, found = carried.encoders.get(column, {}), dataset.encoders.get(column, {})
        both = [name for name in DECIDES if name in stated and name in found]
        if any(stated[name] != found[name] for name in both):
            return column
    return None


_KINDS = schema.KINDS | {TITLE: schema.INTEGER}
