"""Ready-made embeddings, joined to the items."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from mmctr.data import parquet, schema
from mmctr.data.importing.recipe import Recipe
from mmctr.data.importing.sources import places_of, read_table, require_unique
from mmctr.errors import DataError


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


def join_embeddings(path: Path, original: pa.ChunkedArray, recipe: Recipe) -> Embeddings:
    """Every column of the features table that holds lists of numbers, in the items' order."""
    key = recipe.item_column
    ids = read_table(path, [key], [])[key]
    require_unique(ids, path, key)
    form = parquet.open_parquet(path).schema_arrow
    columns = {column.name: parquet.holds_vectors(column.type) for column in form}
    names = {}
    for option, name in (("text", schema.TEXT_COLUMN), ("image", schema.IMAGE_COLUMN)):
        option += "_embedding_column"
        wanted = getattr(recipe, option)
        if wanted not in columns and option in recipe.model_fields_set:
            raise DataError(
                f"{path} has no column {wanted}, only {', '.join(columns)}: set {option} to one "
                "of them, or leave it out."
            )
        # The challenge's own name is known too.
        column = next((column for column in (wanted, name) if column in columns), None)
        if column and not columns[column]:
            found = form.field(column).type
            raise DataError(f"{path}, column {column}: found {found}, expected lists of numbers.")
        if column:
            names[name] = column
    others = [name for name, fits in columns.items() if fits and name not in {key, *names.values()}]
    if not names and not others:
        raise DataError(
            f"{path} has no column of embeddings, only {', '.join(columns)}: expected lists of "
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
