"""The sort of a log's rows into events, by DuckDB and larger than memory."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from mmctr.data.importing.engine import progress
from mmctr.data.importing.events import EVENTS, USERS, Log, write_events
from mmctr.data.importing.sources import Source

BATCH = 1 << 17  # rows that are taken over from DuckDB at once


@dataclass(frozen=True)
class Query:
    """SQL from a log's rows to events.

    joined: the rows of {source} with their kind, on the table `items`. known: what is kept of those
    of the kind 'known'. ordered: events of {known} on the table `users`.
    """

    joined: str
    known: str
    ordered: str

    def of_known(self, rows: str) -> str:
        """SQL of the known rows among those that are joined."""
        return f"SELECT {self.known} FROM {rows} WHERE kind = 'known'"


@dataclass(frozen=True)
class Part:
    """A file of sorted events. counts: events, clicks, ties, impressions and users in it."""

    path: Path
    counts: dict[str, int]


class Sorter:
    """Sorts by the embedded engine, into one file.

    each: looks through the log's files, as `map` does.
    """

    each: Callable = map

    def source(self, source: Source) -> Source:
        """The log as it is read."""
        return source

    def kinds(self, source: Source, query: Query) -> dict[str, int]:
        """How many rows are of which kind."""
        known_user = "CASE WHEN kind = 'known' THEN user_id END"
        grouped = f"SELECT kind, {known_user} AS user_id, count(*) AS rows FROM ({query.joined})"
        source.create("kinds", f"{grouped} GROUP BY ALL", "read")
        return dict(source.rows("SELECT kind, sum(rows)::BIGINT FROM kinds GROUP BY kind"))

    def sort(self, source: Source, query: Query, rows: int, folder: Path) -> list[Part]:
        """Write the events of so many known rows, and number their users, after `kinds`."""
        return [sort_part(source, query, f"({query.of_known(f'({query.joined})')})", folder)]

    def log(self, parts: list[Part], log: Log) -> Log:
        """The log of these parts, of which one is in one file."""
        return log


def sort_part(source: Source, query: Query, known: str, folder: Path) -> Part:
    """Write events.parquet and user_ids.parquet; known: SQL whose users are in the table `kinds`.

    The table `users` (user, user_id) has their numbers then, and `kinds` is gone.
    """
    # Users are numbered before the sort, which then moves numbers instead of text.
    numbered = "SELECT user_id, row_number() OVER (ORDER BY length(user_id), user_id) AS user"
    source.create("users", f"{numbered} FROM kinds WHERE kind = 'known'", "number users")
    source.connection.execute("DROP TABLE kinds")
    users = _write_users(source, folder / USERS)
    with progress(source.connection, "sort"):
        ordered = query.ordered.replace("{known}", known)
        counts = write_events(source.batches(ordered, BATCH), folder / EVENTS)
    return Part(folder / EVENTS, counts | {"users": users})


def _write_users(source: Source, path: Path) -> int:
    """Write the users' numbers and their own ids; how many there are."""
    form = pa.schema([("user_id", pa.int64()), ("original_id", pa.string())])
    users = 0
    with pq.ParquetWriter(path, form) as file:
        for batch in source.batches("SELECT user, user_id FROM users ORDER BY user", BATCH):
            file.write_batch(pa.record_batch(batch.columns, names=form.names).cast(form), BATCH)
            users += len(batch)
    return users
