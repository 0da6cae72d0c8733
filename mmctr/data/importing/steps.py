"""Import a click log, items, covers and embeddings as a dataset in the challenge's files.

Time runs one way: a row's history holds clicks before its target's time only, popularity levels
come from train clicks only, and a negative is an item that its user never clicked in any split.
"""

import json
import shutil
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.parquet as pq
from pydantic import Field, NonNegativeInt, PositiveInt

from mmctr.config import Config
from mmctr.data import schema
from mmctr.data.dataset import slice_positions
from mmctr.data.importing.negatives import NegativeSampler
from mmctr.errors import ConfigError, DataError, first_line
from mmctr.files import atomic_folder, write_json

TAGS = 5  # tags an item keeps
CHUNK = 200_000  # impression groups written at once
EMBEDDING_ROWS = 1 << 14  # items whose embeddings are written at once


class Recipe(Config):
    """How a log becomes a dataset; kept in dataset.json.

    split: "last-two" takes each user's last click for test and the one before for valid;
    "date" takes clicks from test_from on for test and from valid_from on for valid (seconds, or
    the log's own unit; by default the times that 90% and 80% of the clicks precede).
    text_embedding_column, image_embedding_column: of the features table, which strategies v1 to
    v4 fuse; every other embedding there is for a strategy provided:COLUMN.
    """

    user_column: str = "user_id"
    item_column: str = "item_id"
    time_column: str = "timestamp"
    rating_column: str = "rating"
    title_column: str = "title"
    tags_column: str = "tags"
    text_embedding_column: str = "txt_emb"
    image_embedding_column: str = "img_emb"
    min_rating: float | None = None
    split: Literal["last-two", "date"] = "last-two"
    valid_from: int | None = None
    test_from: int | None = None
    negatives: NonNegativeInt = 3
    sampling: schema.Sampling = "uniform"
    max_history: PositiveInt = 100
    seed: int = Field(0, ge=0)


@dataclass(frozen=True)
class Clicks:
    """A log sorted by user and time: int64 arrays, one row a click.

    user: as in the log, or numbered from 1. item: new ids. time: any unit. start: where the
    user's clicks begin. before: the first click at the same time, so that start..before are the
    clicks that happened earlier.
    """

    user: np.ndarray
    item: np.ndarray
    time: np.ndarray
    start: np.ndarray
    before: np.ndarray


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
    table = _read(items, [recipe.item_column, recipe.title_column], [recipe.tags_column, "genres"])
    original = table[recipe.item_column]
    _require_ids(original, items, recipe.item_column)
    _require_unique(original, items, recipe.item_column)
    for place, column in enumerate(table.column_names[1:], start=1):
        text = _as_text(table[column], items, column).fill_null("")
        table = table.set_column(place, column, text)
    log = _read(
        interactions,
        [recipe.user_column, recipe.item_column, recipe.time_column],
        [recipe.rating_column],
    )
    clicks, users, counts = _clicks(log, original, interactions, recipe)
    split = _split(clicks, recipe)
    train_clicks = np.bincount(clicks.item[split == "train"], minlength=len(original) + 1)
    levels = popularity_levels(train_clicks)
    negatives = sample_negatives(clicks, train_clicks, recipe)
    embeddings = _embeddings(features, original, recipe) if features else Embeddings()
    with atomic_folder(out) as temporary:
        nested = temporary / schema.NESTED_FOLDER
        nested.mkdir()
        n_tags = _write_items(temporary, table, recipe, levels, embeddings)
        for name in schema.SPLITS:
            rows = np.flatnonzero(split == name)
            path = nested / f"{name}.parquet"
            _write_split(path, clicks, rows, negatives, levels, recipe)
        ids = pa.table({"item_id": np.arange(1, len(original) + 1), "original_id": original})
        pq.write_table(ids, temporary / "item_ids.parquet")
        if users is not None:
            ids = pa.table({"user_id": np.arange(1, len(users) + 1), "original_id": users})
            pq.write_table(ids, temporary / "user_ids.parquet")
        counts |= {"items": len(original), "tags": n_tags}
        counts |= {name: int((split == name).sum()) for name in schema.SPLITS}
        counts["covers"] = _copy_covers(covers, original, temporary / "item_images")
        counts |= embeddings.counts
        facts = {"recipe": recipe.model_dump(), "counts": counts}
        facts["sources"] = [str(path) for path in (interactions, items, covers, features) if path]
        if embeddings.encoders:
            facts["encoders"] = embeddings.encoders
        write_json(temporary / "dataset.json", facts)
    return facts


