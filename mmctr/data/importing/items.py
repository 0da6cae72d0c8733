"""The items of a log: ids, titles, tags and ready-made embeddings, in an order of their own."""

import ast
import csv
import json
import re
from collections.abc import Collection
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from mmctr.data import schema
from mmctr.data.importing.labels import text
from mmctr.data.importing.recipe import Recipe
from mmctr.data.importing.sources import Source, id_text, quoted
from mmctr.data.importing.times import nanoseconds
from mmctr.data.parquet import float_lists, listed, matrix
from mmctr.errors import DataError

SIGNS = "|;,"  # that join tags in one text
QUOTED = r"'(?:[^'\\\n]|\\.)*'|\"(?:[^\"\\\n]|\\.)*\""
ATOM = rf"{QUOTED}|None|-?[0-9][0-9.]*"  # of lists as Python and NumPy write them
ATOMS = re.compile(rf"\s*(?:(?:{ATOM})(?:[\s,]+(?:{ATOM}))*[\s,]*)?")
TUPLE = re.compile(rf"\(\s*(?:(?:{QUOTED})(?:\s*,\s*(?:{QUOTED}))*,?\s*)?\)")
EMBEDDINGS = {  # the options that name them, and what strategies v1 to v4 call them
    "text_embedding_column": schema.TEXT_COLUMN,
    "image_embedding_column": schema.IMAGE_COLUMN,
}


@dataclass(frozen=True)
class Items:
    """Items numbered from 1 by their ids: shorter ones first, then by the alphabet.

    ids, titles: text [items]. tags: a list of words each. available: int64 [items], nanoseconds
    since 1970, null where not known; None if the table does not tell. said: sentences on what was
    understood.
    Whatever order or file they come in, an id has the same number.
    """

    ids: pa.Array
    titles: pa.Array
    tags: list[list[str]]
    available: pa.Array | None = None
    said: list[str] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.ids)


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


def read_items(source: Source, recipe: Recipe) -> Items:
    """The items of a table, which becomes the table `items` (id, number) for others to join.

    Titles and tags may be missing. Raises DataError for ids that are missing or there twice.
    """
    key = recipe.items_id_column or recipe.item_column
    source.require(key)
    for option in ("title_column", "tags_column", "items_time_column"):
        if option in recipe.model_fields_set:
            source.require(getattr(recipe, option))
    title = recipe.title_column if recipe.title_column in source.columns else None
    tag_names = [n for n in (recipe.tags_column, "genres") if n in source.columns]
    tags = tag_names[0] if tag_names else None
    since = recipe.items_time_column if recipe.items_time_column in source.columns else None
    source.require(*filter(None, (title, tags, since)))
    titles = text(source, title) if title else "''"
    time, came = "NULL", []
    if since:
        time, _, came = nanoseconds(source, since, "when the items came")
    table = source.table(
        f"SELECT {id_text(source, key)} AS id, {titles} AS title, "
        f"{_tags(source, tags) if tags else 'NULL'} AS tags, {time} AS available FROM {{source}} "
        "ORDER BY length(id), id"
    )
    ids = table["id"].combine_chunks().cast(pa.string())
    if ids.null_count:
        raise DataError(
            f"{source.name}, column {key}: found no id in {ids.null_count} rows, expected one for "
            "each item."
        )
    values = ids.to_pylist()
    doubles = [one for one, other in pairwise(values) if one == other]
    if doubles:
        raise DataError(
            f"{source.name}, column {key}: found {doubles[0]} again, expected each item once."
        )
    numbered = pa.table({"id": ids, "number": np.arange(1, len(ids) + 1, dtype=np.int32)})
    source.connection.register("numbered", numbered)
    source.connection.execute("CREATE TABLE items AS SELECT * FROM numbered")
    source.connection.unregister("numbered")
    titles = table["title"].combine_chunks().cast(pa.string()).fill_null("")
    values = table["tags"].to_pylist()
    sign = joining_sign(values)
    words = tag_lists(values, sign)
    wanted = f"{recipe.tags_column} or genres"
    said = [
        f"titles: column {title}" if title else _missing("titles", recipe.title_column),
        _tags_said(tags, sign, words) if tags else _missing("tags", wanted),
    ]
    if not since:
        return Items(ids, titles, words, said=said)
    available = table["available"].combine_chunks().cast(pa.int64())
    unknown = f"; {available.null_count:,} items without" if available.null_count else ""
    said += [f"items came: {came[0]}{unknown}", *came[1:]]
    return Items(ids, titles, words, available, said)


