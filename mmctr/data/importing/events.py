"""A log as clicks, sorted by user and time: read, joined to the items, and sorted by DuckDB."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from tqdm.auto import tqdm

from mmctr.data.importing.recipe import Recipe
from mmctr.data.importing.sources import (
    FRACTIONS,
    INTEGERS,
    Source,
    id_text,
    progress,
    quoted,
)
from mmctr.errors import DataError

CHUNK = 1 << 18  # clicks that are worked on at once, or one user's: they fit a processor's cache
BATCH = 1 << 17  # rows that are taken over from DuckDB at once
NANOSECONDS = {"days": 86_400 * 10**9, "seconds": 10**9, "milliseconds": 10**6}
NANOSECONDS |= {"microseconds": 10**3, "nanoseconds": 1}
# Numbers below are taken for times of the unit: 1e5 days are 273 years.
UNITS = ((1e5, "days"), (1e11, "seconds"), (1e14, "milliseconds"), (1e17, "microseconds"))


@dataclass(frozen=True)
class Clicks:
    """Clicks of whole users, sorted by user and time: int64 arrays, one entry a click.

    user: numbered from 1. item: new ids. time: nanoseconds since 1970. start: where the user's
    clicks begin. before: the first click at the same time, so that start..before are the clicks
    that happened earlier.
    """

    user: np.ndarray
    item: np.ndarray
    time: np.ndarray
    start: np.ndarray
    before: np.ndarray

    def __len__(self) -> int:
        return len(self.user)


@dataclass(frozen=True)
class Log:
    """The clicks of a log in a file, in order. counts: of rows; said: what was understood."""

    path: Path
    clicks: int
    counts: dict[str, int]
    said: list[str]
    unit: int | None  # nanoseconds of the log's own numbers; None for dates
    simultaneous: bool  # whether clicks of equal time are

    def chunks(self, description: str) -> Iterator[Clicks]:
        """The clicks in order, whole users at a time."""
        file = pq.ParquetFile(self.path)
        with tqdm(total=self.clicks, desc=description, unit=" clicks", unit_scale=True) as bar:
            for number in range(file.num_row_groups):
                table = file.read_row_group(number)
                columns = (column.to_numpy().astype(np.int64) for column in table.columns)
                yield _clicks(*columns, self.simultaneous)
                bar.update(len(table))


def read_log(source: Source, recipe: Recipe, workplace: Path) -> Log:
    """Sort a log's clicks on the items of the table `items` into a file.

    A user clicks an item once: only the first time tells of a choice among unseen items. Writes
    clicks.parquet and user_ids.parquet. Raises DataError for columns that cannot be used, or if
    no click is left.
    """
    needed = [recipe.user_column, recipe.item_column, recipe.time_column]
    needed += [recipe.order_by] if recipe.order_by else []
    source.require(*needed)
    if recipe.rating_column in source.columns:
        source.require(recipe.rating_column)
    elif recipe.min_rating is not None:
        raise DataError(
            f"{source.name} has no column {recipe.rating_column}, which min_rating needs: name the "
            "rating column or leave min_rating out."
        )
    source = source.kept([*needed, recipe.rating_column], workplace / "log.parquet")
    time, unit, said = _time(source, recipe.time_column)
    user, item = (id_text(source, c) for c in (recipe.user_column, recipe.item_column))
    filtered = "false"
    if recipe.min_rating is not None:
        rating = _number(source, recipe.rating_column)
        # NaN, which careless exports have for nothing, counts as the largest number in SQL.
        low = f"{rating} < {recipe.min_rating!r} OR isnan({rating})"
        filtered = f"coalesce({low}, true)"
    order = f"{quoted(recipe.order_by)}" if recipe.order_by else "NULL"
    rows = (
        f"SELECT {user} AS user_id, {item} AS item_id, {time} AS time, {order} AS place, "
        f"{filtered} AS filtered FROM {{source}}"
    )
    kind = (
        "CASE WHEN filtered THEN 'below_min_rating' WHEN user_id IS NULL OR item_id IS NULL OR "
        "time IS NULL THEN 'unreadable' WHEN number IS NULL THEN 'of_unknown_items' "
        "ELSE 'known' END"
    )
    joined = f"SELECT *, {kind} AS kind FROM ({rows}) LEFT JOIN items ON item_id = items.id"
    # Users are numbered before the sort, which then moves numbers instead of text.
    known_user = "CASE WHEN kind = 'known' THEN user_id END"
    grouped = f"SELECT kind, {known_user} AS user_id, count(*) AS rows FROM ({joined}) GROUP BY ALL"
    source.create("kinds", grouped, "read")
    counts, examples = _counts(source, joined, recipe)
    if not counts["known"]:
        raise DataError(
            f"{source.name} has no click on an item of the items table: check the id columns."
        )
    said += examples
    numbered = "SELECT user_id, row_number() OVER (ORDER BY length(user_id), user_id) AS user"
    source.create("users", f"{numbered} FROM kinds WHERE kind = 'known'", "number users")
    source.connection.execute("DROP TABLE kinds")
    users = _write_users(source, workplace / "user_ids.parquet")
    places = "try_cast(place::VARCHAR AS DOUBLE) NULLS LAST, place::VARCHAR, "
    ordered = (
        f"SELECT user::INTEGER AS user, number::INTEGER AS item, time FROM ({joined}) JOIN users "
        f"USING (user_id) WHERE kind = 'known' ORDER BY user, time, "
        f"{places if recipe.order_by else ''}item"
    )
    with progress(source.connection, "sort"):
        batches = source.batches(ordered, BATCH)
        clicks, ties = _write_clicks(batches, workplace / "clicks.parquet")
    counts |= {"repeated": counts.pop("known") - clicks, "clicks": clicks, "users": users}
    simultaneous = recipe.order_by is None
    counts["simultaneous"] = ties if simultaneous else 0
    return Log(workplace / "clicks.parquet", clicks, counts, said, unit, simultaneous)


def _counts(source: Source, joined: str, recipe: Recipe) -> tuple[dict[str, int], list[str]]:
    """How many rows are of which kind, and sentences on what was lost."""
    by_kind = dict(source.rows("SELECT kind, sum(rows)::BIGINT FROM kinds GROUP BY kind"))
    torn = source.torn_lines()
    total = sum(by_kind.values()) + torn
    counts = {"interactions": total}
    if recipe.min_rating is not None:
        counts["below_min_rating"] = by_kind.get("below_min_rating", 0)
    counts["unreadable"] = by_kind.get("unreadable", 0) + torn
    counts["of_unknown_items"] = by_kind.get("of_unknown_items", 0)
    counts["known"] = by_kind.get("known", 0)
    said = []
    for kind in ("unreadable", "of_unknown_items"):
        if counts[kind] > 0.05 * total:
            example = source.rows(
                f"SELECT user_id, item_id FROM ({joined}) WHERE kind = '{kind}' LIMIT 1"
            )
            words = "could not be read" if kind == "unreadable" else "are of items not in the table"
            said.append(
                f"{counts[kind]:,} of {total:,} rows {words}"
                + (f", such as user {example[0][0]}, item {example[0][1]}." if example else ".")
            )
    return counts, said


def _write_users(source: Source, path: Path) -> int:
    """Write the users' numbers and their own ids; how many there are."""
    form = pa.schema([("user_id", pa.int64()), ("original_id", pa.string())])
    users = 0
    with pq.ParquetWriter(path, form) as file:
        for batch in source.batches("SELECT user, user_id FROM users ORDER BY user", BATCH):
            file.write_batch(pa.record_batch(batch.columns, names=form.names).cast(form), BATCH)
            users += len(batch)
    return users


