"""The tables that people have: their columns as text, numbers and times, or a sentence why not."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.parquet as pq

from mmctr.data import parquet
from mmctr.errors import DataError, first_line


def read_table(path: Path, required: list[str], optional: list[str]) -> pa.Table:
    """The named columns of a CSV or Parquet table; DataError if it cannot be read."""
    if not path.is_file():
        raise DataError(f"{path} is not a file: name a CSV or Parquet table.")
    try:
        if path.suffix.lower() in (".parquet", ".pq"):
            names = pq.read_schema(path).names
        else:
            with pyarrow.csv.open_csv(path) as reader:
                names = reader.schema.names
        missing = [name for name in required if name not in names]
        if missing:
            raise DataError(
                f"{path} has no column {missing[0]}, only {parquet.listed(names)}: name the column "
                "that holds it with the options of mmctr data import."
            )
        repeated = [name for name in (*required, *optional) if names.count(name) > 1]
        if repeated:
            raise DataError(
                f"{path} has several columns {repeated[0]}, expected one: drop or rename the "
                "others."
            )
        wanted = [*required, *(name for name in optional if name in names)]
        if path.suffix.lower() in (".parquet", ".pq"):
            return pq.read_table(path, columns=wanted)
        return pyarrow.csv.read_csv(
            path, convert_options=pyarrow.csv.ConvertOptions(include_columns=wanted)
        )
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        raise DataError(
            f"{path} is not a readable CSV or Parquet table ({first_line(error)}): write it again."
        ) from error


def places_of(ids: pa.ChunkedArray, original: pa.ChunkedArray) -> pa.ChunkedArray:
    """Where ids stand in the items table, counted from 0; null for those that do not."""
    if ids.type != original.type:
        ids, original = ids.cast(pa.string()), original.cast(pa.string())
    return pc.index_in(ids, original.combine_chunks())


def require_ids(ids: pa.ChunkedArray, path: Path, column: str) -> None:
    """Raise DataError unless ids are numbers or can be read as text."""
    if not (is_number(ids.type) or pa.types.is_null(ids.type)):
        as_text(ids, path, column)


def as_text(values: pa.ChunkedArray, path: Path, column: str) -> pa.ChunkedArray:
    """A column as text; DataError if it cannot be."""
    try:
        text = values.cast(pa.string())
        text.validate(full=True)
        return text
    except pa.ArrowException as error:
        raise DataError(
            f"{path}, column {column}: found {values.type} ({first_line(error)}), expected text "
            "in UTF-8."
        ) from error


def is_number(kind: pa.DataType) -> bool:
    return pa.types.is_integer(kind) or pa.types.is_floating(kind)


def require_unique(ids: pa.ChunkedArray, path: Path, column: str) -> None:
    wrong = ids.to_pandas().duplicated() | pc.is_null(ids, nan_is_null=True).to_numpy()
    if wrong.any():
        row = int(wrong.to_numpy().argmax())
        raise DataError(
            f"{path}, column {column}, row {row}: found {ids[row]}, expected each item once."
        )


def as_numbers(ids: pa.ChunkedArray) -> tuple[np.ndarray, pa.Array | None]:
    """Ids as whole numbers; others are numbered from 1, and their dictionary is returned too."""
    if pa.types.is_integer(ids.type) and (pc.max(ids).as_py() or 0) < 2**63:
        return ids.to_numpy().astype(np.int64), None
    encoded = ids.combine_chunks().dictionary_encode()
    return encoded.indices.to_numpy().astype(np.int64) + 1, encoded.dictionary


def as_times(values: pa.ChunkedArray, path: Path, column: str) -> np.ndarray:
    """Times as int64: numbers as they are (rounded down), dates in seconds."""
    if pa.types.is_timestamp(values.type) or pa.types.is_date(values.type):
        return values.to_numpy().astype("datetime64[s]").astype(np.int64)
    if is_number(values.type):
        times = values.to_numpy()
        outside = np.flatnonzero(np.abs(times.astype(np.float64)) >= 2.0**63)
        if len(outside):
            raise DataError(
                f"{path}, column {column}, row {outside[0]}: found {times[outside[0]]}, expected "
                "a time that fits in 64 bits."
            )
        return np.floor(times).astype(np.int64)
    raise DataError(
        f"{path}, column {column}: found {values.type}, expected numbers or dates such as "
        "2024-05-31 12:00:00."
    )
