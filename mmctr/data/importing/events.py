"""The events of a log, sorted by user and time: their files, and what is learned of all of them."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from functools import reduce
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from tqdm.auto import tqdm

from mmctr.data.importing.engine import literal

if TYPE_CHECKING:
    from mmctr.data.importing.fields import Column
    from mmctr.data.importing.sources import Source

CHUNK = 1 << 18  # clicks that are worked on at once, or one user's: they fit a processor's cache
EVENTS, USERS = "events.parquet", "user_ids.parquet"
Result = TypeVar("Result")


@dataclass(frozen=True)
class Events:
    """Events of whole users, sorted by user and time: int64 arrays, one entry an event.

    An event is a click, or, in a log with labels, an item that was shown. user: numbered from 1.
    item: new ids. time: nanoseconds since 1970. label: 1 for a click. shown: the time at which the
    first of its impression was. start: where the user's events begin. before: the first event that
    is not earlier than shown, so that start..before are those that happened before. impression:
    alike for items shown together, or None. context: values of fields, a column each.
    """

    user: np.ndarray
    item: np.ndarray
    time: np.ndarray
    label: np.ndarray
    shown: np.ndarray
    start: np.ndarray
    before: np.ndarray
    impression: np.ndarray | None
    context: pa.Table

    def __len__(self) -> int:
        return len(self.user)


@dataclass(frozen=True)
class Log:
    """The events of a log in a file, in order. counts: of rows; said: what was understood.

    first_user, first_impression: what the file's numbers, from 1, are counted on from.
    """

    path: Path
    events: int
    counts: dict[str, int]
    said: list[str]
    unit: int | None  # nanoseconds of the log's own numbers; None for dates
    simultaneous: bool  # whether events of equal time are
    impressions: bool  # whether what was shown together is known
    context: "list[Column]"
    first_user: int = 0
    first_impression: int = 0

    def chunks(self, description: str) -> Iterator[Events]:
        """The events in order, whole users at a time."""
        file = pq.ParquetFile(self.path)
        with tqdm(total=self.events, desc=description, unit=" events", unit_scale=True) as bar:
            for number in range(file.num_row_groups):
                table = file.read_row_group(number)
                yield self._events(table)
                bar.update(len(table))

    def reduce(
        self,
        measure: Callable[[Events], Result],
        merge: Callable[[Result, Result], Result],
        description: str,
    ) -> Result:
        """What is measured of whole users at a time, merged for all of them."""
        return reduce(merge, map(measure, self.chunks(description)))

    def time_at(self, place: int, source: "Source") -> int:
        """The time of the event that so many others precede."""
        times = f"SELECT time FROM read_parquet({literal(str(self.path))}) ORDER BY time"
        return int(source.rows(f"{times} LIMIT 1 OFFSET {place}")[0][0])

    def own_id(self, user: int) -> str:
        """What the log itself calls a user."""
        number = [("user_id", "=", int(user) - self.first_user)]
        return pq.read_table(self.path.with_name(USERS), filters=number)["original_id"][0].as_py()

    def write(self, write: Callable[[Path, "Log"], object], folder: Path) -> None:
        """Have the splits written into a folder."""
        write(folder, self)

    def _events(self, table: pa.Table) -> Events:
        user, item, time = (table[c].to_numpy().astype(np.int64) for c in ("user", "item", "time"))
        further = {
            name: table[name].to_numpy().astype(np.int64)
            for name in ("label", "impression", "shown")
            if name in table.column_names
        }
        user += self.first_user
        if "impression" in further:
            further["impression"] += self.first_impression
        at, new_user = np.arange(len(user)), np.r_[True, user[1:] != user[:-1]]
        new_time = new_user | np.r_[True, time[1:] != time[:-1]]
        start = np.maximum.accumulate(np.where(new_user, at, 0))
        before = np.maximum.accumulate(np.where(new_time, at, 0)) if self.simultaneous else at
        shown = further.get("shown", time)
        if "shown" in further:
            # What was shown together has one history, however late the others follow the first.
            moments, rank = np.unique(time, return_inverse=True)
            key = user * (len(moments) + 1)
            before = np.searchsorted(key + rank, key + np.searchsorted(moments, shown))
        return Events(
            user=user,
            item=item,
            time=time,
            label=further.get("label", np.ones_like(user)),
            shown=shown,
            start=start,
            before=before,
            impression=further.get("impression"),
            context=table.select([c for c in table.column_names if c.startswith("context")]),
        )


def write_events(batches: Iterator[pa.RecordBatch], path: Path) -> dict[str, int]:
    """Write sorted events without repeated ones; how many events, clicks, ties, impressions."""
    counts = dict.fromkeys(("events", "clicks", "ties", "impressions"), 0)
    with ExitStack() as stack:
        file = None
        for table in _whole_users(batches):
            user, item, time = (table[name].to_numpy() for name in ("user", "item", "time"))
            label = table["label"].to_numpy() if "label" in table.column_names else None
            # A log of clicks counts an item once a user, one with labels once an impression, where
            # it was clicked if it ever was.
            group = user if label is None else (together := _together(table))
            pairs = pd.Series((group.astype(np.int64) << 32) | item)
            if label is not None:
                pairs = pairs.iloc[np.argsort(-label, kind="stable")]
            first = ~pairs.duplicated().sort_index().to_numpy()
            if "impression" in table.column_names:
                place = table.column_names.index("impression")
                shown = pa.array(counts["impressions"] + together)
                table = table.set_column(place, "impression", shown)
                counts["impressions"] += int(together.max())
            table = table.filter(pa.array(first))
            if file is None:
                writer = pq.ParquetWriter(path, table.schema, use_dictionary=_texts(table.schema))
                file = stack.enter_context(writer)
            file.write_table(table, row_group_size=1 << 62)
            user, time = user[first], time[first]
            as_before = (np.diff(user) == 0) & (np.diff(time) == 0)
            counts["ties"] += int((np.r_[False, as_before] | np.r_[as_before, False]).sum())
            counts["events"] += len(user)
            counts["clicks"] += len(user) if label is None else int(label[first].sum())
    return counts


def _together(table: pa.Table) -> np.ndarray:
    """The number of what each event was shown with, from 1: a user's impression, or else a time."""
    told = "impression" if "impression" in table.column_names else "time"
    pairs = pd.MultiIndex.from_arrays([table["user"].to_numpy(), table[told].to_pandas()])
    return 1 + pairs.factorize()[0]


def _texts(form: pa.Schema) -> list[str]:
    return [field.name for field in form if pa.types.is_string(field.type)]


def _whole_users(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.Table]:
    """CHUNK clicks at a time, less those of the last user, who may go on, but one user at least.

    Where a table ends depends on the clicks alone, not on the batches they come in.
    """
    waiting, wanted = None, CHUNK
    for batch in batches:
        table = pa.Table.from_batches([batch])
        waiting = pa.concat_tables([waiting, table]) if waiting else table
        while len(waiting) >= wanted:
            user = waiting["user"][:wanted].to_numpy()
            if stop := int(np.searchsorted(user, user[-1])):
                yield waiting[:stop]
                waiting = waiting[stop:]
            wanted = CHUNK if stop else 2 * wanted
    yield waiting
