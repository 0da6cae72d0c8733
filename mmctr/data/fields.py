"""Fields beyond the challenge's: what else is known of an item, of a user, and of a row's context.

Files hold values as they are. What a model sees are codes: a category's place in the vocabulary, or
a number's bin, both learned from train; 0 stands for what train does not know.
"""

import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd
import pyarrow as pa
from pydantic import TypeAdapter, ValidationError

from mmctr.data import parquet, schema
from mmctr.errors import DataError, first_line

Owner = Literal["item", "user", "context"]
BINS = 16  # of numbers: about as many train values in each
UNKNOWN = "unknown"


@dataclass(frozen=True)
class Field:
    """A field with its vocabulary: the values of a category, or the borders of a number's bins.

    values: code 1 is the first. borders: code 1 is below the first. One of them is None.
    """

    name: str
    owner: Owner
    values: tuple[str, ...] | None = None
    borders: tuple[float, ...] | None = None

    @property
    def title(self) -> str:
        """Its name with what it is known of, because two owners may have fields of one name."""
        return f"{self.name} ({self.owner})"

    @property
    def kind(self) -> str:
        """What its column holds, in the words of `schema`."""
        return schema.NUMBER if self.values is None else schema.TEXT

    @property
    def size(self) -> int:
        """How many codes there are."""
        return 1 + (len(self.borders) + 1 if self.values is None else len(self.values))

    def codes(self, values: pa.Array | pa.ChunkedArray) -> np.ndarray:
        """The code of each value, int32 [n]."""
        if self.values is None:
            numbers = values.cast(pa.float64()).to_numpy(zero_copy_only=False)
            codes = 1 + np.searchsorted(self.borders, numbers, side="right")
            return np.where(np.isfinite(numbers), codes, 0).astype(np.int32)
        found = pd.Index(self.values).get_indexer(values.to_pandas())
        return (found + 1).astype(np.int32)

    def labels(self) -> list[str]:
        """What each code stands for, to be shown."""
        if self.values is not None:
            return [UNKNOWN, *self.values]
        if not self.borders:
            return [UNKNOWN, "any"]
        shown = [f"{border:g}" for border in self.borders]
        between = [f"{low} to {high}" for low, high in pairwise(shown)]
        return [UNKNOWN, f"below {shown[0]}", *between, f"from {shown[-1]}"]


def column_of(field_name: str) -> str:
    """The column of a field, beside which others have names of their own: item_id, label."""
    return f"field_{field_name}"


def as_json(fields: Iterable[Field]) -> list[dict[str, Any]]:
    """Vocabularies as JSON has them: `fields_of` reads them."""
    return json.loads(json.dumps([asdict(field) for field in fields]))


def load_fields(folder: Path) -> tuple[Field, ...]:
    """The fields of a dataset: of items, users and context, in this order; mostly none."""
    path = schema.find_file(folder, schema.FIELDS)
    if path is None:
        return ()
    try:
        return fields_of(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, RecursionError) as error:
        raise DataError(
            f"{path} is damaged ({first_line(error)}): import the log again."
        ) from error


def fields_of(value: object) -> tuple[Field, ...]:
    """Fields as JSON has them; ValueError for anything else."""
    try:
        found = TypeAdapter(tuple[Field, ...]).validate_python(value)
    except ValidationError as error:
        problem = error.errors()[0]
        where = ".".join(map(str, problem["loc"]))
        raise ValueError(f"{where}: {problem['msg']}") from None
    for field in found:
        if (field.values is None) == (field.borders is None):
            raise ValueError(f"{field.name} needs either values or borders")
        if field.borders is not None and not np.all(np.diff(field.borders) > 0):
            raise ValueError(f"{field.name} has borders that do not rise")
        if field.values is not None and len(set(field.values)) < len(field.values):
            raise ValueError(f"{field.name} has a value twice")
    names = [(field.owner, field.name) for field in found]
    if len(set(names)) < len(names):
        raise ValueError("a field is there twice")
    order = ("item", "user", "context")
    return tuple(sorted(found, key=lambda field: order.index(field.owner)))


def require_fields(wanted: Iterable[Field], own: Iterable[Field], folder: Path) -> None:
    """Raise DataError unless the files of a folder, whose own fields are given, hold those wanted.

    Vocabularies may differ: files hold values, and any vocabulary gives them codes.
    """
    kinds = {(field.owner, field.name): field.kind for field in own}
    for field in wanted:
        found = kinds.get((field.owner, field.name))
        if found == field.kind:
            continue
        holds = "has no such field" if found is None else f"has {found} there"
        form = "" if found is None else ":category" if field.kind == schema.TEXT else ":number"
        raise DataError(
            f"{folder} {holds}: {field.title}, expected {field.kind}, as a run was trained with: "
            f"import the log again with --{field.owner}-fields {field.name}{form}."
        )


def owner_codes(
    path: Path | None, key: str, fields: list[Field], numbers: np.ndarray
) -> np.ndarray:
    """Codes of fields for items or users, int32 [n, fields]; 0 for numbers that a table lacks.

    path: a table with the column `key` and one of each field. numbers: int64 [n], rising.
    """
    codes = np.zeros((len(numbers), len(fields)), dtype=np.int32)
    if not fields:
        return codes
    if path is None:
        raise DataError(
            f"There is no table of the {fields[0].owner}s' fields beside {schema.FIELDS}: import "
            "the log again."
        )
    kinds = {column_of(field.name): field.kind for field in fields}
    table = parquet.read_columns(path, [key, *kinds], kinds=schema.KINDS | kinds)
    found = parquet.integers(table[key], path, key)
    place = np.searchsorted(numbers, found)
    known = place < len(numbers)
    known[known] = numbers[place[known]] == found[known]
    for column, field in enumerate(fields):
        codes[place[known], column] = field.codes(table[column_of(field.name)])[known]
    return codes
