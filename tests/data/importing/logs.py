"""A log of hand-made clicks, imported."""

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from hypothesis import strategies as st

from mmctr.data.importing.recipe import Recipe
from mmctr.data.importing.steps import import_dataset

ITEMS = pd.DataFrame(
    {
        "item_id": [f"i{number}" for number in range(12)],
        "title": [f"Title {number}" for number in range(12)],
        "genres": ["Drama|Comedy", "Drama", "", None, "Sci-Fi, Noir", *["Comedy"] * 7],
    }
)
log_rows = st.lists(
    st.tuples(st.sampled_from("abcd"), st.integers(0, 7), st.integers(0, 9)),
    min_size=1,
    max_size=60,
)


def written(folder, name, frame, form):
    """The path of a table, written as csv, jsonl or parquet."""
    path = folder / f"{name}.{form}"
    if form == "csv":
        frame.to_csv(path, index=False)
    elif form == "jsonl":
        frame.to_json(path, orient="records", lines=True, date_format="iso")
    else:
        frame.to_parquet(path)
    return path


def splits_of(out):
    """The rows of train, valid and test, as they were written."""
    names = ("train", "valid", "test")
    return {name: pd.read_parquet(out / "MicroLens_1M_x1" / f"{name}.parquet") for name in names}


def imported(
    folder,
    log,
    items=ITEMS,
    covers=None,
    features=None,
    say=print,
    users=None,
    form="csv",
    out="out",
    **options,
):
    """Import a log given as rows (user, item number, time) or as a DataFrame."""
    if not isinstance(log, pd.DataFrame):
        log = pd.DataFrame(log, columns=["user_id", "item_id", "timestamp"])
        log["item_id"] = "i" + log["item_id"].astype(str)
    path = written(folder, "log", log, form)
    items.to_parquet(folder / "items.parquet")
    out, tables = folder / out, []
    if features is not None:
        tables = [folder / "features.parquet"]
        pq.write_table(pa.table(features), tables[0])
    recipe = Recipe.of(**options)
    paths = [path], [folder / "items.parquet"]
    users = None if users is None else [written(folder, "users", users, form)]
    return out, import_dataset(*paths, covers, out, recipe, tables, users, say=say)


LOG = [("a", number % 7, number) for number in range(9)] + [("b", 1, 3), ("b", 9, 4)]


def positions(out):
    """Own ids of what was clicked before each test click, and of that click."""
    ids = pd.read_parquet(out / "item_ids.parquet")["original_id"]
    test = pd.read_parquet(out / "MicroLens_1M_x1" / "test.parquet")
    return [ids[n - 1] for n in [*test["item_seq"][0], test["item_id"][0]]]


def read(folder, *log, items="items.parquet", **options):
    """Import these files of a folder: the counts, and what was said."""
    if items == "items.parquet":
        ITEMS.to_parquet(folder / items)
    said, logs = [], [folder / name for name in log]
    recipe = Recipe.of(**{"negatives": 0} | options)
    facts = import_dataset(logs, [folder / items], None, folder / "o", recipe, say=said.append)
    return facts["counts"], said


def folder_bytes(folder):
    """Every file of a dataset but what it says of its sources."""
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name != "dataset.json"
    }
