"""The tables that people have, read by DuckDB: files of any writer, and larger than memory.

Nothing is read that the user did not name, and no extension is fetched.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import pyarrow as pa

from mmctr.data.importing.engine import interruptible, literal, progress, readable
from mmctr.data.importing.parts import BLANK, files_of, is_utf8, kind_of, start_of
from mmctr.data.importing.recipe import Recipe
from mmctr.data.parquet import listed
from mmctr.errors import DataError

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection, DuckDBPyRelation

Result = TypeVar("Result")
# Lines with more or fewer columns than the header are counted, instead of ending the import.
REJECTS = "store_rejects=true, rejects_limit=0"
INTEGERS = ("TINYINT", "SMALLINT", "INTEGER", "BIGINT", "HUGEINT")
INTEGERS += tuple(f"U{name}" for name in INTEGERS)
FRACTIONS = ("FLOAT", "DOUBLE", "DECIMAL")
FILE_OF, ROW_OF = "file of the row", "file_row_number"  # the latter is DuckDB's own word


@dataclass(frozen=True)
class Reader:
    """How files of one form are read: csv, json or parquet, with these options in SQL."""

    files: list[Path]
    form: str
    options: str

    def all(self) -> str:
        """SQL of a table of the rows of all files."""
        return self._of(self.files, "")

    def one(self, file: Path, numbered: bool) -> str:
        """SQL from FROM on of the rows of one file, as they are among those of all files.

        numbered: those of Parquet, as ROW_OF.
        """
        if self.form == "csv":  # what its signs mean is found out of several files
            table = self._of(self.files, f", filename={literal(FILE_OF)}")
            return f"FROM {table} WHERE {quoted(FILE_OF)} = {literal(str(file))}"
        return f"FROM {self._of([file], ', file_row_number=true' * numbered)}"

    def _of(self, files: list[Path], more: str) -> str:
        paths = literal([str(path) for path in files])
        return f"read_{self.form}({paths}, {self.options}{more})"


@dataclass(frozen=True)
class Source:
    """A table of one or more files.

    sql: reads it. columns: type by name. header: names as they are written, maybe one twice.
    detected: in words. form: csv, json or parquet. said: sentences on how ids were understood.
    readers: which sql unites.
    """

    connection: "DuckDBPyConnection"
    name: str
    files: list[Path]
    sql: str
    columns: dict[str, str]
    header: list[str]
    detected: str
    form: str
    said: list[str] = field(default_factory=list)
    readers: list[Reader] = field(default_factory=list)

    def rows(self, sql: str) -> list[tuple]:
        """What SQL gives in which {source} is the table; DataError if it cannot be read."""
        return self._asked(lambda: self._relation(sql).fetchall())

    def table(self, sql: str) -> pa.Table:
        """Like `rows`, as a table."""
        return self._asked(lambda: self._relation(sql).to_arrow_table())

    def first(self, value: str, where: str = "true", of: str = "{source}") -> Any:
        """SQL's value for some row where a condition holds; None if there is no such row."""
        rows = self.rows(f"SELECT {value} FROM {of} WHERE {where} LIMIT 1")
        return rows[0][0] if rows else None

    def totals(self, *aggregates: str, of: str = "{source}") -> tuple:
        """What SQL's aggregates are over all rows: count, count_if, min, max, bool_and."""
        return self.rows(f"SELECT {', '.join(aggregates)} FROM {of}")[0]

    def distinct(self, value: str, most: int) -> list:
        """The first of SQL's values in their order, without NULL, and no more than most."""
        values = f"SELECT DISTINCT {value} AS value FROM {{source}}"
        rows = self.rows(
            f"SELECT value FROM ({values}) WHERE value IS NOT NULL ORDER BY 1 LIMIT {most}"
        )
        return [one for (one,) in rows]

    def require_once(self, identity: str, column: str, expected: str) -> None:
        """Raise DataError that names an id, said by SQL of a row, which stands in several rows."""
        own = f"SELECT {identity} AS own_id FROM {{source}}"
        sql = f"SELECT own_id FROM ({own}) GROUP BY 1 HAVING count(own_id) > 1 LIMIT 1"
        if twice := self.rows(sql):
            raise DataError(
                f"{self.name}, column {column}: found {twice[0][0]} again, expected {expected} "
                "once."
            )

    def batches(self, sql: str, size: int) -> Iterator[pa.RecordBatch]:
        """Like `rows`, in parts as they are made."""
        reader = self._asked(lambda: self._relation(sql).to_arrow_reader(size))
        while (batch := self._asked(lambda: next(reader, None))) is not None:
            yield batch

    def create(self, name: str, sql: str, description: str, kind: str = "TABLE") -> None:
        """Keep what SQL gives as a table of DuckDB, or a VIEW; description: of the bar."""
        statement = f"CREATE {kind} {name} AS " + sql.replace("{source}", self.sql)
        with progress(self.connection, description):
            self._asked(lambda: self.connection.execute(statement))

    def require(self, *columns: str) -> None:
        """Raise DataError unless the table has these columns, once each, and rows."""
        if repeated := [column for column in columns if self.header.count(column) > 1]:
            raise DataError(
                f"{self.name} has several columns {repeated[0]}, expected one: drop or rename the "
                "others."
            )
        missing = [column for column in columns if column not in self.columns]
        if missing:
            raise DataError(
                f"{self.name} has no column {missing[0]}, only {listed(list(self.columns))}: name "
                "the column that holds it with the options of mmctr data import."
            )
        if not self.first("1"):
            raise DataError(f"{self.name} has columns, but no rows: name a table that has some.")

    def torn_lines(self) -> int:
        """How many lines of CSV had other columns than the header, as far as it was read."""
        if self.form != "csv":
            return 0
        files = literal([str(path) for path in self.files])
        return self.rows(
            "SELECT count(DISTINCT (file_path, line)) FROM reject_errors JOIN reject_scans "
            f"USING (scan_id, file_id) WHERE list_contains({files}, file_path)"
        )[0][0]

    def kept(self, columns: list[str], path: Path) -> "Source":
        """These columns of a table that takes long to parse, as Parquet that does not."""
        names = [column for column in dict.fromkeys(columns) if column in self.columns]
        if self.sql.startswith("read_parquet"):
            return self
        chosen, file = ", ".join(map(quoted, names)), literal(str(path))
        statement = f"COPY (SELECT {chosen} FROM {self.sql}) TO {file} (FORMAT parquet)"
        with progress(self.connection, "parse"):
            self._asked(lambda: self.connection.execute(statement))
        columns = {name: self.columns[name] for name in names}
        return replace(self, sql=f"read_parquet({file})", columns=columns)

    def _relation(self, sql: str) -> "DuckDBPyRelation":
        return self.connection.sql(sql.replace("{source}", self.sql))

    def _asked(self, call: Callable[[], Result]) -> Result:
        with readable(self.name, self.form):
            return interruptible(self.connection, call)

    def kind(self, column: str) -> str:
        """The type of a column without its size: VARCHAR, DECIMAL, TIMESTAMP_NS."""
        return self.columns[column].split("(")[0]


