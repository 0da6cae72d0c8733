"""Ready-made embeddings in NumPy's files: row after row those of the items table."""

from pathlib import Path

import numpy as np
import pandas as pd

from mmctr.data.importing.engine import engine
from mmctr.data.importing.items import EMBEDDINGS, Embeddings, Items, fused_columns
from mmctr.data.importing.parts import files_of
from mmctr.data.importing.recipe import Recipe
from mmctr.data.importing.sources import id_text, open_source
from mmctr.data.parquet import listed
from mmctr.errors import DataError, first_line

SUFFIX = ".npy"


def array_files(features: list[Path]) -> list[Path]:
    """The files if all are arrays, none if none is; DataError if some are tables, or one name is
    there twice."""
    files = [file for name in features for file in files_of(name)]
    arrays = [file for file in files if file.suffix == SUFFIX]
    if arrays and len(arrays) < len(files):
        raise DataError("--features names files of several kinds, .npy and tables: give one kind.")
    again = pd.Series([file.name for file in arrays], dtype=object)
    if (twice := again[again.duplicated()]).any():
        raise DataError(f"--features names a file {twice.iloc[0]} again: give each another name.")
    return arrays


def read_arrays(
    files: list[Path], tables: list[Path], items: Items, recipe: Recipe, work: Path
) -> Embeddings:
    """The embeddings of files that hold a matrix [items, width] each, named as the file.

    tables: the items table, whose order of rows is theirs; DataError if it is not in one file.
    """
    place = _places(tables, items, recipe, work)
    found = {file.stem: _vectors(file, place, tables[0]) for file in files}
    for option in EMBEDDINGS:
        wanted = getattr(recipe, option)
        if option in recipe.model_fields_set and wanted not in found:
            raise DataError(
                f"--features has no file {wanted}{SUFFIX}, only {listed(list(found))}: set "
                f"{option} to one of them, or leave it out."
            )
    names = fused_columns(found, recipe)
    return Embeddings(
        {name: found[own] for name, own in names.items()},
        {own: values for own, values in found.items() if own not in names.values()},
        {name: {"model": f"{own}{SUFFIX} (ready-made)"} for name, own in names.items()},
        {"features": len(items)},
    )


def _places(tables: list[Path], items: Items, recipe: Recipe, work: Path) -> np.ndarray:
    """The place among the items of each row of their table, as it is written, int64 [items]."""
    files = [file for name in tables for file in files_of(name)]
    if len(files) > 1:
        raise DataError(
            f"--features names arrays, whose rows follow those of the items table: expected one "
            f"file of items, found {len(files)}; join them in one."
        )
    # An engine of its own, because the import's gives up the order of rows to need less memory.
    with engine(files, work, recipe.memory, ordered=True) as connection:
        source = open_source(connection, tables, recipe)
        key = id_text(source, recipe.items_id_column or recipe.item_column)
        ids = source.table(f"SELECT {key} AS id FROM {{source}}")["id"]
    return pd.Index(items.ids.to_pylist()).get_indexer(ids.to_pylist())


def _vectors(file: Path, place: np.ndarray, table: Path) -> np.ndarray:
    """A file's rows at their places, float32 [items, width]."""
    try:
        values = np.lib.format.open_memmap(file, mode="r")
    except (ValueError, OSError, EOFError) as error:
        raise DataError(
            f"{file} is not a readable NumPy file ({first_line(error)}): write it with numpy.save."
        ) from error
    number = values.dtype.kind == "f" and values.dtype.itemsize <= 8
    if values.ndim != 2 or not values.shape[1] or not number:
        raise DataError(
            f"{file}: found shape {values.shape} of {values.dtype}, expected a row of numbers for "
            "each item, as float16, float32 or float64."
        )
    if len(values) != len(place):
        raise DataError(
            f"{file} has {len(values):,} rows, but {table} has {len(place):,} items: expected one "
            "for each, in its order."
        )
    result = np.empty(values.shape, dtype=np.float32)
    with np.errstate(over="ignore", invalid="ignore"):
        result[place] = values
        bad = ~np.isfinite(result.sum(axis=1, dtype=np.float64))[place]
    if bad.any():
        raise DataError(
            f"{file}, row {int(bad.argmax())}: found NaN or infinity, expected finite numbers."
        )
    return result
