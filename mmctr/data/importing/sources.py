"""The tables that people have: their columns as text, numbers, times and vectors of the items.

What cannot be read so is a DataError, a sentence that says why not.
"""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.parquet as pq

from mmctr.data import parquet, schema
from mmctr.data.importing.recipe import Recipe
from mmctr.errors import DataError, first_line


def read_table(path: Path, required: list[str], optional: list[str]) -> pa.Table:
    """The named columns of a CSV or Parquet table; DataError if it cannot be read."""
    if not path.is_file():
        raise DataError(f"{path} is not a file: name a CSV or Parquet table.")
    is_parquet = path.suffix.lower() in (".parquet", ".pq")
    try:
        if is_parquet:
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
        if is_parquet:
            return pq.read_table(path, columns=wanted)
        options = pyarrow.csv.ConvertOptions(include_columns=wanted)
        return pyarrow.csv.read_csv(path, convert_options=options)
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
    if not (parquet.is_kind(ids.type, schema.NUMBER) or pa.types.is_null(ids.type)):
        as_text(ids, path, column)


def as_text(values: pa.ChunkedArray, path: Path, column: str) -> pa.ChunkedArray:
    """A column as text; DataError if it cannot be."""
    try:
        text = values.cast(pa.string())
        text.validate(full=True)
        return text
    except pa.ArrowException as error:
        found = f"{values.type} ({first_line(error)})"
        raise parquet.unfit(path, column, None, found, "text in UTF-8") from error


def require_unique(ids: pa.ChunkedArray, path: Path, column: str) -> None:
    """Raise DataError for an id that is missing or was there before."""
    bad = ids.to_pandas().duplicated() | pc.is_null(ids, nan_is_null=True).to_numpy()
    parquet.refuse(bad.to_numpy(), path, column, ids, "each item once")


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
    if not parquet.is_kind(values.type, schema.NUMBER):
        expected = "numbers or dates such as 2024-05-31 12:00:00"
        raise parquet.unfit(path, column, None, values.type, expected)
    times = values.to_numpy()
    outside = np.abs(times.astype(np.float64)) >= 2.0**63
    parquet.refuse(outside, path, column, times, "a time that fits in 64 bits")
    return np.floor(times).astype(np.int64)


@dataclass(frozen=True)
class Embeddings:
    """Ready-made embeddings: float32 [items, width] by column, zero for items without.

    features: those of item_feature.parquet. provided: those of item_emb.parquet. encoders: what
    is known of the features' origin. counts: of rows that were joined, and of those that were not.
    """

    features: dict[str, np.ndarray] = field(default_factory=dict)
    provided: dict[str, np.ndarray] = field(default_factory=dict)
    encoders: dict[str, dict[str, Any]] = field(default_factory=dict)
    counts: dict[str, int] = field(default_factory=dict)


def join_embeddings(path: Path | None, original: pa.ChunkedArray, recipe: Recipe) -> Embeddings:
    """Every column of the features table that holds lists of numbers, in the items' order."""
    if path is None:
        return Embeddings()
    key = recipe.item_column
    ids = read_table(path, [key], [])[key]
    require_unique(ids, path, key)
    types = {field.name: field.type for field in parquet.open_parquet(path).schema_arrow}
    names = {}
    for option, name in (
        ("text_embedding_column", schema.TEXT_COLUMN),
        ("image_embedding_column", schema.IMAGE_COLUMN),
    ):
        column = getattr(recipe, option)
        if column not in types and option in recipe.model_fields_set:
            raise DataError(
                f"{path} has no column {column}, only {', '.join(types)}: set {option} to one "
                "of them, or leave it out."
            )
        # The challenge's own name is known too.
        column = column if column in types else name
        if column in types:
            if not parquet.is_kind(types[column], schema.FLOAT_LIST):
                raise parquet.unfit(path, column, None, types[column], schema.FLOAT_LIST)
            names[name] = column
    others = [
        name
        for name, kind in types.items()
        if parquet.is_kind(kind, schema.FLOAT_LIST) and name not in {key, *names.values()}
    ]
    if not names and not others:
        raise DataError(
            f"{path} has no column of embeddings, only {', '.join(types)}: expected lists of "
            "numbers, one an item."
        )
    place = places_of(ids, original)
    known = place.is_valid().to_numpy()
    place = place.filter(pa.array(known)).to_numpy()
    if not len(place):
        raise DataError(f"{path} has no row of an item of the items table: check the id columns.")

    def joined(column: str) -> np.ndarray:
        values = parquet.read_columns(path, [], vectors=column)[column]
        values = parquet.matrix(values, path, column, np.float32)
        result = np.zeros((len(original), values.shape[1]), dtype=np.float32)
        result[place] = values if known.all() else values[known]
        return result

    return Embeddings(
        features={name: joined(column) for name, column in names.items()},
        provided={name: joined(name) for name in others},
        encoders={
            name: {"model": f"{path.name}:{column} (ready-made)"} for name, column in names.items()
        },
        counts={
            "features": len(place),
            "without_features": len(original) - len(place),
            "features_of_unknown_items": int((~known).sum()),
        },
    )
