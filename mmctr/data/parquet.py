"""Parquet files read column by column, every value checked.

Every check raises DataError with file, column and row (counted from 0).
"""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from mmctr.data.schema import (
    ERROR_COLUMNS,
    FLOAT_LIST,
    IMPRESSION_COLUMNS,
    INTEGER,
    INTEGER_LIST,
    ITEM_COLUMNS,
    NUMBER,
    PREDICTION_COLUMNS,
    TEXT,
    TOPIC_COLUMNS,
    TRUTH_COLUMNS,
)
from mmctr.errors import DataError, first_line


def open_parquet(path: Path) -> pq.ParquetFile:
    """Open a parquet file; DataError if it is not one."""
    try:
        file = pq.ParquetFile(path, memory_map=True)
        _ = file.schema_arrow.names  # names that are no text fail here
        return file
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        raise DataError(
            f"{path} is not a readable parquet file ({first_line(error)}): "
            "write or download it again."
        ) from error


def metadata(path: Path | None, key: bytes, default: bytes = b"") -> bytes:
    """What a parquet file says of itself under a key; the default if it is silent or absent."""
    found = open_parquet(path).schema_arrow.metadata if path else None
    return (found or {}).get(key, default)


def read_columns(
    path: Path,
    required: list[str],
    optional: list[str] | None = None,
    *,
    vectors: str | None = None,
) -> pa.Table:
    """Read the required columns and those optional ones that exist, checking their types.

    An optional column that holds nothing but missing values counts as absent. vectors: a required
    column that somebody named as they liked, and that holds lists of numbers.
    """
    required = [*required, *([vectors] if vectors else [])]
    columns = (path, required, optional, vectors)
    batches = list(_iterate(*columns, batch_rows=1 << 16))
    table = pa.Table.from_batches(batches) if batches else _empty(*columns)
    # What pandas notes beside a table, such as an index, may be damaged or hide a column.
    return table.replace_schema_metadata(None)


def iterate_columns(
    path: Path, required: list[str], optional: list[str] | None = None, *, batch_rows: int
) -> Iterator[pa.RecordBatch]:
    """Yield a file's columns in record batches, so that no file must fit in memory."""
    return _iterate(path, required, optional, None, batch_rows=batch_rows)


def _iterate(
    path: Path,
    required: list[str],
    optional: list[str] | None,
    vectors: str | None,
    *,
    batch_rows: int,
) -> Iterator[pa.RecordBatch]:
    file, first_row = open_parquet(path), 0
    columns = _present_columns(path, file.schema_arrow, required, optional or [], vectors)
    batches = file.iter_batches(batch_rows, columns=columns)
    while True:
        try:
            batch = next(batches, None)
        except (pa.ArrowException, OSError) as error:
            where = _damaged_column(path, columns)
            raise DataError(
                f"{path}{where} is damaged ({first_line(error)}): write or download it again."
            ) from error
        if batch is None:
            return
        _require_text(batch, path, first_row)
        yield batch
        first_row += batch.num_rows


def integers(
    values: pa.Array | pa.ChunkedArray,
    path: Path,
    column: str,
    *,
    low: int | None = None,
    high: int | None = None,
    first_row: int = 0,
) -> np.ndarray:
    """A column of whole numbers as int64 [n], none missing, all in low..high (inclusive)."""
    _no_nulls(values, path, column, first_row)
    array = (
        values.to_numpy(zero_copy_only=False)
        if isinstance(values, pa.Array)
        else (values.to_numpy())
    )
    if array.dtype == np.uint64 and len(array) and array.max() > np.iinfo(np.int64).max:
        row = int(array.argmax())
        raise DataError(_found(path, column, first_row + row, array[row], "a 64-bit id"))
    array = array.astype(np.int64, copy=False)
    _check_range(array, path, column, low, high, first_row=first_row)
    return array


