"""The import on Spark: the same SQL and the same steps, a part of the log in each task.

Spark deals out parts and brings a user's rows together; within a task DuckDB and NumPy do what they
do without Spark, so that both engines give the same dataset. Items stay with the driver.
"""

import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial, reduce
from itertools import accumulate, chain
from math import ceil
from operator import methodcaller
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from mmctr.data.importing.cluster import Cluster
from mmctr.data.importing.engine import engine, literal
from mmctr.data.importing.events import EVENTS, USERS, Log
from mmctr.data.importing.sorting import Part, Query, Sorter, sort_part
from mmctr.data.importing.sources import ROW_OF, Reader, Source, quoted
from mmctr.data.importing.writing import gather_splits

ROWS = 1 << 20  # of the log that a task works on, and of users that are sorted together
BUCKETS = 1 << 16  # of times that are counted at once
ITEMS, LOG = "items.parquet", "log_of_task"
MERGES: dict[str, Callable[[list], Any]] = {"count": sum, "count_if": sum, "min": min, "max": max}
MERGES |= {"bool_and": all}


@dataclass(frozen=True)
class Piece:
    """What a task reads of a log: SQL, and the files that it may open. number: of the task."""

    number: int
    sql: str
    files: list[Path]


@dataclass(frozen=True, kw_only=True)
class SparkSource(Source):
    """A log that the tasks of a cluster read, each a piece. torn: lines that were unreadable.

    What is asked of all rows is asked of each piece, and merged.
    """

    cluster: Cluster
    pieces: list[Piece]
    torn: int = 0

    def first(self, value: str, where: str = "true", of: str = "{source}") -> Any:
        return self.cluster.find(self.asked(methodcaller("first", value, where, of)), self.pieces)

    def totals(self, *aggregates: str, of: str = "{source}") -> tuple:
        found = self.each(methodcaller("totals", *aggregates, of=of))
        there = [[one for one in values if one is not None] for values in zip(*found, strict=True)]
        names = [aggregate.partition("(")[0] for aggregate in aggregates]
        return tuple(
            MERGES[name](values) if values else None
            for name, values in zip(names, there, strict=True)
        )

    def distinct(self, value: str, most: int) -> list:
        return sorted(set(chain.from_iterable(self.each(methodcaller("distinct", value, most)))))[
            :most
        ]

    def torn_lines(self) -> int:
        return self.torn

    def kept(self, columns: list[str], path: Path) -> "SparkSource":
        if self.sql == LOG and self.form == "parquet":
            return self
        folder = path.with_suffix("")
        folder.mkdir()
        names = [name for name in dict.fromkeys(columns) if name in self.columns]
        found = self.each(partial(_kept, columns, folder))
        kept = replace(self, sql=LOG, columns={name: self.columns[name] for name in names})
        files = [file for file, _ in found]
        pieces = _pieces(kept, [Reader(files, "parquet", "union_by_name=true")])
        return replace(kept, pieces=pieces, torn=sum(torn for _, torn in found))

    def each(self, ask: Callable[[Source], Any]) -> list:
        """What is asked of each piece, in order."""
        return self.cluster.map(self.asked(ask), self.pieces)

    def asked(self, ask: Callable[[Source], Any]) -> Callable[[Piece], Any]:
        """What a task does to ask something of its piece."""
        own = (self.sql, self.columns, self.header, self.detected, self.form)
        return partial(_of_piece, ask, self.name, own, self.cluster.work, self.cluster.memory)


def _pieces(source: Source, readers: list[Reader]) -> list[Piece]:
    """A piece for each file, and for each million rows of Parquet or so, by whole row groups."""
    found: list[tuple[str, list[Path]]] = []
    # What a file lacks is NULL there, as in the table of them all.
    nulls = ", ".join(f"NULL::{form} AS {quoted(name)}" for name, form in source.columns.items())
    names = ", ".join(map(quoted, source.columns))
    for reader in readers:
        numbered = reader.form == "parquet" and ROW_OF not in source.columns
        for file in reader.files:
            for where in _ranges(source, file) if numbered else [""]:
                rows = f"{reader.one(file, numbered)}{where}"
                sql = f"SELECT {names} FROM (SELECT {nulls} WHERE false UNION ALL BY NAME {rows})"
                # What CSV means is found out of several files.
                found.append((sql, reader.files if reader.form == "csv" else [file]))
    return [Piece(number, sql, files) for number, (sql, files) in enumerate(found)]