def open_source(
    connection: "DuckDBPyConnection", names: list[Path], recipe: Recipe, each: Callable = map
) -> Source:
    """A table by the names of its files, all of one kind; DataError if it cannot be read.

    each: what looks through whole files, as `map` does.
    """
    name = ", ".join(map(str, names))
    every = [path for one in names for path in files_of(one)]
    starts = {path: start_of(path) for path in every}
    files = [path for path in every if starts[path]]  # Spark leaves empty parts
    if not files:
        raise DataError(f"{name} is empty: name a CSV, JSON Lines or Parquet table with rows.")
    kinds = {kind_of(path, starts[path]) for path in files}
    if len(kinds) > 1:
        raise DataError(
            f"{name} holds files of several kinds, {' and '.join(sorted(kinds))}: name those of "
            "one kind."
        )
    kind, header = kinds.pop(), []
    detected = f"{len(files)} files of " if len(files) > 1 else ""

    def described(sql: str) -> dict[str, str]:
        found = connection.execute(f"DESCRIBE SELECT * FROM {sql}").fetchall()
        return {column: str(form) for column, form, *_ in found}

    with readable(name, kind):
        if kind == "csv":
            readers, header, words = _csv(connection, files, starts, recipe, each)
            detected += f"CSV, {words}"
        elif kind == "json":
            array = starts[files[0]].lstrip(BLANK).startswith(b"[")
            options = f"format='{'array' if array else 'newline_delimited'}'"
            options += ", hive_types_autocast=false"
            forms = described(Reader(files, kind, f"{options}, union_by_name=true").all())
            # Whatever they look like, ids and times are read as they are written.
            asis = (f"{literal(c)}: {literal(_asis(form))}" for c, form in forms.items())
            readers = [Reader(files, kind, f"{options}, columns={{{', '.join(asis)}}}")]
            detected += "JSON array" if array else "JSON Lines"
        else:
            readers = [Reader(files, kind, "union_by_name=true, hive_types_autocast=false")]
            detected += "Parquet"
            schema = f"SELECT name FROM parquet_schema({literal(str(files[0]))})"
            header = [field for (field,) in connection.execute(schema).fetchall()[1:]]
        parts = [reader.all() for reader in readers]
        sql = f"(FROM {' UNION ALL BY NAME FROM '.join(parts)})" if len(parts) > 1 else parts[0]
        columns = described(sql)
        return Source(connection, name, files, sql, columns, header, detected, kind, [], readers)