def labels(values: pa.Array, path: Path, *, first_row: int = 0) -> np.ndarray:
    """The label column as float32 [n] of 0 and 1."""
    _no_nulls(values, path, "label", first_row)
    array = values.to_numpy(zero_copy_only=False)
    wrong = np.flatnonzero((array != 0) & (array != 1))
    if len(wrong):
        row = int(wrong[0])
        raise DataError(_found(path, "label", first_row + row, array[row], "0 or 1"))
    return array.astype(np.float32)


def integer_lists(
    values: pa.Array, path: Path, column: str, *, high: int, first_row: int = 0
) -> tuple[np.ndarray, np.ndarray]:
    """A list column as flat int64 values and int64 lengths [n]; all values in 0..high."""
    _no_nulls(values, path, column, first_row)
    lengths = pc.list_value_length(values).to_numpy(zero_copy_only=False).astype(np.int64)
    flat = values.flatten()
    rows = np.repeat(np.arange(len(lengths)), lengths) if flat.null_count else None
    if rows is not None:
        row = int(rows[int(np.flatnonzero(flat.is_null().to_numpy(zero_copy_only=False))[0])])
        raise DataError(_found(path, column, first_row + row, "a missing value", "a whole number"))
    array = flat.to_numpy(zero_copy_only=False).astype(np.int64, copy=False)
    outside = np.flatnonzero((array < 0) | (array > high))
    if len(outside):
        row = int(np.searchsorted(np.cumsum(lengths), outside[0], side="right"))
        raise DataError(
            _found(path, column, first_row + row, array[outside[0]], f"a number from 0 to {high}")
        )
    return array, lengths


def holds_vectors(kind: pa.DataType) -> bool:
    """Whether a column of this type holds lists of numbers."""
    return _is_kind(kind, FLOAT_LIST)


def float_lists(values: np.ndarray) -> pa.ListArray:
    """A matrix [n, width] as a list column of float32 [n], as `matrix` reads it back."""
    offsets = np.arange(len(values) + 1, dtype=np.int32) * values.shape[1]
    return pa.ListArray.from_arrays(offsets, pa.array(values.ravel(), pa.float32()))


def matrix(values: pa.ChunkedArray, path: Path, column: str, dtype: type) -> np.ndarray:
    """A list column whose rows have equal widths and finite values as a matrix [n, width]."""
    if not len(values):
        raise DataError(f"{path} has no rows: expected one for each item.")
    _no_nulls(values, path, column, 0)
    lengths = pc.list_value_length(values).to_numpy().astype(np.int64)
    width = int(lengths[0])
    if not width:
        raise DataError(_found(path, column, 0, "0 values", "at least 1"))
    uneven = np.flatnonzero(lengths != width)
    if len(uneven):
        row = int(uneven[0])
        raise DataError(_found(path, column, row, f"{lengths[row]} values", f"{width} as in row 0"))
    result = np.empty((len(lengths), width), dtype=dtype)
    start = 0
    for chunk in values.chunks:
        flat = chunk.flatten()
        stop = start + len(chunk)
        if flat.null_count:
            missing = np.flatnonzero(flat.is_null().to_numpy(zero_copy_only=False))[0]
            row = start + int(missing) // width
            raise DataError(_found(path, column, row, "a missing value", "a number"))
        result[start:stop] = flat.to_numpy(zero_copy_only=False).reshape(-1, width)
        start = stop
    # A sum is finite only if every term is (or the terms overflow, which is as unusable).
    with np.errstate(invalid="ignore"):
        bad = np.flatnonzero(~np.isfinite(result.sum(axis=1, dtype=np.float64)))
    if len(bad):
        raise DataError(_found(path, column, int(bad[0]), "NaN or infinity", "finite numbers"))
    return result