def _ranges(source: Source, file: Path) -> list[str]:
    """Conditions on the rows of a Parquet file, each of whole row groups."""
    groups = source.rows(
        "SELECT any_value(row_group_num_rows) FROM "
        f"parquet_metadata({literal(str(file))}) GROUP BY row_group_id ORDER BY row_group_id"
    )
    borders, start = [], 0
    for upto in accumulate(rows for (rows,) in groups):
        if upto - start >= ROWS:
            borders.append((start, upto))
            start = upto
    borders.append((start, 1 << 62))
    return [f" WHERE {ROW_OF} >= {first} AND {ROW_OF} < {end}" for first, end in borders]


class SparkSorter(Sorter):
    """Sorts on a cluster, a part for each range of users."""

    def __init__(self, cluster: Cluster) -> None:
        self.cluster, self.each = cluster, cluster.map

    def source(self, source: Source) -> SparkSource:
        """The same table, read by the cluster, whose tasks get the driver's table `items`."""
        file = literal(str(self.cluster.work / ITEMS))
        source.connection.execute(f"COPY items TO {file} (FORMAT parquet)")
        own = {name: getattr(source, name) for name in Source.__dataclass_fields__}
        pieces = _pieces(source, source.readers)
        return SparkSource(**own | {"sql": LOG}, cluster=self.cluster, pieces=pieces)

    def kinds(self, source: SparkSource, query: Query) -> dict[str, int]:
        """How many rows are of which kind; those of the kind 'known' are written."""
        self._rows().mkdir()
        counts: dict[str, int] = {}
        for kind, rows in chain.from_iterable(source.each(partial(_kinds, query, self._rows()))):
            counts[kind] = counts.get(kind, 0) + rows
        return counts

    def sort(self, source: SparkSource, query: Query, rows: int, folder: Path) -> list[Part]:
        sort = partial(_sorted, query, source.name, self.cluster.work, self.cluster.memory)
        told = self.cluster.by_user(self._rows(), ceil(rows / ROWS), sort)
        shutil.rmtree(self._rows())
        parts = [Part(Path(path), counts) for path, counts in told]
        form = pq.read_schema(parts[0].path.with_name(USERS))
        with pq.ParquetWriter(folder / USERS, form) as file:
            for part, before in zip(parts, _before(parts, "users"), strict=True):
                for batch in pq.ParquetFile(part.path.with_name(USERS)).iter_batches():
                    number = pa.array(batch["user_id"].to_numpy() + before)
                    file.write_batch(pa.record_batch([number, batch["original_id"]], schema=form))
        users = f"read_parquet({literal(str(folder / USERS))})"
        source.connection.execute(
            f"CREATE VIEW users AS SELECT user_id AS user, original_id AS user_id FROM {users}"
        )
        return parts

    def log(self, parts: list[Part], log: Log) -> Log:
        users, shown = _before(parts, "users"), _before(parts, "impressions")
        own = {name: getattr(log, name) for name in Log.__dataclass_fields__}
        logs = [
            replace(log, path=p.path, events=p.counts["events"], first_user=u, first_impression=i)
            for p, u, i in zip(parts, users, shown, strict=True)
        ]
        return SparkLog(**own, cluster=self.cluster, parts=logs)

    def _rows(self) -> Path:
        return self.cluster.work / "rows"


@dataclass(frozen=True, kw_only=True)
class SparkLog(Log):
    """The events of a log in parts, each of a range of users, that tasks read."""

    cluster: Cluster
    parts: list[Log]

    def reduce(self, measure: Callable, merge: Callable, description: str) -> Any:
        return self.cluster.reduce(partial(_reduced, measure, merge), merge, self.parts)

    def time_at(self, place: int, source: Source) -> int:
        """The time of the event that so many others precede: counted in ever smaller buckets."""
        first, last = np.array(self.cluster.map(_span, self.parts)).T.tolist()
        start, end = min(first), max(last)
        while start < end:
            width = (end - start) // BUCKETS + 1
            count = partial(_histogram, start, width)
            upto = self.cluster.reduce(count, np.add, self.parts).cumsum()
            bucket = int(np.searchsorted(upto, place, "right"))
            place -= int(upto[bucket - 1]) if bucket else 0
            start += bucket * width
            end = min(end, start + width - 1)
        return start

    def write(self, write: Callable[[Path, Log], object], folder: Path) -> None:
        works = partial(_written, write, self.cluster.work)
        parts = self.cluster.map(works, list(enumerate(self.parts)))
        gather_splits(folder, parts)


