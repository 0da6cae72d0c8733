"""Fields of items, users and the context, read as they are; train gives them vocabularies."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pyarrow.parquet as pq

from mmctr.data import schema
from mmctr.data.fields import BINS, Field, Owner, column_of
from mmctr.data.importing.engine import literal
from mmctr.data.importing.labels import number, text
from mmctr.data.importing.recipe import Recipe
from mmctr.data.importing.sources import FRACTIONS, INTEGERS, Source, id_text, quoted
from mmctr.errors import ConfigError, DataError

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

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
        name, kind = _parted(word, source)
        source.require(name)
        if kind not in ("", *KINDS):
            raise ConfigError(
                f"Field {word!r} has the kind {kind!r}, expected one of {', '.join(KINDS)}."
            )
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
    found = [column.name for column in columns]
    if twice := [name for name in found if found.count(name) > 1]:
        raise ConfigError(f"Field {twice[0]!r} is asked for twice: name it once.")
    return columns


def field_names(names: str | None, source: Source) -> list[str]:
    """The columns of a table that names by comma ask for, whatever kinds they are."""
    words = (word.strip() for word in (names or "").split(","))
    return [_parted(word, source)[0] for word in words if word]


def in_words(field: Field) -> str:
    """What was understood of a field."""
    kind = "category" if field.values is not None else "number"
    parts = f"{field.size - 1:,} {'values' if field.values is not None else 'bins'}"
    return f"field {field.name} of {OWNERS[field.owner]}: {kind}, {parts} in train"


OWNERS = {"item": "items", "user": "users", "context": "the context"}


def owner_tables(
    sources: dict[str, Source], recipe: Recipe, folder: Path
) -> dict[Owner, list[Column]]:
    """Write the fields of items and users, by number, and say which there are.

    The tables `items` and `users` tell the number of an id. Raises DataError for a table that has
    an id twice.
    """
    found: dict[Owner, list[Column]] = {}
    items_key = recipe.items_id_column or recipe.item_column
    wanted = (
        ("item", "items", items_key, recipe.item_fields, schema.ITEM_FIELDS),
        (
            "user",
            "users",
            recipe.users_id_column or recipe.user_column,
            recipe.user_fields,
            schema.USER_FIELDS,
        ),
    )
    for owner, kind, key, names, file in wanted:
        if names:
            sources[kind].require(key)
            found[owner] = asked(sources[kind], names, {})
            _write_owner(sources[kind], key, found[owner], owner, folder / file)
    return found


def _write_owner(source: Source, key: str, columns: list[Column], owner: Owner, path: Path) -> None:
    number = "number" if owner == "item" else "user"
    own_id = "id" if owner == "item" else "user_id"
    fields = [quoted(column_of(column.name)) for column in columns]
    values = ", ".join(f"{c.sql} AS {field}" for c, field in zip(columns, fields, strict=True))
    own = f"SELECT {id_text(source, key)} AS own_id, {values} FROM {{source}}"
    source.require_once(id_text(source, key), key, "it")
    table = source.table(
        f"SELECT known.{number}::BIGINT AS {owner}_id, {', '.join(fields)} FROM ({own}) JOIN "
        f"{owner}s AS known ON own_id = known.{own_id} ORDER BY 1"
    )
    pq.write_table(table, path)


def learn_fields(
    connection: "DuckDBPyConnection", folder: Path, columns: dict[Owner, list[Column]]
) -> list[Field]:
    """The fields with what train knows of them: its rows, the items and the users in it."""
    train = _file(folder / schema.NESTED_FOLDER / "train.parquet")
    fields = []
    for owner, wanted in columns.items():
        known = train
        if owner != "context":
            table = _file(folder / (schema.ITEM_FIELDS if owner == "item" else schema.USER_FIELDS))
            known = f"(SELECT * FROM {table} WHERE {owner}_id IN (SELECT {owner}_id FROM {train}))"
        fields += [_learned(connection, known, column, owner) for column in wanted]
    return fields


def _file(path: Path) -> str:
    return f"read_parquet({literal(str(path))})"


def _learned(connection: "DuckDBPyConnection", train: str, column: Column, owner: Owner) -> Field:
    name = quoted(column_of(column.name))
    if not column.is_number:
        rows = connection.execute(
            f"SELECT {name} FROM {train} WHERE {name} IS NOT NULL GROUP BY 1 "
            "ORDER BY count(*) DESC, 1"
        ).fetchall()
        return Field(column.name, owner, values=tuple(value for (value,) in rows))
    shares = [step / BINS for step in range(1, BINS)]
    found, lowest = connection.execute(
        f"SELECT quantile_disc({name}, {shares}), min({name}) FROM {train} WHERE isfinite({name})"
    ).fetchone()
    # A bin begins at its border, so that a few different numbers get a bin each.
    borders = sorted({float(border) for border in found or () if border > lowest})
    return Field(column.name, owner, borders=tuple(borders))


def _parted(word: str, source: Source) -> tuple[str, str]:
    """The column and the kind that a word asks for; "" to find the kind out."""
    name, colon, kind = word.rpartition(":")
    return (name, kind) if colon and word not in source.columns else (word, "")


def _kind(source: Source, name: str) -> str:
    kind = source.kind(name)
    if kind in (*INTEGERS, *FRACTIONS):
        return "number"
    if kind.startswith(("TIMESTAMP", "DATE")):
        return "time"
    if kind not in ("VARCHAR", "JSON"):
        return "category"
    value = f"nullif(trim({text(source, name)}), '')"
    forms = ("DOUBLE", "TIMESTAMPTZ")
    numbers, dates = source.totals(
        *(f"bool_and(try_cast({value} AS {form}) IS NOT NULL)" for form in forms),
        of=f"{{source}} WHERE {value} IS NOT NULL",
    )
    return "number" if numbers else "time" if dates else "category"


def _time_parts(source: Source, name: str, times: dict[str, str]) -> list[Column]:
    kind = source.kind(name)
    if name in times:
        moment = f"make_timestamp(({times[name]}) // 1000)"
    elif kind.startswith(("TIMESTAMP", "DATE")):
        moment = f"{quoted(name)}::TIMESTAMP"
    elif kind in ("VARCHAR", "JSON"):  # in UTC if nothing else is said, as the engine is
        moment = f"make_timestamp(epoch_us(try_cast({text(source, name)} AS TIMESTAMPTZ)))"
    else:
        found = source.columns[name].lower()
        raise DataError(f"{source.name}, column {name}: found {found}, expected dates.")
    return [
        Column(f"{name} hour", f"strftime({moment}, '%H')", False),
        Column(f"{name} weekday", f"{literal(WEEKDAYS)}[1 + dayofweek({moment})]", False),
    ]


def _whole(value: str) -> str:
    return f"regexp_replace({value}, '\\.0+$', '')"
