"""Import a click log, items, covers and embeddings as a dataset in the challenge's files.

Time runs one way: a row's history holds clicks before its target's time only, popularity levels
come from train clicks only, and a negative is an item that its user never clicked in any split.
"""

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from mmctr.data import schema
from mmctr.data.importing import sources, writing
from mmctr.data.importing.events import read_clicks
from mmctr.data.importing.negatives import sample_negatives
from mmctr.data.importing.recipe import Recipe
from mmctr.data.importing.splits import split_clicks
from mmctr.errors import DataError
from mmctr.files import atomic_folder, write_json


def import_dataset(
    interactions: Path,
    items: Path,
    covers: Path | None,
    out: Path,
    recipe: Recipe,
    features: Path | None = None,
) -> dict[str, Any]:
    """Write a dataset folder, whole or not at all; returns what dataset.json says.

    features: a Parquet table of ready-made embeddings, by item id in the recipe's item_column.
    Raises DataError for tables that cannot be used or a folder that exists already.
    """
    if out.exists():
        raise DataError(f"{out} exists already: delete it or choose another folder.")
    table = sources.read_table(
        items, [recipe.item_column, recipe.title_column], [recipe.tags_column, "genres"]
    )
    original = table[recipe.item_column]
    sources.require_ids(original, items, recipe.item_column)
    sources.require_unique(original, items, recipe.item_column)
    for place, column in enumerate(table.column_names[1:], start=1):
        text = sources.as_text(table[column], items, column).fill_null("")
        table = table.set_column(place, column, text)
    log = sources.read_table(
        interactions,
        [recipe.user_column, recipe.item_column, recipe.time_column],
        [recipe.rating_column],
    )
    clicks, users, counts = read_clicks(log, original, interactions, recipe)
    split = split_clicks(clicks, recipe)
    train_clicks = np.bincount(clicks.item[split == "train"], minlength=len(original) + 1)
    levels = writing.popularity_levels(train_clicks)
    negatives = sample_negatives(clicks, train_clicks, recipe)
    embeddings = sources.join_embeddings(features, original, recipe)
    with atomic_folder(out) as temporary:
        nested = temporary / schema.NESTED_FOLDER
        nested.mkdir()
        n_tags = writing.write_items(temporary, table, recipe, levels, embeddings)
        for name in schema.SPLITS:
            rows = np.flatnonzero(split == name)
            writing.write_split(nested / f"{name}.parquet", clicks, rows, negatives, levels, recipe)
        for kind, ids in (("item", original), ("user", users)):
            if ids is not None:
                columns = {f"{kind}_id": np.arange(1, len(ids) + 1), "original_id": ids}
                pq.write_table(pa.table(columns), temporary / f"{kind}_ids.parquet")
        counts |= {"items": len(original), "tags": n_tags}
        counts |= {name: int((split == name).sum()) for name in schema.SPLITS}
        counts["covers"] = writing.copy_covers(covers, original, temporary / "item_images")
        counts |= embeddings.counts
        facts = {"recipe": recipe.model_dump(), "counts": counts}
        facts["sources"] = [str(path) for path in (interactions, items, covers, features) if path]
        if embeddings.encoders:
            facts["encoders"] = embeddings.encoders
        write_json(temporary / "dataset.json", facts)
    return facts
