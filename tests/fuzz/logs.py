"""Small click logs and items tables, ways to spoil them, and a second importer in plain Python."""

import math
from collections import Counter
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq

from mmctr.data.dataset import Dataset
from mmctr.data.importing.recipe import Recipe
from tests.fuzz import datasets

COLUMNS = ("user_id", "item_id", "timestamp")


def write_tables(folder: Path, names: list[str], seed: int) -> tuple[Path, Path, Recipe]:
    """The log, the items table and the recipe of a case, as CSV or Parquet."""
    rng = np.random.default_rng(seed)
    files = valid(rng)
    datasets.spoil(rng, files, names)
    folder.mkdir()
    paths = []
    for name in ("log", "items"):
        content, path = files.get(name), folder / f"{name}.parquet"
        if isinstance(content, pa.Table) and rng.random() < 0.4:
            path = path.with_suffix(".csv")
            try:
                pyarrow.csv.write_csv(content, path)
            except pa.ArrowException:  # lists have no place in a CSV file
                path = path.with_suffix(".parquet")
        if content == b"<folder>":
            path.mkdir()
        elif content is not None and path.suffix == ".parquet":
            path.write_bytes(datasets.encoded(content, rng))
            if isinstance(content, bytes) and rng.random() < 0.5:
                path = path.rename(path.with_suffix(".csv"))
        paths.append(path)
    recipe = Recipe.of(
        split=str(rng.choice(["last-two", "date"])),
        negatives=int(rng.integers(3)),
        min_rating=None if rng.random() < 0.7 else 2.5,
        max_history=int(rng.integers(1, 6)),
        sampling=str(rng.choice(["uniform", "popularity"])),
    )
    return *paths, recipe


def valid(rng: np.random.Generator) -> datasets.Files:
    """A random log of 20 to 60 clicks on 12 items, ids as numbers or as text."""
    n, items = int(rng.integers(20, 60)), np.arange(12)
    times = rng.integers(0, 50, n)
    text = rng.random() < 0.5
    log = {
        "user_id": [f"u{user}" for user in rng.integers(0, 5, n)]
        if text
        else rng.integers(0, 5, n),
        "item_id": [f"i{item}" for item in rng.integers(0, 14, n)]
        if text
        else rng.integers(0, 14, n),
        "timestamp": [
            lambda: times,
            lambda: times / 3,
            lambda: pa.array(times, pa.timestamp("s")),
            lambda: pa.array(times * 400, pa.timestamp("ms")),
            lambda: pa.array(times.astype(np.int32), pa.date32()),
        ][int(rng.integers(5))](),
        "rating": rng.integers(1, 6, n),
    }
    table = {
        "item_id": [f"i{item}" for item in items] if text else items,
        "title": [f"title {item}" for item in items],
        "tags": ["a|b", "a", "", "b, c"] * 3,
    }
    return {"log": pa.table(log), "items": pa.table(table)}


def read(path: Path, columns: list[str]) -> pa.Table:
    """The named columns of a table that exist, each once; raises anything if it cannot."""
    if path.suffix == ".csv":
        table = pyarrow.csv.read_csv(path)
    else:
        names = pq.read_schema(path).names
        table = pq.read_table(path, columns=[name for name in columns if name in names])
    if any(table.column_names.count(name) > 1 for name in columns):
        raise ValueError("repeated")
    present = [name for name in columns if name in table.column_names]
    return table.select(present)


def is_id(kind: pa.DataType) -> bool:
    """Whether a column of this type can hold ids."""
    return not (pa.types.is_nested(kind) or pa.types.is_null(kind))


def is_number(kind: pa.DataType) -> bool:
    """Whether a column of this type holds numbers."""
    return pa.types.is_integer(kind) or pa.types.is_floating(kind)


def is_time(kind: pa.DataType) -> bool:
    """Whether a column of this type can hold times."""
    return is_number(kind) or pa.types.is_timestamp(kind) or pa.types.is_date(kind)