def id_text(source: Source, column: str) -> str:
    """SQL of a column of ids as text: what the user sees.

    Text stays as it is, a whole number of any type is its digits, 16 bytes are a UUID; NULL for a
    missing one. Raises DataError for numbers with a fraction and for types that are no ids.
    """
    name, kind = quoted(column), source.kind(column)
    if kind == "JSON":
        plain = f"({name} ->> '$')"
        number = f"json_type({name}) IN ('DOUBLE', 'BIGINT', 'UBIGINT', 'HUGEINT')"
        whole = f"regexp_matches({plain}, '^-?[0-9]+(\\.0*)?$')"
        _require_none(source, column, f"{number} AND NOT {whole}", plain)
        text = f"CASE WHEN {number} THEN regexp_replace({plain}, '\\.0*$', '') ELSE {plain} END"
    elif kind == "VARCHAR":
        text = _without_zeros(source, column)
    elif kind in ("ENUM", "UUID") or kind in INTEGERS:
        text = f"{name}::VARCHAR"
    elif kind in FRACTIONS:
        there = f"{name} IS NOT NULL AND NOT isnan({name}::DOUBLE)"
        whole = f"({name} = trunc({name}) AND abs({name}) < 1e37)"
        _require_none(source, column, f"{there} AND NOT {whole}", name)
        text = f"CASE WHEN {there} THEN {name}::HUGEINT::VARCHAR END"
    elif kind == "BLOB":
        sixteen, no_text = source.totals(
            f"bool_and(octet_length({name}) = 16)",
            f"count(*) FILTER ({name} IS NOT NULL AND TRY(decode({name})) IS NULL)",
        )
        parts = "'(.{8})(.{4})(.{4})(.{4})(.{12})', '\\1-\\2-\\3-\\4-\\5'"
        text = (
            f"regexp_replace(lower(hex({name})), {parts})"
            if sixteen and no_text
            else f"decode({name})"
        )
    else:
        raise DataError(
            f"{source.name}, column {column}: found {source.columns[column].lower()}, expected ids "
            "as text or whole numbers."
        )
    return f"nullif({text}, '')"