def joining_sign(values: list[Any]) -> str:
    """What joins words in texts: the first of | ; , that any of them has, or else nothing."""
    texts = [value for value in values if isinstance(value, str) and not _is_list(value)]
    return next((sign for sign in SIGNS if any(sign in text for text in texts)), "")


def tag_lists(values: list[Any], sign: str) -> list[list[str]]:
    """Words of each value: a list, a list as JSON or Python writes it, or joined by a sign."""
    lists = [
        value
        if isinstance(value, list)
        else _parsed(value)
        if isinstance(value, str) and _is_list(value)
        else value.split(sign or ",")
        if isinstance(value, str)
        else []
        for value in values
    ]
    return [
        list(dict.fromkeys(w for v in one if v is not None and (w := str(v).strip())))
        for one in lists
    ]


def read_embeddings(source: Source, items: Items, recipe: Recipe) -> Embeddings:
    """Every column of a features table that holds vectors, in the items' order."""
    key = recipe.features_id_column or recipe.items_id_column or recipe.item_column
    source.require(key)
    columns = {
        name: vector for name in source.columns if name != key and (vector := _vector(source, name))
    }
    columns |= _wide(source, key)
    for option in EMBEDDINGS:
        wanted = getattr(recipe, option)
        if wanted not in columns and option in recipe.model_fields_set:
            found = f"found {source.columns[wanted].lower()}" if wanted in source.columns else ""
            raise DataError(
                f"{source.name}, column {wanted}: {found}, expected lists of numbers."
                if found
                else f"{source.name} has no column {wanted}, only {listed(list(source.columns))}: "
                f"set {option} to one of them, or leave it out."
            )
    names = fused_columns(columns, recipe)
    others = [name for name in columns if name not in names.values()]
    if not columns:
        raise DataError(
            f"{source.name} has no column of embeddings, only {listed(list(source.columns))}: "
            "expected lists of numbers, one an item."
        )
    identity = id_text(source, key)
    counts = _join_counts(source, identity, items, key)

    def joined(column: str) -> np.ndarray:
        table = source.table(
            f"SELECT number, {columns[column]} AS vector FROM (SELECT *, {identity} AS own_id FROM "
            "{source}) JOIN items ON own_id = items.id ORDER BY number"
        )
        there = table.filter(table["vector"].is_valid())
        counts["without_a_vector"] = counts.get("without_a_vector", 0) + len(table) - len(there)
        if not len(there):
            raise DataError(f"{source.name}, column {column}: found no vector, expected numbers.")
        path = Path(source.name)
        place = there["number"].to_numpy() - 1
        names = [f"item {own}" for own in items.ids.take(pa.array(place)).to_pylist()]
        values = matrix(there["vector"], path, column, np.float32, names)
        result = np.zeros((len(items), values.shape[1]), dtype=np.float32)
        result[place] = values
        return result

    features = {name: joined(column) for name, column in names.items()}
    provided = {name: joined(name) for name in others}
    file = Path(source.name).name
    encoders = {name: {"model": f"{file}:{c} (ready-made)"} for name, c in names.items()}
    return Embeddings(features, provided, encoders, counts)


def fused_columns(found: Collection[str], recipe: Recipe) -> dict[str, str]:
    """Which of the embeddings that were found strategies v1 to v4 fuse, by what they call them."""
    # The challenge's own name is known too.
    wanted = {name: (getattr(recipe, option), name) for option, name in EMBEDDINGS.items()}
    chosen = {name: [own for own in names if own in found] for name, names in wanted.items()}
    return {name: owns[0] for name, owns in chosen.items() if owns}


def _join_counts(source: Source, identity: str, items: Items, key: str) -> dict[str, int]:
    own = f"SELECT {identity} AS own_id FROM {{source}}"
    source.require_once(identity, key, "each item")
    ((rows, found),) = source.rows(
        f"SELECT count(*), count(number) FROM ({own}) LEFT JOIN items ON own_id = items.id"
    )
    if not found:
        raise DataError(
            f"{source.name} has no row of an item of the items table: check the id columns."
        )
    return {
        "features": found,
        "without_features": len(items) - found,
        "features_of_unknown_items": rows - found,
    }


