"""Parquet files read column by column, every value checked.

Every check raises DataError with file, column and row (counted from 0).
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import nullcontext
from operator import attrgetter
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from mmctr.bars import bar_if_long
from mmctr.data import schema
from mmctr.data.address import Address
from mmctr.errors import DataError, first_line

BATCH = 1 << 16  # rows of a file that are decoded at once


def unreadable(path: Path, reason: str) -> DataError:
    """The error of a file that cannot be read as Parquet."""
    return DataError(
        f"{path} is not a readable parquet file ({reason}): write or download it again."
    )


def unfit(
    path: Path, column: str, row: int | str | None, found: object, expected: str
) -> DataError:
    """The error of a value by its row or in words, or (None) of a whole column."""
    where = "" if row is None else f", {row}" if isinstance(row, str) else f", row {row}"
    return DataError(f"{path}, column {column}{where}: found {found}, expected {expected}.")


def refuse(
    bad: np.ndarray, path: Path, column: str, values: Sequence, expected: str, first_row: int = 0
) -> None:
    """Raise DataError for the first of the bad rows, bool [n], if there is one."""
    if bad.any():
        row = int(bad.argmax())
        raise unfit(path, column, first_row + row, values[row], expected)


def open_parquet(path: Path | Address) -> pq.ParquetFile:
    """Open a parquet file; DataError if it is not one."""
    elsewhere = isinstance(path, Address)
    source = path.open() if elsewhere else path
    with path.reaching() if elsewhere else nullcontext():
        try:
            file = pq.ParquetFile(source, memory_map=True)
            _ = file.schema_arrow.names  # names that are no text fail here
            return file
        except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
            raise unreadable(path, first_line(error)) from error


def parts(path: Path | Address) -> list[Path] | list[Address]:
    """The files of a table, in the order of their names: itself, or those that a folder holds.

    Raises DataError for a folder without any, or with one that was not finished.
    """
    if not path.is_dir():
        return [path]
    # What begins with a dot or an underscore is a writer's own, such as Spark's _SUCCESS.
    inside = (file for file in path.iterdir() if file.name[0] not in "._")
    found = sorted(inside, key=attrgetter("name"))
    for file in found:
        if file.suffix != ".parquet":
            raise DataError(f"{file} is no parquet file: keep nothing but the parts in {path}.")
    if not found:
        raise DataError(f"{path} holds no parquet file: write its parts there, or one file.")
    return found


def table_schema(path: Path | Address) -> pa.Schema:
    """The columns and metadata of a table; of one in parts those of the first."""
    return open_parquet(parts(path)[0]).schema_arrow


def metadata(path: Path | Address | None, key: bytes, default: bytes = b"") -> bytes:
    """What a parquet file says of itself under a key; the default if it is silent or absent."""
    found = table_schema(path).metadata if path else None
    return (found or {}).get(key, default)


def read_columns(
    path: Path,
    required: list[str],
    optional: Sequence[str] = (),
    kinds: Mapping[str, str] = schema.KINDS,
) -> pa.Table:
    """Read the required columns and those optional ones that exist, checking their types.

    An optional column that holds nothing but missing values counts as absent. kinds: what columns
    hold, by name; of other names it is lists of numbers, of which people name theirs as they like.
    """
    batches = [batch for _, batch in iterate_columns(path, required, optional, kinds)]
    # What pandas notes beside a table, such as an index, may be damaged or hide a column.
    return pa.Table.from_batches(batches).replace_schema_metadata(None)


def iterate_columns(
    path: Path | Address,
    required: list[str],
    optional: Sequence[str] = (),
    kinds: Mapping[str, str] = schema.KINDS,
) -> Iterator[tuple[int, pa.RecordBatch]]:
    """Yield the columns in record batches, at least one, each with the number of its first row.

    So no file must fit in memory. The columns are those of `read_columns`. The parts of a folder
    are one table; their rows are counted through.
    """
    if path.is_dir():
        yield from _of_parts(path, required, optional, kinds)
        return
    with path.brought() if isinstance(path, Address) else nullcontext(path) as here:
        yield from _of_file(here, required, optional, kinds)


def _of_file(
    path: Path | Address, required: list[str], optional: Sequence[str], kinds: Mapping[str, str]
) -> Iterator[tuple[int, pa.RecordBatch]]:
    """The batches of one file, which is on this machine."""
    file, first_row = open_parquet(path), 0
    columns = _present_columns(path, file.schema_arrow, required, optional, kinds)
    try:
        batches, rows = file.iter_batches(BATCH, columns=columns), file.metadata.num_rows
        for batch in bar_if_long(batches, -(-rows // BATCH), path.name):
            _require_text(batch, path, first_row)
            yield first_row, batch
            first_row += batch.num_rows
    except (pa.ArrowException, OSError) as error:
        where = _damaged_column(path, columns)
        raise DataError(
            f"{path}{where} is damaged ({first_line(error)}): write or download it again."
        ) from error
    if not first_row:
        fields = [file.schema_arrow.field(column) for column in columns]
        yield 0, pa.RecordBatch.from_pylist([], pa.schema(fields))


def _of_parts(
    path: Path | Address, required: list[str], optional: Sequence[str], kinds: Mapping[str, str]
) -> Iterator[tuple[int, pa.RecordBatch]]:
    """The batches of all parts of a folder; DataError if some lack a column that others have."""
    first_row, names = 0, None
    for part in bar_if_long(found := parts(path), len(found), path.name):
        for row, batch in iterate_columns(part, required, optional, kinds):
            names = names or batch.schema.names
            if batch.schema.names != names:
                (column, *_) = set(names) ^ set(batch.schema.names)
                raise DataError(
                    f"{part} and {found[0]} differ in column {column}, which one of them has not: "
                    "write all parts with the same columns."
                )
            yield first_row + row, batch
        first_row += row + batch.num_rows


def integers(
    values: pa.Array | pa.ChunkedArray,
    path: Path,
    column: str,
    *,
    low: int | None = None,
    high: int | None = None,
    first_row: int = 0,
) -> np.ndarray:
    """A column of whole numbers as int64 [n], none missing, at least low and at most high."""
    _no_nulls(values, path, column, first_row)
    array = values.to_numpy(zero_copy_only=False)
    if array.dtype == np.uint64 and array.max(initial=0) > np.iinfo(np.int64).max:
        row = int(array.argmax())
        raise unfit(path, column, first_row + row, array[row], "a 64-bit id")
    array = array.astype(np.int64, copy=False)
    if low is not None:
        outside = array < low if high is None else (array < low) | (array > high)
        expected = f"at least {low}" if high is None else f"a number from {low} to {high}"
        refuse(outside, path, column, array, expected, first_row)
    return array


def labels(values: pa.Array, path: Path, *, first_row: int = 0) -> np.ndarray:
    """The label column as float32 [n] of 0 and 1."""
    _no_nulls(values, path, "label", first_row)
    array = values.to_numpy(zero_copy_only=False)
    refuse((array != 0) & (array != 1), path, "label", array, "0 or 1", first_row)
    return array.astype(np.float32)


def texts(values: pa.ChunkedArray, path: Path, column: str) -> pa.Array:
    """A column of text in one piece, none missing."""
    _no_nulls(values, path, column, 0)
    # One piece of more than 2 GB needs offsets of 64 bits.
    return values.cast(pa.large_string()).combine_chunks()


def integer_lists(
    values: pa.Array, path: Path, column: str, *, high: int, first_row: int = 0
) -> tuple[np.ndarray, np.ndarray]:
    """A list column as flat int64 values and int64 lengths [n]; all values in 0..high."""
    _no_nulls(values, path, column, first_row)
    lengths = pc.list_value_length(values).to_numpy(zero_copy_only=False).astype(np.int64)
    flat = values.flatten()

    def row_of(position: int) -> int:
        return first_row + int(np.searchsorted(np.cumsum(lengths), position, side="right"))

    if flat.null_count:
        row = row_of(pc.index(flat.is_null(), True).as_py())
        raise unfit(path, column, row, "a missing value", "a whole number")
    array = flat.to_numpy(zero_copy_only=False).astype(np.int64, copy=False)
    outside = np.flatnonzero((array < 0) | (array > high))
    if len(outside):
        found = array[outside[0]]
        raise unfit(path, column, row_of(outside[0]), found, f"a number from 0 to {high}")
    return array, lengths


def float_lists(values: np.ndarray) -> pa.ListArray:
    """A matrix [n, width] as a list column of float32 [n], as `matrix` reads it back."""
    offsets = np.arange(len(values) + 1, dtype=np.int32) * values.shape[1]
    return pa.ListArray.from_arrays(offsets, pa.array(values.ravel(), pa.float32()))


def matrix(
    values: pa.ChunkedArray, path: Path, column: str, dtype: type, names: Sequence | None = None
) -> np.ndarray:
    """A list column whose rows have equal widths and finite values as a matrix [n, width].

    names: what errors call the rows, instead of their numbers.
    """

    def name(row: int) -> str:
        return f"row {row}" if names is None else str(names[row])

    if not len(values):
        raise DataError(f"{path} has no rows: expected one for each item.")
    _no_nulls(values, path, column, 0)
    lengths = pc.list_value_length(values).to_numpy().astype(np.int64)
    width = int(lengths[0])
    if not width:
        raise unfit(path, column, name(0), "0 values", "at least 1")
    if (lengths != width).any():
        row = int((lengths != width).argmax())
        expected = f"{width} as in {name(0)}"
        raise unfit(path, column, name(row), f"{lengths[row]} values", expected)
    result = np.empty((len(lengths), width), dtype=dtype)
    start = 0
    for chunk in values.chunks:
        flat, stop = chunk.flatten(), start + len(chunk)
        if flat.null_count:
            row = start + pc.index(flat.is_null(), True).as_py() // width
            raise unfit(path, column, name(row), "a missing value", "a number")
        result[start:stop] = flat.to_numpy(zero_copy_only=False).reshape(-1, width)
        start = stop
    # A sum is finite only if every term is (or the terms overflow, which is as unusable).
    with np.errstate(invalid="ignore"):
        bad = ~np.isfinite(result.sum(axis=1, dtype=np.float64))
    if bad.any():
        raise unfit(path, column, name(int(bad.argmax())), "NaN or infinity", "finite numbers")
    return result


def is_kind(found: pa.DataType, kind: str) -> bool:
    """Whether a column of this type holds a kind of values, in the words of `schema`."""
    if kind in (schema.INTEGER_LIST, schema.FLOAT_LIST):
        is_list = (
            pa.types.is_list(found)
            or pa.types.is_large_list(found)
            or pa.types.is_fixed_size_list(found)
        )
        of = schema.INTEGER if kind == schema.INTEGER_LIST else schema.NUMBER
        return is_list and is_kind(found.value_type, of)
    if kind == schema.TEXT:
        return pa.types.is_string(found) or pa.types.is_large_string(found)
    return pa.types.is_integer(found) or (kind == schema.NUMBER and pa.types.is_floating(found))


def listed(names: list[str]) -> str:
    """Names as a message shows them: on one line, and not thousands."""
    shown = [name if name.isprintable() else repr(name) for name in names[:20]]
    return ", ".join(shown) + (", ..." if len(names) > 20 else "")


def _present_columns(
    path: Path,
    form: pa.Schema,
    required: list[str],
    optional: Sequence[str],
    kinds: Mapping[str, str],
) -> list[str]:
    missing = [column for column in required if column not in form.names]
    if missing:
        raise DataError(
            f"{path} has no column {missing[0]}, only {listed(form.names)}: "
            "add it or rename the column that holds it."
        )
    for column in (*required, *optional):
        if form.names.count(column) > 1:
            raise DataError(
                f"{path} has {form.names.count(column)} columns {column}, expected one: "
                "drop or rename the others."
            )
    # A column without a single value has no type: pandas and Arrow write it as null.
    typed = {field.name for field in form if not pa.types.is_null(field.type)}
    present = [*required, *(column for column in optional if column in typed)]
    for column in present:
        kind, found = kinds.get(column, schema.FLOAT_LIST), form.field(column).type
        if not is_kind(found, kind):
            raise unfit(path, column, None, found, kind)
    return present


def _damaged_column(path: Path, columns: list[str]) -> str:
    """The first of the columns that cannot be read by itself, as ", column NAME"."""
    for column in columns:
        try:
            open_parquet(path).read(columns=[column])
        except (pa.ArrowException, OSError):
            return f", column {column},"
    return ""


def _require_text(batch: pa.RecordBatch, path: Path, first_row: int) -> None:
    """Raise DataError for text that is not UTF-8, as Parquet does not promise that it is."""
    for field, values in zip(batch.schema, batch.columns, strict=True):
        if is_kind(field.type, schema.TEXT):
            try:
                values.validate(full=True)
            except pa.ArrowInvalid as error:
                raw = [
                    value or b"" for value in values.cast(pa.large_binary(), safe=False).to_pylist()
                ]
                bad = np.array([value.decode(errors="ignore").encode() != value for value in raw])
                refuse(bad, path, field.name, raw, "text in UTF-8", first_row)
                raise error


def _no_nulls(values: pa.Array | pa.ChunkedArray, path: Path, column: str, first_row: int) -> None:
    if values.null_count:
        row = pc.index(values.is_null(), True).as_py()
        raise unfit(path, column, first_row + row, "a missing value", "a value")
