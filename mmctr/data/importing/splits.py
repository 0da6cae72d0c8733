"""Which events are for train, valid and test: time runs one way, and new items stay new."""

import re
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial

import numpy as np

from mmctr.data import schema
from mmctr.data.importing.events import Events, Log
from mmctr.data.importing.negatives import mixed
from mmctr.data.importing.recipe import Recipe
from mmctr.data.importing.sources import Source
from mmctr.errors import ConfigError


@dataclass(frozen=True)
class Splitter:
    """How to split events.

    borders: of valid and test, in nanoseconds, or None for each user's last two steps. A step is a
    click, or in a log with labels all that happened at one time. held_out: int8 [items + 1], 1
    for items that valid alone knows, 2 for those of test.
    """

    borders: tuple[int, int] | None
    labelled: bool
    held_out: np.ndarray

    def __call__(self, events: Events) -> np.ndarray:
        """The number of each event's split in schema.SPLITS, int64 [n]."""
        if self.borders is None:
            number = self._last_two(events)
        else:
            valid_from, test_from = self.borders
            number = np.where(events.shown >= test_from, 2, events.shown >= valid_from)
        held_out = self.held_out[events.item]
        return np.where(held_out > 0, held_out, number)

    def history(self, events: Events) -> np.ndarray:
        """Whether an event may stand in the histories of later ones, bool [n]."""
        return (events.label == 1) & (self.held_out[events.item] == 0)

    def _last_two(self, events: Events) -> np.ndarray:
        step = events.before if self.labelled else np.arange(len(events))
        if events.impression is not None:
            moments, rank = np.unique(events.shown, return_inverse=True)
            step = events.user * len(moments) + rank
        clicks = np.flatnonzero(self.history(events))
        steps, first = np.unique(step[clicks], return_index=True)
        # How many of its user's steps with a click come before an event, and how many there are.
        user = np.cumsum(events.start == np.arange(len(events))) - 1
        count = np.bincount(user[clicks[first]], minlength=user[-1] + 1)
        before = np.searchsorted(steps, step) - (np.cumsum(count) - count)[user]
        count = count[user]
        from_last = count - before  # 1: at the last step, or after the one before it
        # Someone with fewer than three steps is there to learn from.
        enough = count >= 3
        return np.where(enough & (from_last <= 2), 3 - np.maximum(from_last, 1), 0)


def splitter(log: Log, recipe: Recipe, source: Source, n_items: int) -> Splitter:
    """How to split a log; ConfigError for dates or shares that leave nothing."""
    held_out, borders = np.zeros(n_items + 1, dtype=np.int8), None
    if recipe.split == "date":
        borders = (
            _border(recipe.valid_from, "valid_from", 0.8, log, source),
            _border(recipe.test_from, "test_from", 0.9, log, source),
        )
    elif recipe.split == "new-items":
        held_out = _new_items(log, recipe, n_items)
    return Splitter(borders, recipe.labelled, held_out)


def require_all(clicks: np.ndarray, recipe: Recipe) -> None:
    """Raise ConfigError unless every split has clicks, int64 [splits]."""
    empty = [name for name, count in zip(schema.SPLITS, clicks, strict=True) if not count]
    if empty and recipe.split != "date":
        raise ConfigError(
            "No user has three clicks, so valid and test would be empty: import with --split date."
        )
    if empty:
        raise ConfigError(
            f"No click falls into {empty[0]} with valid_from {recipe.valid_from} and test_from "
            f"{recipe.test_from}: choose times within those of the log."
        )


def _new_items(log: Log, recipe: Recipe, n_items: int) -> np.ndarray:
    """Which items train never sees: int8 [items + 1], 1 for those of valid, 2 for those of test."""
    first = log.reduce(partial(_first_clicks, n_items), np.minimum, "items")
    items = np.flatnonzero(first < np.iinfo(np.int64).max)
    share = round(recipe.new_share * len(items))
    if not share or 2 * share >= len(items):
        raise ConfigError(
            f"Parameter 'new_share' is {recipe.new_share:g}, which is {share} of {len(items)} "
            "clicked items: choose one that leaves some for train, valid and test."
        )
    place = mixed(np.uint64(recipe.seed), items) if recipe.new_by == "random" else first[items]
    items = items[np.lexsort((items, place))]
    held_out = np.zeros(n_items + 1, dtype=np.int8)
    held_out[items[-2 * share : -share]], held_out[items[-share:]] = 1, 2
    return held_out


def _first_clicks(n_items: int, events: Events) -> np.ndarray:
    """When items were first clicked, int64 [items + 1]."""
    first = np.full(n_items + 1, np.iinfo(np.int64).max)
    clicked = events.label == 1
    np.minimum.at(first, events.item[clicked], events.time[clicked])
    return first


def _border(given: object, name: str, share: float, log: Log, source: Source) -> int:
    """A time in nanoseconds: a date, a number as in the log, or what a share of events precede."""
    if given is None:
        return log.time_at(int(share * log.events), source)
    if not isinstance(given, str) and log.unit is not None:
        return int(given * log.unit)
    text = re.sub(r"^(\d{8})(\d{4}|\d{6})$", r"\1T\2", str(given))  # a date of digits
    with suppress(ValueError):
        date = datetime.fromisoformat(text)
        text = (date.astimezone(UTC).replace(tzinfo=None) if date.tzinfo else date).isoformat()
    try:
        return int(np.datetime64(text, "ns").astype(np.int64))
    except ValueError:
        raise ConfigError(
            f"Parameter {name!r} is {given!r}, expected a date such as 2024-05-31, or a number as "
            "in the log."
        ) from None
