"""A second reader of datasets: Python lists and loops, written from the documented form alone.

It says what a folder holds and everything that is wrong with it, as pairs of file and column.
"""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from mmctr.data import schema

Faults = set[tuple[str, str]]  # file without .parquet, column ("" for the whole file)
NUMBERS = {pa.types.is_integer, pa.types.is_floating}


class Reader:
    """What a folder holds (values) and what is wrong with it (faults)."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.faults, self.values = folder, set(), {}
        n_items = self.catalog()
        for name in ("item_emb", *schema.SPLITS):  # files are opened before any is read
            self.column_names(name)
        if n_items is not None:
            for name in schema.SPLITS:
                self.split(name, n_items)
            self.truth()

    def column_names(self, name: str) -> list[str] | None:
        """The names and types of a file's columns; None if there is no such file."""
        path = self.path(name)
        if path is None:
            return None
        try:
            self.file = pq.ParquetFile(path)
            self.types = {field.name: field.type for field in self.file.schema_arrow}
            return self.file.schema_arrow.names
        except Exception:
            self.faults.add((name, ""))
            return []

    def path(self, name: str) -> Path | None:
        """The nested file, else the flat one; of a split also a folder, here an empty one."""
        for folder in (self.folder / schema.NESTED_FOLDER, self.folder):
            path = folder / f"{name}.parquet"
            if path.is_file() or (name in schema.SPLITS and path.is_dir()):
                return path
        return None

    def column(self, name: str, column: str, kind: str) -> list | None:
        """A column as a list; None and a fault if it is missing, of another kind or unreadable."""
        names = self.column_names(name)
        if (name, "") in self.faults or not names or names.count(column) != 1:
            self.faults.add((name, column))
            return None
        try:
            if not is_kind(self.types[column], kind):
                raise TypeError
            return self.file.read(columns=[column]).column(0).to_pylist()
        except Exception:
            self.faults.add((name, column))
            return None

    def optional(self, name: str, column: str, kind: str) -> list | None:
        """Like `column`, but a column that is missing or has no type at all is no fault."""
        names = self.column_names(name)
        if not names or column not in names:
            return None
        if names.count(column) == 1 and pa.types.is_null(self.types[column]):
            return None
        return self.column(name, column, kind)

    def numbers(self, name: str, column: str, low: int, high: int, values: list | None) -> list:
        """The values if all are whole numbers in low..high, else a fault."""
        if values is not None and all(v is not None and low <= v <= high for v in values):
            return values
        self.faults.add((name, column))
        return []

    def ids(self, name: str, low: int, high: int) -> list:
        """Ids that are in range and distinct."""
        found = self.numbers(name, "item_id", low, high, self.column(name, "item_id", "integer"))
        if len(set(found)) < len(found):
            self.faults.add((name, "item_id"))
        return found

    def matrix(self, name: str, column: str, values: list | None, ids: list) -> dict:
        """Equal, non-empty lists without gaps by item id; zeros for item 0."""
        lists = values or [None]
        if any(row is None or None in row for row in lists):
            self.faults.add((name, column if values else ""))
            return {}
        finite = np.isfinite(np.array([v for row in lists for v in row], dtype=np.float32))
        if len({len(row) for row in lists}) > 1 or not lists[0] or not finite.all():
            self.faults.add((name, column))
        rows = dict(zip(ids, lists, strict=False))
        if any(rows.get(0, [])):
            self.faults.add((name, column))
        return rows

    def tags(self, name: str, values: list | None, ids: list) -> dict:
        """Tags by item id."""
        rows = self.matrix(name, "item_tags", values, ids)
        flat = [tag for row in values or [] for tag in row or [] if tag is not None]
        if any(not 0 <= tag <= schema.MAX_TAG for tag in flat):
            self.faults.add((name, "item_tags"))
        return rows

    def catalog(self) -> int | None:
        """Read the items; how many there are, or None if that is unknown."""
        info, feature = self.path("item_info"), self.path("item_feature")
        if info is None and feature is None:
            self.faults.add(("", "item_info.parquet"))
            return None
        tags, n_items = None, None
        if info is not None:
            raw = self.column("item_info", "item_tags", "integers")
            count = len(self.column("item_info", "item_id", "integer") or [])
            tags = self.tags("item_info", raw, self.ids("item_info", 0, count - 1))
            n_items = count - 1
        columns = {}
        if feature is not None:
            ids = self.column("item_feature", "item_id", "integer")
            if info is None:
                known = [v for v in ids or [] if v is not None]
                n_items = max(known, default=0)
                if n_items > 2 * len(known):
                    self.faults.add(("item_feature", "item_id"))
            ids = self.ids("item_feature", 0, n_items)
            kinds = {"item_title": "text", "item_tags": "integers", "likes_level": "integer"}
            kinds |= {"views_level": "integer", schema.TEXT_COLUMN: "floats"}
            kinds |= {schema.IMAGE_COLUMN: "floats"}
            for column, kind in kinds.items():
                values = self.optional("item_feature", column, kind)
                if values is not None:
                    columns[column] = values
            if tags is None:
                if "item_tags" not in columns:
                    self.faults.add(("item_feature", "item_tags"))
                tags = self.tags("item_feature", columns.get("item_tags"), ids)
            for column in ("likes_level", "views_level"):
                if column in columns:
                    self.numbers("item_feature", column, 0, 10, columns[column])
            for column in (schema.TEXT_COLUMN, schema.IMAGE_COLUMN):
                if column in columns:
                    self.matrix("item_feature", column, columns[column], ids)
        for column in ("likes_level", "views_level"):
            if column not in columns and ("item_feature", column) not in self.faults:
                self.levels_of_rows(column, n_items)
        if self.faults:
            return n_items if n_items is not None and n_items < 1000 else None
        self.values["tags"] = tags
        if feature is not None:
            for column, values in columns.items():
                self.values.setdefault(column, dict(zip(ids, values, strict=True)))
        return n_items

    def levels_of_rows(self, column: str, n_items: int) -> None:
        """Levels of targets; train decides, and within a split the last row."""
        levels = {}
        for name in ("test", "valid", "train"):
            if column in (self.column_names(name) or []):
                level = self.column(name, column, "integer")
                level = self.numbers(name, column, 0, 10, level)
                item = self.column(name, "item_id", "integer")
                item = self.numbers(name, "item_id", 1, n_items, item)
                levels |= dict(zip(item, level, strict=False))
        self.values[column] = levels

    def split(self, name: str, n_items: int) -> None:
        """Read one split."""
        if self.path(name) is None:
            if name != "test":
                self.faults.add(("", f"{name}.parquet"))
            return
        user = self.column(name, "user_id", "integer")
        user = self.numbers(name, "user_id", -(2**63), 2**63 - 1, user)
        item = self.column(name, "item_id", "integer")
        item = self.numbers(name, "item_id", 1, n_items, item)
        lists = self.column(name, "item_seq", "integers")
        if lists is not None:
            flat = [click for row in lists for click in ([None] if row is None else row)]
            self.numbers(name, "item_seq", 0, n_items, flat)
        if name == "test":
            label = self.optional(name, "label", "number")
            label = label if label and set(label) == {0, 1} else None
        else:
            label = self.column(name, "label", "number") or []
            if any(value not in (0, 1) for value in label):
                self.faults.add((name, "label"))
        if not user and (name, "user_id") not in self.faults:
            self.faults.add((name, ""))
        history = [[click for click in row if click] for row in lists or [] if row is not None]
        self.values[name] = {"user": user, "target": item, "label": label, "history": history}

    def truth(self) -> None:
        """Attach the true probabilities."""
        if self.path("truth") is None:
            return
        kinds = {"split": "text", "row": "integer", "probability": "number"}
        columns = {column: self.column("truth", column, kind) for column, kind in kinds.items()}
        if None in columns.values():
            return
        if any(p is None or not 0 <= p <= 1 for p in columns["probability"]):
            self.faults.add(("truth", "probability"))
        for name in schema.SPLITS:
            if name in self.values:
                rows = {}
                for split, row, p in zip(*columns.values(), strict=True):
                    if split == name:
                        rows.setdefault(row, []).append(p)
                count = len(self.values[name]["target"])
                each_once = None not in rows and sorted(rows) == list(range(count))
                if not each_once or any(len(found) > 1 for found in rows.values()):
                    self.faults.add(("truth", ""))
                else:
                    self.values[name]["probability"] = [rows[row][0] for row in range(count)]


