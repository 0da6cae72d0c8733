"""Import a click log, items, covers and embeddings as a dataset in the challenge's files.

Time runs one way: a row's history holds clicks before its target's time only, popularity levels
come from train clicks only, and a negative is an item that its user never clicked in any split. A
dataset depends on what the tables say and on the seed, not on the order or the files they come in.
"""

import shutil
from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from mmctr.data import schema
from mmctr.data.fields import as_json
from mmctr.data.importing.arrays import array_files, read_arrays
from mmctr.data.importing.covers import copy_covers
from mmctr.data.importing.engine import engine
from mmctr.data.importing.events import Events
from mmctr.data.importing.fields import in_words, learn_fields, owner_tables
from mmctr.data.importing.items import Embeddings, read_embeddings, read_items
from mmctr.data.importing.log import read_log
from mmctr.data.importing.parts import files_of
from mmctr.data.importing.recipe import Recipe
from mmctr.data.importing.sorting import Sorter
from mmctr.data.importing.sources import open_source
from mmctr.data.importing.splits import Splitter, require_all, splitter
from mmctr.data.importing.writing import write_items, write_splits
from mmctr.errors import ConfigError, DataError
from mmctr.files import atomic_folder, write_json

WORK = ".import"  # below the folder that is made: what is sorted and spilled


def import_dataset(
    interactions: list[Path],
    items: list[Path],
    covers: Path | None,
    out: Path,
    recipe: Recipe,
    features: list[Path] | None = None,
    users: list[Path] | None = None,
    *,
    on_spark: bool = False,
    master: str | None = None,
    say: Callable[[str], object] = lambda text: None,
) -> dict[str, Any]:
    """Write a dataset folder, whole or not at all; returns what dataset.json says.

    interactions, items, features, users: a table each, of one or more files, a pattern or a folder
    of parts; or features: arrays, whose rows are those of the items table. covers: a folder or a
    table. on_spark: read the interactions on a Spark cluster, which master names. say: is told what
    was understood. Raises DataError for tables that cannot be used or a
    folder that exists already, ConfigError for options that do not fit.
    """
    if out.exists():
        raise DataError(f"{out} exists already: delete it or choose another folder.")
    if bool(recipe.user_fields) != bool(users):
        raise ConfigError(
            "Fields of users need their table, and the other way round: give both --users FILE and "
            "--user-fields NAMES, or neither."
        )
    if not recipe.negatives and not recipe.labelled:
        say("Warning: without negatives there are clicks only, on which no model can be trained.")
    arrays = array_files(features or [])
    tables = [] if arrays else features or []
    named = {"interactions": interactions, "items": items, "features": tables}
    named["users"] = users or []
    if covers is not None and not covers.exists() and "*" not in str(covers):
        raise DataError(
            f"{covers} of --covers is not there: name a folder of pictures or a table of them."
        )
    if covers is not None and not covers.is_dir():
        named["covers"] = [covers]
    files = [file for names in named.values() for name in names for file in files_of(name)]
    with atomic_folder(out) as temporary, ExitStack() as stack:
        work, nested = temporary.resolve() / WORK, temporary / schema.NESTED_FOLDER
        work.mkdir()
        nested.mkdir()
        sorter = Sorter()
        if on_spark:
            from mmctr.data.importing.cluster import cluster, require_workers
            from mmctr.data.importing.spark import SparkSorter

            found = stack.enter_context(cluster(master, work, recipe.memory))
            say(found.in_words())  # before the workers are asked, who may be long in coming
            require_workers(found)
            sorter = SparkSorter(found)
        with engine(files, work, recipe.memory) as connection:
            sources = {}
            for kind, names in named.items():
                if names:
                    each = sorter.each if kind == "interactions" else map
                    sources[kind] = open_source(connection, names, recipe, each)
                    say(f"{kind}: {sources[kind].name} ({sources[kind].detected})")
            sign = (recipe.delimiter or "").replace("\\t", "\t")
            if sign and not any(repr(sign) in source.detected for source in sources.values()):
                raise ConfigError(
                    f"Parameter 'delimiter' is {sign!r}, which no CSV file has in its first line: "
                    "leave it out, or give the one that they have."
                )
            listed = read_items(sources["items"], recipe)
            log = read_log(sources["interactions"], recipe, work, sorter)
            for sentence in (*listed.said, *log.said):
                say(sentence)
            embeddings = Embeddings()
            if arrays:
                say(f"features: {', '.join(map(str, arrays))} (NumPy, rows as of the items table)")
                embeddings = read_arrays(arrays, items, listed, recipe, work)
            elif features:
                embeddings = read_embeddings(sources["features"], listed, recipe)
            columns = {"context": log.context}
            columns |= owner_tables(sources, recipe, temporary)
            split = splitter(log, recipe, sources["interactions"], len(listed))
            joined = {}
            if covers is not None:
                pictures = sources.get("covers", covers)
                joined |= copy_covers(pictures, listed, recipe, temporary / "item_images")
            joined |= embeddings.counts
            for sentence in dict.fromkeys(one for s in sources.values() for one in s.said):
                say(sentence)
            for kind in ("items", "features", "covers", "users"):
                if kind in sources and (torn := sources[kind].torn_lines()):
                    joined[f"unreadable_{kind}"] = torn
                    say(f"{torn:,} lines of {sources[kind].name} could not be read.")
        # DuckDB has given its memory back: what is written next has it all.
        counted = log.reduce(partial(_counted, split, len(listed)), np.add, "count")
        rows, clicks, train_clicks = np.split(counted, [len(schema.SPLITS), 2 * len(schema.SPLITS)])
        require_all(clicks, recipe)
        counts = log.counts | {"items": len(listed)}
        counts["tags"] = write_items(temporary, listed, train_clicks, split.held_out, embeddings)
        how = {"split": split, "train_clicks": train_clicks, "recipe": recipe}
        log.write(partial(write_splits, **how), nested)
        counts |= dict(zip(schema.SPLITS, rows.tolist(), strict=True)) | joined
        (work / "user_ids.parquet").rename(temporary / schema.USER_IDS)
        if any(columns.values()):
            with engine([], temporary, recipe.memory) as connection:
                fields = learn_fields(connection, temporary, columns)
            write_json(temporary / schema.FIELDS, as_json(fields))
            for one in fields:
                say(in_words(one))
        shutil.rmtree(work)
        facts = {"recipe": recipe.model_dump(), "counts": counts}
        facts["negatives"] = negatives_from(recipe)
        facts["sources"] = [str(name) for names in named.values() for name in names]
        facts["sources"] += map(str, arrays)
        facts["sources"] += [str(covers)] if covers is not None and covers.is_dir() else []
        if embeddings.encoders:
            facts["encoders"] = embeddings.encoders
        write_json(temporary / schema.ABOUT, facts)
    return facts


def _counted(split: Splitter, n_items: int, events: Events) -> np.ndarray:
    """Rows and clicks by split, then the clicks in train by item: int64, one after another."""
    number, clicked = split(events), events.label == 1
    learned = events.item[clicked & (number == 0)]
    of_splits = [
        np.bincount(some, minlength=len(schema.SPLITS)) for some in (number, number[clicked])
    ]
    return np.concatenate([*of_splits, np.bincount(learned, minlength=n_items + 1)])


def negatives_from(recipe: Recipe) -> schema.NegativesFrom:
    """Where the negatives of a dataset come from."""
    if not recipe.labelled:
        return "sampled"
    return recipe.negatives_are or ("shown" if recipe.min_rating is None else "outcome")