def id_key(source: Source, column: str) -> tuple[str, str]:
    """SQL of what tells ids apart as their text does, and its type: whole numbers stay numbers,
    which are quicker to join, group and sort."""
    if source.kind(column) in INTEGERS:
        return quoted(column), source.columns[column]
    return id_text(source, column), "VARCHAR"


def quoted(column: str) -> str:
    """A column's name in SQL."""
    return '"' + column.replace('"', '""') + '"'


def _without_zeros(source: Source, column: str) -> str:
    """SQL of ids that are text: 123.0 is 123 if all are such, as of a careless export."""
    name = quoted(column)
    there, zeros = f"{name} <> ''", f"regexp_matches({name}, '^-?[0-9]+\\.0+$')"
    # One other id ends the search early.
    if source.first("1", f"{there} AND NOT {zeros}"):
        return name
    if own := source.first(name, there):
        source.said.append(
            f"{source.name}, column {column}: ids such as {own} are read as {own.partition('.')[0]}"
        )
    return f"regexp_replace({name}, '\\.0+$', '')"


def _require_none(source: Source, column: str, wrong: str, value: str) -> None:
    found = source.first(value, wrong)
    if found is not None:
        raise DataError(
            f"{source.name}, column {column}: found {found}, expected ids as text or whole numbers."
        )


def _csv(
    connection: "DuckDBPyConnection",
    files: list[Path],
    starts: dict[Path, bytes],
    recipe: Recipe,
    each: Callable,
) -> tuple[list[Reader], list[str], str]:
    """What reads CSV files, their header as it is written, and their delimiter in words.

    Files with another first line have columns or a delimiter of their own, and become one table by
    the columns' names.
    """
    decoded = dict(zip(files, each(is_utf8, files), strict=True))
    if recipe.encoding is None and not all(decoded.values()):
        # DuckDB would leave out the lines that it cannot decode.
        other = next(path for path in files if not decoded[path])
        raise DataError(
            f"{other} is no text in UTF-8: set its encoding, such as -p encoding=latin-1."
        )
    alike: dict[bytes, list[Path]] = {}
    for path in files:
        alike.setdefault(starts[path].split(b"\n")[0], []).append(path)
    readers, headers, delimiters = [], [], []
    for line, group in alike.items():
        options, first = (
            f"all_varchar=true{_forced(line, decoded, group, recipe)}",
            literal(str(group[0])),
        )
        # Torn lines must not mislead what is found out of the first lines either.
        sniffed = f"sniff_csv({first}, {options}, ignore_errors=true)"
        delimiters += connection.execute(f"SELECT Delimiter FROM {sniffed}").fetchone()
        plain = f"read_csv({first}, {options}, header=false, ignore_errors=true)"
        headers.append(list(connection.execute(f"SELECT * FROM {plain} LIMIT 1").fetchone() or ()))
        readers.append(Reader(group, "csv", f"{options}, header=true, {REJECTS}"))
    header = next((one for one in headers if len(set(one)) < len(one)), headers[0])
    return readers, header, "delimiter " + " and ".join(map(repr, dict.fromkeys(delimiters)))


def _forced(line: bytes, decoded: dict[Path, bool], files: list[Path], recipe: Recipe) -> str:
    """The options for CSV that the user gave, as far as they fit files of this first line."""
    given, line = {}, line.replace(b"\0", b"")  # of UTF-16
    if recipe.delimiter is not None:
        sign = recipe.delimiter.replace("\\t", "\t")
        if any(sign.encode(code, "replace") in line for code in ("utf-8", "latin-1")):
            given["delim"] = sign
    if recipe.encoding is not None and not all(decoded[path] for path in files):
        given["encoding"] = recipe.encoding
    return "".join(f", {option}={literal(value)}" for option, value in given.items())


def _asis(form: str) -> str:
    """The type to read a field of JSON as: plain ones as they are written."""
    return form if form.endswith("]") or form.startswith(("STRUCT", "MAP")) else "JSON"