def _write_clicks(batches: Iterator[pa.RecordBatch], path: Path) -> tuple[int, int]:
    """Write sorted clicks without repeated ones; how many there are, and how many are ties."""
    clicks = ties = 0
    form = pa.schema([("user", pa.int32()), ("item", pa.int32()), ("time", pa.int64())])
    with pq.ParquetWriter(path, form, use_dictionary=False) as file:
        for table in _whole_users(batches):
            user, item, time = (column.to_numpy() for column in table.columns)
            first = ~pd.Series((user.astype(np.int64) << 32) | item).duplicated().to_numpy()
            user, item, time = user[first], item[first], time[first]
            file.write_table(pa.table([user, item, time], schema=form), row_group_size=1 << 62)
            as_before = (np.diff(user) == 0) & (np.diff(time) == 0)
            ties += int((np.r_[False, as_before] | np.r_[as_before, False]).sum())
            clicks += len(user)
    return clicks, ties


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


def _clicks(user: np.ndarray, item: np.ndarray, time: np.ndarray, simultaneous: bool) -> Clicks:
    at, new_user = np.arange(len(user)), np.r_[True, user[1:] != user[:-1]]
    new_time = new_user | np.r_[True, time[1:] != time[:-1]]
    start = np.maximum.accumulate(np.where(new_user, at, 0))
    before = np.maximum.accumulate(np.where(new_time, at, 0)) if simultaneous else at
    return Clicks(user, item, time, start, before)


