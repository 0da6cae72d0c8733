"""Which clicks are for train, valid and test: time runs one way."""

from collections.abc import Callable

import numpy as np

from mmctr.data import schema
from mmctr.data.importing.events import Clicks, Log
from mmctr.data.importing.recipe import Recipe
from mmctr.data.importing.sources import Source, literal
from mmctr.errors import ConfigError

Splitter = Callable[[Clicks], np.ndarray]  # the number of each click's split in schema.SPLITS


def splitter(log: Log, recipe: Recipe, source: Source) -> Splitter:
    """How to split clicks; ConfigError for dates that leave a split empty."""
    if recipe.split == "last-two":
        return _last_two
    valid_from = _border(recipe.valid_from, "valid_from", 0.8, log, source)
    test_from = _border(recipe.test_from, "test_from", 0.9, log, source)
    return lambda clicks: np.where(clicks.time >= test_from, 2, clicks.time >= valid_from)


def require_all(rows: np.ndarray, recipe: Recipe) -> None:
    """Raise ConfigError unless every split has rows, int64 [splits]."""
    empty = [name for name, count in zip(schema.SPLITS, rows, strict=True) if not count]
    if empty and recipe.split == "last-two":
        raise ConfigError(
            "No user has three clicks, so valid and test would be empty: import with --split date."
        )
    if empty:
        raise ConfigError(
            f"No click falls into {empty[0]} with valid_from {recipe.valid_from} and test_from "
            f"{recipe.test_from}: choose times within those of the log."
        )


def _last_two(clicks: Clicks) -> np.ndarray:
    last = np.r_[clicks.start[1:] != clicks.start[:-1], True].nonzero()[0]
    last = last[np.searchsorted(last, np.arange(len(clicks)))]
    from_last = last - np.arange(len(clicks))
    enough = last - clicks.start >= 2  # someone with fewer clicks is there to learn from
    return np.where(enough & (from_last < 2), 2 - from_last, 0)


def _border(given: object, name: str, share: float, log: Log, source: Source) -> int:
    """A time in nanoseconds: a date, a number as in the log, or what a share of clicks precede."""
    if given is None:
        path, place = literal(str(log.path)), int(share * log.clicks)
        times = f"SELECT time FROM read_parquet({path}) ORDER BY time LIMIT 1 OFFSET {place}"
        return int(source.rows(times)[0][0])
    if not isinstance(given, str) and log.unit is not None:
        return int(given * log.unit)
    try:
        return int(np.datetime64(str(given), "ns").astype(np.int64))
    except ValueError:
        raise ConfigError(
            f"Parameter {name!r} is {given!r}, expected a date such as 2024-05-31, or a number as "
            "in the log."
        ) from None
