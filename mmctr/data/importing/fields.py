"""Fields of items, users and the context: read as they are, with vocabularies learned from train."""

from dataclasses import dataclass
from pathlib import Path

import pyarrow.parquet as pq

from mmctr.data import schema
from mmctr.data.fields import BINS, Field, Owner, column_of
from mmctr.data.importing.labels import number, text
from mmctr.data.importing.sources import FRACTIONS, INTEGERS, Source, id_text, literal, quoted
from mmctr.errors import ConfigError, DataError

KINDS = ("category", "number", "time")
WEEKDAYS = ["Sunday", "Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday"]


@dataclass(frozen=True)
class Column:
    """A field that is asked for: its name, SQL of its values, and whether they are numbers."""

    name: str
    sql: str
    is_number: bool


def asked(source: Source, names: str | None, times: dict[str, str]) -> list[Column]:
    """The columns that names by comma ask for, as name or name:kind.

    A kind is category, number or time, found out if not given; a time becomes an hour and a
    weekday. times: SQL of nanoseconds by the name of columns that are known to be times.
    """
    columns = []
    for word in filter(None, (word.strip() for word in (names or "").split(","))):
        name, _, kind = word.rpartition(":") if word not in source.columns else (word, "", "")
        if name and kind not in ("", *KINDS):
            raise ConfigError(
                f"Field {word!r} has the kind {kind!r}, expected one of {', '.join(KINDS)}."
            )
        name = name or word
        source.require(name)
        kind = "time" if name in times and not kind else kind or _kind(source, name)
        if kind == "time":
            columns += _time_parts(source, name, times)
        elif kind == "number":
            columns.append(Column(name, number(source, name), True))
        else:
            value = f"nullif(trim({text(source, name)}), '')"
            if source.kind(name) in FRACTIONS:  # 3.0 of a careless export is 3
                value = f"CASE WHEN NOT isnan({quoted(name)}) THEN {_whole(value)} END"
            columns.append(Column(name, value, False))
    twice = [column.name for column in columns if columns.count(column) > 1]
    if twice:
        raise ConfigError(f"Field {twice[0]!r} is asked for twice: name it once.")
    return columns


def learned(column: Column, owner: Owner, train: str, connection) -> Field:
    """The field of a column with what train, SQL of a table, knows of it."""
    name = quoted(column_of(column.name) if owner == "context" else column.name)
    if column.is_number:
        shares = [step / BINS for step in range(1, BINS)]
        sql = f"SELECT quantile_disc({name}, {shares}) FROM ({train}) WHERE isfinite({name})"
        found = connection.execute(sql).fetchone()[0]
        # A bin begins at its border, so that a few different numbers get a bin each.
        lowest = connection.execute(f"SELECT min({name}) FROM ({train})").fetchone()[0]
        borders = tuple(sorted({float(border) for border in found or () if border > lowest}))
        return Field(column.name, owner, borders=borders)
    rows = connection.execute(
        f"SELECT {name} FROM ({train}) WHERE {name} IS NOT NULL GROUP BY 1 ORDER BY count(*) DESC, 1"
    ).fetchall()
    return Field(column.name, owner, values=tuple(value for (value,) in rows))


def in_words(field: Field) -> str:
    """What was understood of a field."""
    kind = "category" if field.values is not None else "number"
    parts = f"{field.size - 1:,} {'values' if field.values is not None else 'bins'}"
    return f"field {field.name} of {OWNERS[field.owner]}: {kind}, {parts} in train"


OWNERS = {"item": "items", "user": "users", "context": "the context"}


def write_owner(
    source: Source, key: str, columns: list[Column], numbers: str, name: str, path: Path
) -> dict[str, int]:
    """Write a table of fields by number; how many were found and how many were not.

    numbers: a table of id and number. name: of the column that holds numbers.
    """
    identity = id_text(source, key)
    values = ", ".join(f"{column.sql} AS {quoted(column.name)}" for column in columns)
    own = f"SELECT {identity} AS own_id, {values} FROM {{source}}"
    twice = source.rows(f"SELECT own_id FROM ({own}) GROUP BY 1 HAVING count(own_id) > 1 LIMIT 1")
    if twice:
        raise DataError(f"{source.name}, column {key}: found {twice[0][0]} again, expected it once.")
    known = ", ".join(quoted(column.name) for column in columns)
    table = source.table(
        f"SELECT number::BIGINT AS {name}, {known} FROM ({own}) JOIN {numbers} AS n "
        "ON own_id = n.id ORDER BY number"
    )
    pq.write_table(table, path)
    ((total, asked_for),) = source.rows(
        f"SELECT (SELECT count(*) FROM ({own})), (SELECT count(*) FROM {numbers})"
    )
    return {"known": len(table), "unknown": asked_for - len(table), "others": total - len(table)}


def train_rows(folder: Path) -> str:
    """SQL of the train split below a folder."""
    return f"SELECT * FROM read_parquet({literal(str(folder / schema.NESTED_FOLDER / 'train.parquet'))})"


def _kind(source: Source, name: str) -> str:
    kind = source.kind(name)
    if kind in (*INTEGERS, *FRACTIONS):
        return "number"
    if kind.startswith(("TIMESTAMP", "DATE")):
        return "time"
    if kind not in ("VARCHAR", "JSON"):
        return "category"
    value = f"nullif(trim({text(source, name)}), '')"
    ((numbers, dates),) = source.rows(
        f"SELECT bool_and(try_cast({value} AS DOUBLE) IS NOT NULL), "
        f"bool_and(try_cast({value} AS TIMESTAMP) IS NOT NULL) FROM {{source}} "
        f"WHERE {value} IS NOT NULL"
    )
    return "number" if numbers else "time" if dates else "category"


def _time_parts(source: Source, name: str, times: dict[str, str]) -> list[Column]:
    moment = f"make_timestamp(({times[name]}) // 1000)" if name in times else None
    if moment is None and source.kind(name).startswith(("TIMESTAMP", "DATE")):
        moment = f"{quoted(name)}::TIMESTAMP"
    moment = moment or f"try_cast({text(source, name)} AS TIMESTAMP)"
    return [
        Column(f"{name} hour", f"strftime({moment}, '%H')", False),
        Column(f"{name} weekday", f"{literal(WEEKDAYS)}[1 + dayofweek({moment})]", False),
    ]


def _whole(value: str) -> str:
    return f"regexp_replace({value}, '\\.0+$', '')"