def _present_columns(
    path: Path, schema: pa.Schema, required: list[str], optional: list[str], vectors: str | None
) -> list[str]:
    kinds = IMPRESSION_COLUMNS | ITEM_COLUMNS | TRUTH_COLUMNS | TOPIC_COLUMNS | ERROR_COLUMNS
    kinds |= PREDICTION_COLUMNS
    missing = [column for column in required if column not in schema.names]
    if missing:
        raise DataError(
            f"{path} has no column {missing[0]}, only {listed(schema.names)}: "
            "add it or rename the column that holds it."
        )
    for column in (*required, *optional):
        if schema.names.count(column) > 1:
            raise DataError(
                f"{path} has {schema.names.count(column)} columns {column}, expected one: "
                "drop or rename the others."
            )
    # A column without a single value has no type: pandas and Arrow write it as null.
    typed = {field.name for field in schema if not pa.types.is_null(field.type)}
    present = [*required, *(column for column in optional if column in typed)]
    for column in present:
        kind = FLOAT_LIST if column == vectors else kinds.get(column, FLOAT_LIST)
        found = schema.field(column).type
        if not _is_kind(found, kind):
            raise DataError(f"{path}, column {column}: found {found}, expected {kind}.")
    return present


def _is_kind(found: pa.DataType, kind: str) -> bool:
    is_list = (
        pa.types.is_list(found)
        or pa.types.is_large_list(found)
        or pa.types.is_fixed_size_list(found)
    )
    if kind in (INTEGER_LIST, FLOAT_LIST):
        return is_list and _is_kind(found.value_type, INTEGER if kind == INTEGER_LIST else NUMBER)
    if kind == TEXT:
        return pa.types.is_string(found) or pa.types.is_large_string(found)
    if kind == INTEGER:
        return pa.types.is_integer(found)
    return pa.types.is_integer(found) or pa.types.is_floating(found)


def _empty(
    path: Path, required: list[str], optional: list[str] | None, vectors: str | None
) -> pa.Table:
    schema = open_parquet(path).schema_arrow
    columns = _present_columns(path, schema, required, optional or [], vectors)
    return schema.empty_table().select(columns)


def _damaged_column(path: Path, columns: list[str]) -> str:
    """The first of the columns that cannot be read by itself, as ", column NAME"."""
    for column in columns:
        try:
            pq.read_table(path, columns=[column])
        except (pa.ArrowException, OSError):
            return f", column {column},"
    return ""


def _require_text(batch: pa.RecordBatch, path: Path, first_row: int) -> None:
    """Raise DataError for text that is not UTF-8, as Parquet does not promise that it is."""
    for field, values in zip(batch.schema, batch.columns, strict=True):
        if _is_kind(field.type, TEXT):
            try:
                values.validate(full=True)
            except pa.ArrowInvalid as error:
                raw = values.cast(pa.large_binary(), safe=False).to_pylist()
                row = next(row for row, value in enumerate(raw) if not _is_utf8(value or b""))
                raise DataError(
                    _found(path, field.name, first_row + row, raw[row], "text in UTF-8")
                ) from error


def _is_utf8(value: bytes) -> bool:
    try:
        value.decode()
        return True
    except UnicodeDecodeError:
        return False


def listed(names: list[str]) -> str:
    """Names as a message shows them: on one line, and not thousands."""
    shown = [name if name.isprintable() else repr(name) for name in names[:20]]
    return ", ".join(shown) + (", ..." if len(names) > 20 else "")


def _no_nulls(values: pa.Array | pa.ChunkedArray, path: Path, column: str, first_row: int) -> None:
    if values.null_count:
        row = pc.index(values.is_null(), True).as_py()
        raise DataError(_found(path, column, first_row + row, "a missing value", "a value"))


def _check_range(
    array: np.ndarray,
    path: Path,
    column: str,
    low: int | None,
    high: int | None,
    *,
    first_row: int,
) -> None:
    below = array < low if low is not None else np.zeros(len(array), bool)
    above = array > high if high is not None else np.zeros(len(array), bool)
    outside = np.flatnonzero(below | above)
    if len(outside):
        row = int(outside[0])
        expected = f"a number from {low} to {high}" if high is not None else f"at least {low}"
        raise DataError(_found(path, column, first_row + row, array[row], expected))


def _found(path: Path, column: str, row: int, found: object, expected: str) -> str:
    return f"{path}, column {column}, row {row}: found {found}, expected {expected}."