def _time(source: Source, column: str) -> tuple[str, int | None, list[str]]:
    """SQL of a column of times in nanoseconds, the unit of its numbers, and what is said of it."""
    name, kind = quoted(column), source.kind(column)
    if kind == "JSON":
        name, kind = f"({name} ->> '$')", "VARCHAR"
    unit, words = None, "dates"
    if kind == "VARCHAR" and _all(source, name, f"try_cast({name} AS DOUBLE) IS NOT NULL"):
        # DuckDB would round what has a fraction.
        whole = _all(source, name, f"regexp_matches({name}, '^\\s*[+-]?[0-9]+\\s*$')")
        name = f"try_cast({name} AS {'BIGINT' if whole else 'DOUBLE'})"
        kind = "BIGINT" if whole else "DOUBLE"
    if kind in (*INTEGERS, *FRACTIONS):
        # By the middle one: a single damaged time must not change the unit of all.
        size = f"approx_quantile(abs({name}::DOUBLE), 0.5) FILTER (isfinite({name}::DOUBLE))"
        middle = source.rows(f"SELECT {size} FROM {{source}}")[0][0] or 0
        words = next((unit for limit, unit in UNITS if middle < limit), "nanoseconds")
        unit = NANOSECONDS[words]
        if kind in INTEGERS:
            time = f"TRY(({name}::HUGEINT * {unit})::BIGINT)"
        else:  # a double of today's seconds is exact to the microsecond
            time = f"TRY((round({name}::DOUBLE * {unit} / 1000)::HUGEINT * 1000)::BIGINT)"
    elif kind == "VARCHAR":
        zoned = f"regexp_matches({name}, '(Z|[+-][0-9:]+| [A-Za-z/_]+)$') AND {name} LIKE '%:%'"
        time = (
            f"CASE WHEN {zoned} THEN TRY(epoch_us(try_cast({name} AS TIMESTAMPTZ)) * 1000) "
            f"ELSE TRY(epoch_ns(try_cast({name} AS TIMESTAMP_NS))) END"
        )
    elif kind.startswith(("TIMESTAMP", "DATE")):
        exact = f"{name}" if kind == "TIMESTAMP_NS" else f"{name}::TIMESTAMP"
        time = f"TRY(epoch_ns({exact}))"
    else:
        raise DataError(
            f"{source.name}, column {column}: found {source.columns[column].lower()}, expected "
            "numbers or dates such as 2024-05-31 12:00:00."
        )
    ((first, last),) = source.rows(
        f"SELECT min(time), max(time) FROM (SELECT {time} AS time FROM {{source}})"
    )
    if first is None:
        example = source.rows(f"SELECT {name} FROM {{source}} WHERE {name} IS NOT NULL LIMIT 1")
        found = example[0][0] if example else "nothing"
        raise DataError(
            f"{source.name}, column {column}: found {found}, expected numbers or dates such as "
            "2024-05-31 12:00:00."
        )
    days = [str(np.datetime64(value, "ns").astype("datetime64[s]")) for value in (first, last)]
    said = [f"{column}: {words}, from {days[0]} to {days[1]} (UTC)"]
    if days[0] < "1990" or np.datetime64(last, "ns") > np.datetime64("now"):
        said.append(
            f"Warning: {column} lies before 1990 or in the future: is it the time of the click?"
        )
    return time, unit, said


def _number(source: Source, column: str) -> str:
    """SQL of a column of numbers; DataError if a value is none."""
    name, kind = quoted(column), source.kind(column)
    if kind in ("VARCHAR", "JSON"):
        text = f"({name} ->> '$')" if kind == "JSON" else name
        wrong = f"{text} IS NOT NULL AND try_cast({text} AS DOUBLE) IS NULL"
        if found := source.rows(f"SELECT {text} FROM {{source}} WHERE {wrong} LIMIT 1"):
            raise DataError(
                f"{source.name}, column {column}: found {found[0][0]!r}, expected numbers."
            )
        return f"try_cast({text} AS DOUBLE)"
    if kind not in (*INTEGERS, *FRACTIONS):
        found = source.columns[column].lower()
        raise DataError(f"{source.name}, column {column}: found {found}, expected numbers.")
    return f"{name}::DOUBLE"


def _all(source: Source, value: str, condition: str) -> bool:
    sql = f"SELECT bool_and({condition}) FROM {{source}} WHERE {value} IS NOT NULL"
    return bool(source.rows(sql)[0][0])