def times(column: pa.ChunkedArray) -> list:
    """Times in whole seconds, and numbers rounded down; None and NaN as they are."""
    kind, factor, per = column.type, 1, 1
    if pa.types.is_timestamp(kind):
        per = {"s": 1, "ms": 10**3, "us": 10**6, "ns": 10**9}[kind.unit]
        column = column.cast(pa.int64())
    elif pa.types.is_date32(kind):
        column, factor = column.cast(pa.int32()), 86400
    elif pa.types.is_date64(kind):
        column, per = column.cast(pa.int64()), 10**3
    return [
        value if gap(value) or math.isinf(value) else math.floor(value * factor // per)
        for value in column.to_pylist()
    ]


def expected(log: Path, items: Path, recipe: Recipe) -> Counter | None:
    """Split, user, item and history of each click that must be there; None for unusable tables."""
    try:
        known = read(items, ["item_id", "title", "tags"])
        table = read(log, [*COLUMNS, "rating"])
        ids, item, user = known["item_id"], table["item_id"], table["user_id"]
        for column in known.column_names[1:]:
            known[column].cast(pa.string()).to_pylist()
        if "title" not in known.column_names or not is_time(table["timestamp"].type):
            return None
        if not all(is_id(column.type) for column in (ids, item, user)):
            return None
        rating = None
        if recipe.min_rating is not None:
            if not is_number(table["rating"].type):
                return None
            rating = table["rating"].to_pylist()
        for column in (ids, item, user):
            if not is_number(column.type):
                column.cast(pa.string()).to_pylist()
        rows = [
            row
            for row in range(len(table))
            if rating is None or (rating[row] is not None and rating[row] >= recipe.min_rating)
        ]
        time = times(table["timestamp"])
        used = [ids.to_pylist(), *([c[row] for row in rows] for c in (
            item.to_pylist(), user.to_pylist(), time))]  # fmt: skip
        if any(gap(value) for values in used for value in values) or len(set(used[0])) < len(ids):
            return None
        if any(abs(when) >= 2**63 for when in used[3]):
            return None
        if ids.type != item.type:
            ids, item = ids.cast(pa.string()), item.cast(pa.string())
        ids, item, user = set(ids.to_pylist()), item.to_pylist(), user.to_pylist()
        clicks = sorted((user[row], time[row], row) for row in rows if item[row] in ids)
    except Exception:
        return None
    first, by_user = set(), {}
    for who, when, row in clicks:
        if (who, item[row]) not in first:
            first.add((who, item[row]))
            by_user.setdefault(who, []).append((when, item[row]))
    return placed(by_user, recipe, len(ids))


def placed(by_user: dict, recipe: Recipe, n_items: int) -> Counter | None:
    """Each click with its split and history; None if a split is empty or negatives run out."""
    moments = sorted(when for clicks in by_user.values() for when, _ in clicks)
    if not moments:
        return None
    valid_from, test_from = moments[int(0.8 * len(moments))], moments[int(0.9 * len(moments))]
    result, learned = Counter(), set()
    for who, clicks in by_user.items():
        for number, (when, item) in enumerate(clicks):
            split = "train"
            if recipe.split == "date":
                split = "test" if when >= test_from else "valid" if when >= valid_from else "train"
            elif len(clicks) >= 3:
                split = {1: "test", 2: "valid"}.get(len(clicks) - number, "train")
            history = [other for earlier, other in clicks if earlier < when][-recipe.max_history :]
            result[split, text(who), text(item), tuple(map(text, history))] += 1
            learned |= {item} if split == "train" else set()
    if {split for split, *_ in result} != {"train", "valid", "test"}:
        return None
    for clicks in by_user.values() if recipe.negatives else ():
        own = {item for _, item in clicks}
        left = n_items - len(own) if recipe.sampling == "uniform" else len(learned - own)
        if left == 0:
            return None
    return result


def text(value: object) -> str:
    """An id as text, alike whether it is 7, 7.0 or "7"."""
    return str(int(value)) if isinstance(value, float) and value.is_integer() else str(value)


def gap(value: object) -> bool:
    """Whether a value is missing."""
    return value is None or value != value


def difference(folder: Path, wanted: Counter, recipe: Recipe) -> str:
    """What of an imported dataset differs from the clicks that must be there."""
    dataset = Dataset.load(folder)
    table = pq.read_table(folder / "item_ids.parquet")
    ids = table["original_id"]
    items = dict(zip(table["item_id"].to_pylist(), map(text, ids.to_pylist()), strict=True))
    users = None
    if (folder / "user_ids.parquet").exists():
        numbers, originals = pq.read_table(folder / "user_ids.parquet").columns
        users = dict(zip(numbers.to_pylist(), map(text, originals.to_pylist()), strict=True))
    clicked, found, shown = {}, Counter(), []
    for split, rows in dataset.splits.items():
        for row in range(len(rows)):
            who = int(rows.user[row])
            who = users[who] if users is not None else text(who)
            item = items[int(rows.target[row])]
            if row % (1 + recipe.negatives) == 0:
                history = tuple(items[int(click)] for click in rows.history(row))
                found[split, who, item, history] += 1
                clicked.setdefault(who, set()).add(item)
                if split != "test" and rows.label[row] != 1:
                    return "a click that is not labelled 1"
            else:
                shown.append((who, item))
                if split != "test" and rows.label[row] != 0:
                    return "a negative that is not labelled 0"
    if found != wanted:
        return f"clicks {sorted(found - wanted)[:2]}, expected {sorted(wanted - found)[:2]}"
    if any(item in clicked[who] for who, item in shown):
        return "a negative that its user clicked"
    return ""