def popularity_levels(clicks: np.ndarray) -> np.ndarray:
    """likes_level and views_level of items by their clicks, of which a log knows no finer kinds.

    int64 [2, items]: 0 for items never clicked, 1..10 for others, the same for equally many clicks.
    likes_level cuts the clicked items into tenths, the unpopular ones finely; views_level cuts the
    clicks into tenths, which tells apart the few items that most of them go to.
    """
    levels = np.zeros((2, len(clicks)), dtype=np.int64)
    clicked = clicks > 0
    amounts, place, items = np.unique(clicks[clicked], return_inverse=True, return_counts=True)
    for level, mass in zip(levels, (items, items * amounts.astype(np.int64)), strict=True):
        upto = mass.cumsum()
        level[clicked] = -(-10 * upto // upto[-1:])[place]
    return levels


def sample_negatives(clicks: Clicks, train_clicks: np.ndarray, recipe: Recipe) -> np.ndarray:
    """Items that each click's user never clicked, int64 [clicks, negatives].

    train_clicks: int64 [items + 1]. Raises ConfigError for a user who clicked every item that
    could be drawn.
    """
    number = np.cumsum(clicks.start == np.arange(len(clicks.start))) - 1
    sampler = NegativeSampler.of(recipe.sampling, train_clicks, number, clicks.item)
    rng = np.random.default_rng(recipe.seed)
    drawn = sampler.draw(np.repeat(number, recipe.negatives), rng)
    drawn = drawn.reshape(len(number), recipe.negatives)
    nothing_left = np.flatnonzero((drawn == 0).any(axis=1))
    if len(nothing_left):
        raise ConfigError(
            f"User {clicks.user[nothing_left[0]]} clicked every item, so there are no negatives to "
            "draw: leave the user out, or import with --negatives 0."
        )
    return drawn


def _clicks(
    log: pa.Table, original: pa.ChunkedArray, path: Path, recipe: Recipe
) -> tuple[Clicks, pa.Array | None, dict[str, int]]:
    """The clicks of a log, the original user ids if they had to be numbered, and counts."""
    counts = {"interactions": len(log)}
    if recipe.min_rating is not None:
        if recipe.rating_column not in log.column_names:
            raise DataError(
                f"{path} has no column {recipe.rating_column}, which min_rating needs: name the "
                "rating column or leave min_rating out."
            )
        if not _is_number(log[recipe.rating_column].type):
            found = log[recipe.rating_column].type
            raise DataError(
                f"{path}, column {recipe.rating_column}: found {found}, expected numbers."
            )
        rating = log[recipe.rating_column].cast(pa.float64(), safe=False)
        log = log.filter(pc.greater_equal(rating, recipe.min_rating))
        counts["below_min_rating"] = counts["interactions"] - len(log)
    for column in (recipe.user_column, recipe.item_column, recipe.time_column):
        missing = pc.is_null(log[column], nan_is_null=True)
        if pc.any(missing).as_py():
            row = pc.index(missing, True).as_py()
            raise DataError(f"{path}, column {column}, row {row}: found no value, expected one.")
    for column in (recipe.user_column, recipe.item_column):
        _require_ids(log[column], path, column)
    item = _places(log[recipe.item_column], original)
    known = item.is_valid().to_numpy()
    counts["of_unknown_items"] = int((~known).sum())
    item = item.filter(pa.array(known)).to_numpy().astype(np.int64) + 1
    user, users = _numbers(log[recipe.user_column])
    time = _times(log[recipe.time_column], path, recipe.time_column)
    user, time = user[known], time[known]
    if not len(item):
        raise DataError(f"{path} has no click on an item of the items table: check the id columns.")
    order = np.lexsort((np.arange(len(item)), time, user))
    # A user clicks an item once: only the first time tells of a choice among unseen items.
    repeated = pd.DataFrame({"user": user[order], "item": item[order]}).duplicated().to_numpy()
    counts["repeated"] = int(repeated.sum())
    order = order[~repeated]
    user, item, time = user[order], item[order], time[order]
    new_user = np.r_[True, user[1:] != user[:-1]]
    new_time = new_user | np.r_[True, time[1:] != time[:-1]]
    at = np.arange(len(item))
    start = np.maximum.accumulate(np.where(new_user, at, 0))
    before = np.maximum.accumulate(np.where(new_time, at, 0))
    counts |= {"clicks": len(item), "users": int(new_user.sum())}
    return Clicks(user, item, time, start, before), users, counts


def _split(clicks: Clicks, recipe: Recipe) -> np.ndarray:
    """The split of each click, as text [clicks]."""
    split = np.full(len(clicks.item), "train", dtype="<U5")
    if recipe.split == "last-two":
        end = np.r_[clicks.start[1:] != clicks.start[:-1], True].nonzero()[0]
        last = end[np.searchsorted(end, np.arange(len(split)))]
        from_last = last - np.arange(len(split))
        enough = last - clicks.start >= 2  # someone with fewer clicks is there to learn from
        split[enough & (from_last == 1)] = "valid"
        split[enough & (from_last == 0)] = "test"
        if not enough.any():
            raise ConfigError(
                "No user has three clicks, so valid and test would be empty: import with "
                "--split date."
            )
        return split
    times = np.sort(clicks.time)
    early, late = (times[int(share * len(times))] for share in (0.8, 0.9))
    valid_from = early if recipe.valid_from is None else recipe.valid_from
    test_from = late if recipe.test_from is None else recipe.test_from
    split[clicks.time >= valid_from] = "valid"
    split[clicks.time >= test_from] = "test"
    missing = [name for name in schema.SPLITS if not (split == name).any()]
    if missing:
        raise ConfigError(
            f"No click falls into {missing[0]} with valid_from {valid_from} and test_from "
            f"{test_from}: choose times between {times[0]} and {times[-1]}."
        )
    return split


def _write_split(
    path: Path,
    clicks: Clicks,
    rows: np.ndarray,
    negatives: np.ndarray,
    levels: np.ndarray,
    recipe: Recipe,
) -> None:
    """Write one split, group after group: the click first, then its negatives."""
    types = [("user_id", pa.int64()), ("item_seq", pa.list_(pa.int32())), ("item_id", pa.int64())]
    types += [("likes_level", pa.int8()), ("views_level", pa.int8()), ("label", pa.int8())]
    drawn = {schema.NEGATIVES: recipe.sampling.encode()} if recipe.negatives else None
    form = pa.schema(types, metadata=drawn)
    shown = 1 + negatives.shape[1]
    label = np.arange(shown) == 0
    with pq.ParquetWriter(path, form, compression="zstd") as writer:
        for part in np.array_split(rows, max(1, -(-len(rows) // CHUNK))):
            first = np.maximum(clicks.start[part], clicks.before[part] - recipe.max_history)
            lengths = np.repeat(clicks.before[part] - first, shown)
            offsets = np.r_[0, np.cumsum(lengths)]
            flat = slice_positions(np.repeat(first, shown), lengths)
            history = clicks.item[flat].astype(np.int32)
            item = np.column_stack([clicks.item[part], negatives[part]]).ravel()
            columns = [
                np.repeat(clicks.user[part], shown),
                pa.ListArray.from_arrays(offsets.astype(np.int32), history),
                item,
                *levels[:, item],
                np.tile(label, len(part)),
            ]
            arrays = [pa.array(c).cast(t) for c, t in zip(columns, form.types, strict=True)]
            writer.write_table(pa.Table.from_arrays(arrays, schema=form))


def _embeddings(path: Path, original: pa.ChunkedArray, recipe: Recipe) -> Embeddings:
    """Every column of the features table that holds lists of numbers, in the items' order."""
    key = recipe.item_column
    ids = _read(path, [key], [])[key]
    _require_unique(ids, path, key)
    form = schema.open_parquet(path).schema_arrow
    columns = {column.name: schema.holds_vectors(column.type) for column in form}
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
    place = _places(ids, original)
    known = place.is_valid().to_numpy()
    place = place.filter(pa.array(known)).to_numpy()
    if not len(place):
        raise DataError(f"{path} has no row of an item of the items table: check the id columns.")

    def joined(column: str) -> np.ndarray:
        values = schema.read_columns(path, [], vectors=column)[column]
        values = schema.matrix(values, path, column, np.float32)
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


def _write_items(
    folder: Path, table: pa.Table, recipe: Recipe, levels: np.ndarray, embeddings: Embeddings
) -> int:
    """Write the tables of items and of tags; how many tags there are."""
    names = [recipe.tags_column, "genres"]
    column = next((name for name in names if name in table.column_names), None)
    texts = table[column].to_pandas() if column else pd.Series("", index=range(len(table)))
    words = texts.astype(str).str.split(r"[|,]").explode().str.strip()
    words = words[words != ""]
    # The most frequent tag has number 1; tags of equal frequency follow the alphabet.
    counts = words.value_counts().rename_axis("name").reset_index()
    counts = counts.sort_values(["count", "name"], ascending=[False, True], ignore_index=True)
    number = pd.Series(counts.index + 1, index=counts["name"])
    tags = np.zeros((len(table) + 1, TAGS), dtype=np.int64)
    place = words.groupby(level=0).cumcount().to_numpy()
    kept = place < TAGS
    tags[words.index.to_numpy()[kept] + 1, place[kept]] = number[words[kept]].to_numpy()
    ids = np.arange(len(table) + 1)
    feature = {
        "item_id": ids[1:],
        "item_title": table[recipe.title_column],
        "item_tags": list(tags[1:]),
        "likes_level": levels[0, 1:],
        "views_level": levels[1, 1:],
    }
    written = pa.table(feature | _columns(embeddings.features))
    if embeddings.encoders:
        facts = json.dumps(embeddings.encoders).encode()
        written = written.replace_schema_metadata({schema.ENCODERS: facts})
    pq.write_table(written, folder / "item_feature.parquet", row_group_size=EMBEDDING_ROWS)
    if embeddings.provided:
        provided = pa.table({"item_id": ids[1:]} | _columns(embeddings.provided))
        pq.write_table(provided, folder / "item_emb.parquet", row_group_size=EMBEDDING_ROWS)
    info = pa.table({"item_id": ids, "item_tags": list(tags)})
    pq.write_table(info, folder / schema.NESTED_FOLDER / "item_info.parquet")
    vocabulary = pa.table({"tag": np.arange(1, len(counts) + 1), "name": counts["name"]})
    pq.write_table(vocabulary, folder / "tags.parquet")
    return len(counts)


def _columns(embeddings: dict[str, np.ndarray]) -> dict[str, pa.ChunkedArray]:
    """Matrices as list columns; in chunks, because a list column counts its values in 32 bits."""
    return {
        name: pa.chunked_array(
            schema.float_lists(values[start : start + EMBEDDING_ROWS])
            for start in range(0, len(values), EMBEDDING_ROWS)
        )
        for name, values in embeddings.items()
    }


def _copy_covers(covers: Path | None, original: pa.ChunkedArray, folder: Path) -> int:
    """Copy the covers named by original item ids under their new numbers; how many there are."""
    if covers is None:
        return 0
    if not covers.is_dir():
        raise DataError(f"{covers} is not a folder: name the one that holds the covers.")
    folder.mkdir()
    number = {str(name): new for new, name in enumerate(original.to_pylist(), start=1)}
    copied = 0
    for path in sorted(covers.iterdir()):
        if path.suffix.lower() in schema.COVER_SUFFIXES and path.stem in number:
            shutil.copyfile(path, folder / f"{number[path.stem]}{path.suffix.lower()}")
            copied += 1
    return copied


def _read(path: Path, required: list[str], optional: list[str]) -> pa.Table:
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
                f"{path} has no column {missing[0]}, only {schema.listed(names)}: name the column "
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


def _places(ids: pa.ChunkedArray, original: pa.ChunkedArray) -> pa.ChunkedArray:
    """Where ids stand in the items table, counted from 0; null for those that do not."""
    if ids.type != original.type:
        ids, original = ids.cast(pa.string()), original.cast(pa.string())
    return pc.index_in(ids, original.combine_chunks())


def _require_ids(ids: pa.ChunkedArray, path: Path, column: str) -> None:
    """Raise DataError unless ids are numbers or can be read as text."""
    if not (_is_number(ids.type) or pa.types.is_null(ids.type)):
        _as_text(ids, path, column)


def _as_text(values: pa.ChunkedArray, path: Path, column: str) -> pa.ChunkedArray:
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


def _is_number(kind: pa.DataType) -> bool:
    return pa.types.is_integer(kind) or pa.types.is_floating(kind)


def _require_unique(ids: pa.ChunkedArray, path: Path, column: str) -> None:
    wrong = ids.to_pandas().duplicated() | pc.is_null(ids, nan_is_null=True).to_numpy()
    if wrong.any():
        row = int(wrong.to_numpy().argmax())
        raise DataError(
            f"{path}, column {column}, row {row}: found {ids[row]}, expected each item once."
        )


def _numbers(ids: pa.ChunkedArray) -> tuple[np.ndarray, pa.Array | None]:
    """Ids as whole numbers; others are numbered from 1, and their dictionary is returned too."""
    if pa.types.is_integer(ids.type) and (pc.max(ids).as_py() or 0) < 2**63:
        return ids.to_numpy().astype(np.int64), None
    encoded = ids.combine_chunks().dictionary_encode()
    return encoded.indices.to_numpy().astype(np.int64) + 1, encoded.dictionary


def _times(values: pa.ChunkedArray, path: Path, column: str) -> np.ndarray:
    """Times as int64: numbers as they are (rounded down), dates in seconds."""
    if pa.types.is_timestamp(values.type) or pa.types.is_date(values.type):
        return values.to_numpy().astype("datetime64[s]").astype(np.int64)
    if _is_number(values.type):
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