def _before(parts: list[Part], name: str) -> list[int]:
    """How many users, or impressions, all parts before each have."""
    return list(accumulate((part.counts[name] for part in parts[:-1]), initial=0))


# What follows runs in a task.


@contextmanager
def _own_folder(work: Path) -> Iterator[Path]:
    """A folder for one attempt of a task; what is moved out of it is there whole, and once."""
    with tempfile.TemporaryDirectory(dir=work, prefix="task-") as folder:
        yield Path(folder)


def _moved(made: Path, target: Path) -> Path:
    """Move a file or a folder into place; another attempt of the task may have been faster."""
    target.parent.mkdir(exist_ok=True)
    try:
        made.rename(target)
    except OSError:
        if not target.exists():
            raise
    return target


def _of_piece(ask: Callable, name: str, own: tuple, work: Path, memory: float, piece: Piece) -> Any:
    files = [*piece.files, work / ITEMS]
    with _own_folder(work) as folder, engine(files, folder, memory, threads=1) as connection:
        items = f"read_parquet({literal(str(work / ITEMS))})"
        connection.execute(f"CREATE VIEW items AS SELECT * FROM {items}")
        source = SourceOfTask(
            connection, name, piece.files, *own, folder=folder, number=piece.number
        )
        source.create(LOG, piece.sql, "", kind="VIEW")
        return ask(source)


@dataclass(frozen=True, kw_only=True)
class SourceOfTask(Source):
    """A piece of a log in its task: the table of a DuckDB of its own."""

    folder: Path
    number: int


def _kept(columns: list[str], folder: Path, source: SourceOfTask) -> tuple[Path, int]:
    made = source.folder / "log.parquet"
    source.kept(columns, made)
    return _moved(made, folder / f"{source.number:06d}.parquet"), source.torn_lines()


def _kinds(query: Query, folder: Path, source: SourceOfTask) -> list[tuple[str, int]]:
    source.create("joined", query.joined, "read")
    made = source.folder / "rows.parquet"
    to = f"TO {literal(str(made))} (FORMAT parquet)"
    source.connection.execute(f"COPY ({query.of_known('joined')}) {to}")
    _moved(made, folder / f"{source.number:06d}.parquet")
    return source.rows("SELECT kind, count(*) FROM joined GROUP BY kind")


def _sorted(
    query: Query, name: str, work: Path, memory: float, number: int, rows: Iterator[pa.RecordBatch]
) -> tuple[str, dict[str, int]]:
    first = next(rows)
    reader = pa.RecordBatchReader.from_batches(first.schema, chain([first], rows))
    with _own_folder(work) as folder, engine([], folder, memory, threads=1) as connection:
        connection.register("arriving", reader)
        source = Source(connection, name, [], "arriving", {}, [], "", "parquet")
        source.create("known", "SELECT * FROM {source}", "read")
        source.create("kinds", "SELECT DISTINCT 'known' AS kind, user_id FROM known", "users")
        made = folder / "part"
        made.mkdir()
        part = sort_part(source, query, "known", made)
        return str(_moved(made, work / "sorted" / f"{number:06d}") / EVENTS), part.counts


def _reduced(measure: Callable, merge: Callable, log: Log) -> Any:
    return reduce(merge, map(measure, log.chunks("")))


def _times(log: Log) -> np.ndarray:
    return pq.read_table(log.path, columns=["time"])["time"].to_numpy()


def _span(log: Log) -> tuple[int, int]:
    times = _times(log)
    return int(times.min()), int(times.max())


def _histogram(start: int, width: int, log: Log) -> np.ndarray:
    bucket = (_times(log) - start) // width
    return np.bincount(bucket[(bucket >= 0) & (bucket < BUCKETS)], minlength=BUCKETS)


def _written(write: Callable[[Path, Log], object], work: Path, part: tuple[int, Log]) -> Path:
    number, log = part
    with _own_folder(work) as folder:
        made = folder / "part"
        made.mkdir()
        write(made, log)
        return _moved(made, work / "written" / f"{number:06d}")