def _vector(source: Source, column: str) -> str:
    """SQL of a column as lists of floats; empty if it holds none."""
    form, name = source.columns[column], quoted(column)
    number, lists = r"(?:FLOAT|DOUBLE|DECIMAL\(.*\)|U?\w*INT\w*)", r"((?:\[\d*\]){1,2})"
    if depth := re.fullmatch(number + lists, form):
        # A matrix an item, which many models give, is one vector as in Arrow's tensors.
        return f"{name}::FLOAT[]" if depth[1].count("[") == 1 else f"flatten({name}::FLOAT[][])"
    if form in ("VARCHAR", "JSON"):
        words = f"trim({text(source, column)})"
        # As JSON or NumPy writes it, which puts blanks between numbers.
        inner = f"string_split_regex(trim({words}, '[] \n'), '[\\s,]+')"
        vector = f"CASE WHEN {words} <> '' THEN try_cast({inner} AS FLOAT[]) END"
        ((lists, some, short),) = source.rows(
            f"SELECT bool_and(starts_with({words}, '[')) FILTER ({words} <> ''), "
            f"count_if(list_count({vector}) > 0), count_if(contains({words}, '...')) "
            "FROM {source}"
        )
        if lists and some and short:
            raise DataError(
                f"{source.name}, column {column}: found a vector cut short by '...', as NumPy "
                "prints long ones: write all of its numbers."
            )
        return vector if lists and some else ""
    return ""


def _wide(source: Source, key: str) -> dict[str, str]:
    """Vectors in columns of their own, as prefix_0, prefix_1 and so on, by prefix."""
    numbered: dict[str, dict[int, str]] = {}
    for column in source.columns:
        if column != key and (found := re.fullmatch(r"(.+?)[_.]?(\d+)", column)):
            numbered.setdefault(found[1], {})[int(found[2])] = column
    return {
        prefix: _vector_of(source, [columns[place] for place in sorted(columns)])
        for prefix, columns in numbered.items()
        if len(columns) > 1 and max(columns) - min(columns) == len(columns) - 1
    }


def _vector_of(source: Source, columns: list[str]) -> str:
    """SQL of a vector from a column for each number; NULL if all of them are missing."""
    plain = [text(source, c) if source.kind(c) == "JSON" else quoted(c) for c in columns]
    numbers = [f"nullif(try_cast({number} AS FLOAT), 'NaN'::FLOAT)" for number in plain]
    vector = f"[{', '.join(numbers)}]"
    return f"CASE WHEN list_count({vector}) > 0 THEN {vector} END"


def _tags(source: Source, column: str) -> str:
    """SQL of a column of tags: lists as they are, anything else as text."""
    form, name = source.columns[column], quoted(column)
    if form == "JSON[]":
        return f"list_transform({name}, lambda x: x ->> '$')"
    return name if form.endswith("]") else text(source, column)


def _missing(what: str, column: str) -> str:
    return f"{what}: none, there is no column {column}"


def _tags_said(column: str, sign: str, words: list[list[str]]) -> str:
    names = sorted({word for one in words for word in one})
    odd = [name for name in names if sign and any(other in name for other in SIGNS)]
    joined = f", joined by {sign!r}" if sign else ""
    within = f", {len(odd):,} of them with another sign within, such as {odd[0]!r}" if odd else ""
    return f"tags: column {column}{joined}, {len(names):,} names{within}"


def _is_list(text: str) -> bool:
    """Whether a text is a list as JSON, Python, NumPy or Postgres writes it.

    Words in brackets are none: "(no genres listed)".
    """
    text = text.strip()
    return text[:1] + text[-1:] in ("[]", "{}") or bool(TUPLE.fullmatch(text))


def _parsed(text: str) -> list[Any]:
    text = text.strip()
    for read in (json.loads, _atoms, ast.literal_eval):
        try:
            return list(read(text))
        except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
            continue
    line = " ".join(text[1:-1].split())
    words = next(csv.reader([line], skipinitialspace=True, escapechar="\\"), [])
    return [word for word in words if word != "NULL"]


def _atoms(text: str) -> list[Any]:
    """The words of a list with or without commas: Python would join NumPy's words in one."""
    if not ATOMS.fullmatch(text[1:-1]):
        raise ValueError("no list of words and numbers")
    atoms = (atom for atom in re.findall(ATOM, text[1:-1]) if atom != "None")
    return [ast.literal_eval(atom) if atom[0] in "'\"" else atom for atom in atoms]


def embedding_columns(embeddings: dict[str, np.ndarray], rows: int) -> dict[str, pa.ChunkedArray]:
    """Matrices as list columns; in chunks, because a list column counts its values in 32 bits."""
    return {
        name: pa.chunked_array(
            float_lists(values[start : start + rows]) for start in range(0, len(values), rows)
        )
        for name, values in embeddings.items()
    }
