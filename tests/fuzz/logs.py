"""Small click logs and items tables, ways to spoil them, and a second importer in plain Python."""

import csv
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


def read(path: Path, columns: list[str]) -> dict[str, list]:
    """The named columns of a table that exist, as lists: of a CSV file as text."""
    if path.suffix == ".csv":
        with path.open(newline="", encoding="utf-8") as file:
            header, *rows = list(csv.reader(file))
        if any(header.count(name) > 1 for name in columns):
            raise ValueError("repeated")
        rows = [row for row in rows if len(row) == len(header)]
        return {
            name: [row[header.index(name)] or None for row in rows]
            for name in columns
            if name in header
        }
    names = pq.read_schema(path).names
    if any(names.count(name) > 1 for name in columns):
        raise ValueError("repeated")
    table = pq.read_table(path, columns=[name for name in columns if name in names])
    kept = {}
    for name in table.column_names:
        kind = table[name].type
        is_id = name in ("item_id", "user_id")
        if is_id and not (is_number(kind) or is_text(kind)):
            raise ValueError(f"no ids: {kind}")
        if name == "timestamp" and not (is_time(kind) or is_text(kind)):
            raise ValueError(f"no times: {kind}")
        is_date = name == "timestamp" and not (is_number(kind) or is_text(kind))
        kept[name] = dates(table[name]) if is_date else table[name].to_pylist()
    return kept


def contradicts_itself(path: Path) -> bool:
    """Whether a Parquet file claims more than it has, or what Arrow alone cannot read."""
    if path.suffix == ".csv":
        return False
    try:
        about = pq.read_metadata(path)
    except pa.ArrowException:
        return True
    groups = [about.row_group(number) for number in range(about.num_row_groups)]
    columns = [group.column(n) for group in groups for n in range(group.num_columns)]
    values = max((column.num_values for column in columns), default=0)
    size = max((column.total_compressed_size for column in columns), default=0)
    rows = max(sum(group.num_rows for group in groups), 1)
    return values > 1000 * rows or size > path.stat().st_size


def is_text(kind: pa.DataType) -> bool:
    """Whether a column of this type holds text."""
    return pa.types.is_string(kind) or pa.types.is_large_string(kind)


def is_number(kind: pa.DataType) -> bool:
    """Whether a column of this type holds numbers."""
    return pa.types.is_integer(kind) or pa.types.is_floating(kind)


def is_time(kind: pa.DataType) -> bool:
    """Whether a column of this type can hold times."""
    return is_number(kind) or pa.types.is_timestamp(kind) or pa.types.is_date(kind)


def dates(column: pa.ChunkedArray) -> list:
    """Dates as np.timedelta64 since 1970, in nanoseconds."""
    return [None if v is None else np.timedelta64(v, "ns") for v in nanoseconds(column)]


def nanoseconds(column: pa.ChunkedArray) -> list:
    """Dates as whole numbers."""
    kind = column.type
    if pa.types.is_timestamp(kind):
        factor = {"s": 10**9, "ms": 10**6, "us": 10**3, "ns": 1}[kind.unit]
        return [v if v is None else v * factor for v in column.cast(pa.int64()).to_pylist()]
    if pa.types.is_date32(kind):
        return [v if v is None else v * 86400 * 10**9 for v in column.cast(pa.int32()).to_pylist()]
    return [v if v is None else v * 10**6 for v in column.cast(pa.int64()).to_pylist()]


def moments(values: list) -> list:
    """Times that can be compared, None for those that are none; raises if there is not one."""
    if any(isinstance(value, np.timedelta64) for value in values):
        return values
    texts = [value for value in values if isinstance(value, str)]
    if texts:
        try:
            values = [None if value is None else float(value) for value in values]
        except ValueError:  # dates, all of one form here
            return [None if v is None else moment(v) for v in values]
    found = [v if v is not None and v == v and abs(v) != math.inf else None for v in values]
    sizes = sorted(abs(value) for value in found if value is not None)
    middle = sizes[len(sizes) // 2] if sizes else 0
    limits = {1e5: 86400 * 10**9, 1e11: 10**9, 1e14: 10**6, 1e17: 10**3}  # in nanoseconds
    unit = next((size for limit, size in limits.items() if middle < limit), 1)
    found = [v if v is not None and abs(v * unit) < 2**63 else None for v in found]
    if all(value is None for value in found):
        raise ValueError("no times")
    return found


def moment(value: str) -> np.timedelta64 | None:
    """A date as time since 1970; None for what is none."""
    try:
        return np.datetime64(value.removesuffix("Z"), "ns") - np.datetime64(0, "ns")
    except ValueError:
        return None


def expected(log: Path, items: Path, recipe: Recipe) -> Counter | None:
    """Split, user, item and history of each click that must be there; None for unusable tables."""
    try:
        known, table = read(items, ["item_id", "title", "tags"]), read(log, [*COLUMNS, "rating"])
        ids = [identity(value) for value in known["item_id"]]
        if None in ids or len(set(ids)) < len(ids):
            return None
        user, item = ([identity(v) for v in table[n]] for n in ("user_id", "item_id"))
        time = moments(table["timestamp"])
        rating = [5.0] * len(item)
        if recipe.min_rating is not None:
            rating = [None if v is None else float(v) for v in table["rating"]]
        order = {name: n for n, name in enumerate(sorted(ids, key=lambda i: (len(i), i)))}
    except Exception:
        return None
    clicks = sorted(
        (u, t, order[i], i)
        for u, i, t, r in zip(user, item, time, rating, strict=True)
        if None not in (u, i, t) and i in order
        if recipe.min_rating is None or (r is not None and r >= recipe.min_rating)
    )
    first, by_user = set(), {}
    for who, when, _, what in clicks:
        if (who, what) not in first:
            first.add((who, what))
            by_user.setdefault(who, []).append((when, what))
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
            result[split, who, item, tuple(history)] += 1
            learned |= {item} if split == "train" else set()
    if {split for split, *_ in result} != {"train", "valid", "test"}:
        return None
    for clicks in by_user.values() if recipe.negatives else ():
        own = {item for _, item in clicks}
        left = n_items - len(own) if recipe.sampling == "uniform" else len(learned - own)
        if left == 0:
            return None
    return result


def identity(value: object) -> str | None:
    """An id as text; None for a missing one; raises for a number with a fraction."""
    if value is None or value != value or value == "":
        return None
    if isinstance(value, float):
        if not value.is_integer():
            raise ValueError(f"no id: {value}")
        return str(int(value))
    return str(value)


def difference(folder: Path, wanted: Counter, recipe: Recipe) -> str:
    """What of an imported dataset differs from the clicks that must be there."""
    dataset = Dataset.load(folder)
    items, users = (
        dict(
            zip(
                *(column.to_pylist() for column in pq.read_table(folder / name).columns),
                strict=True,
            )
        )
        for name in ("item_ids.parquet", "user_ids.parquet")
    )
    clicked, found, shown = {}, Counter(), []
    for split, rows in dataset.splits.items():
        for row in range(len(rows)):
            who = users[int(rows.user[row])]
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