def is_kind(found: pa.DataType, kind: str) -> bool:
    """Whether a column of this type can hold whole numbers, numbers, text or lists of them."""
    if kind in ("integers", "floats"):
        if not (
            pa.types.is_list(found)
            or pa.types.is_large_list(found)
            or pa.types.is_fixed_size_list(found)
        ):
            return False
        return is_kind(found.value_type, "integer" if kind == "integers" else "number")
    if kind == "text":
        return pa.types.is_string(found) or pa.types.is_large_string(found)
    if kind == "integer":
        return pa.types.is_integer(found)
    return pa.types.is_integer(found) or pa.types.is_floating(found)


def difference(dataset, expected: dict) -> str:
    """What of a loaded dataset differs from the naive reader's values; empty if nothing does."""
    catalog = dataset.catalog
    n = catalog.n_items
    arrays = {
        "tags": catalog.tags,
        "likes_level": catalog.likes_level,
        "views_level": catalog.views_level,
        schema.TEXT_COLUMN: catalog.text_features,
        schema.IMAGE_COLUMN: catalog.image_features,
    }
    for name, array in arrays.items():
        if array is None or name not in expected:
            if (array is None) != (name not in expected):
                return f"{name} is {'absent' if array is None else 'there'}"
            continue
        if len(array) != n + 1 or np.any(array[0]):
            return f"{name} has {len(array)} rows, or padding that is not zero"
        for item in range(1, n + 1):
            wanted = expected[name].get(item, np.zeros(array.shape[1:]))
            if not np.array_equal(array[item], np.asarray(wanted).astype(array.dtype)):
                return f"{name} of item {item}: {array[item]}, expected {wanted}"
    titles = {item: title or "" for item, title in expected.get("item_title", {}).items()}
    if catalog.titles.tolist() != [titles.get(item, "") for item in range(n + 1)]:
        return "titles differ"
    for name in schema.SPLITS:
        if (name in dataset.splits) != (name in expected):
            return f"{name} is there or not"
        if name in expected:
            rows, wanted = dataset.splits[name], expected[name]
            found = {
                "user": rows.user.tolist(),
                "target": rows.target.tolist(),
                "label": None if rows.label is None else rows.label.tolist(),
                "history": [rows.history(row).tolist() for row in range(len(rows))],
            }
            if rows.probability is not None:
                found["probability"] = rows.probability.tolist()
            for key in found | wanted:
                if found.get(key) != wanted.get(key):
                    return f"{name}, {key}: {found.get(key)}, expected {wanted.get(key)}"
    return ""
