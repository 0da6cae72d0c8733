"""Small valid datasets, and named ways to spoil them; a case is its names and a seed."""

import io
import json
import pickle
import re
import struct
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from mmctr.data import schema

HUGE = (2**31 - 1, 2**31, 2**32, 2**40, 2**62)
NESTED = ("train", "valid", "test", "item_info")  # published inside MicroLens_1M_x1/
COVERS = "item_images"
Files = dict[str, pa.Table | bytes]
Mutation = Callable[[np.random.Generator, Files], None]
TABLES: dict[str, Mutation] = {}  # mutations of columns, rows and values
BYTES: dict[str, Mutation] = {}  # mutations of what is on the disk


def write_dataset(folder: Path, names: list[str], seed: int) -> Path:
    """Write the dataset of a case: valid with no names, else with these mutations in order."""
    rng = np.random.default_rng(seed)
    files = valid(rng)
    spoil(rng, files, names)
    nested = rng.random() < 0.5
    for name, content in files.items():
        place = folder / schema.NESTED_FOLDER if nested and name in NESTED else folder
        place.mkdir(parents=True, exist_ok=True)
        if name == COVERS:
            write_odd_covers(place / name)
        elif content == b"<folder>":
            (place / f"{name}.parquet").mkdir()
        else:
            (place / f"{name}.parquet").write_bytes(encoded(content, rng))
    folder.mkdir(exist_ok=True)
    return folder


def spoil(rng: np.random.Generator, files: Files, names: list[str]) -> None:
    """Apply mutations in order: texts that no later one could read late, and bytes last."""
    for name in sorted(names, key=lambda name: (name in BYTES, name == "not_utf8")):
        (BYTES | TABLES)[name](rng, files)


def write_odd_covers(folder: Path) -> None:
    """Covers that are folders, links to nothing, empty, no pictures, or named like no item."""
    folder.mkdir()
    for name in ("1.jpg", "2.PNG", "٣.jpg", "².jpg", "01.jpg", "9" * 99 + ".jpg", "-1.jpg"):
        (folder / name).write_bytes(b"no picture")
    (folder / "4.jpg").mkdir()
    (folder / "5.jpg").symlink_to(folder / "nothing")


def valid(rng: np.random.Generator) -> Files:
    """A random dataset that must load: 1 to 7 items, some optional files and columns left out."""
    n = int(rng.integers(1, 8))
    tags = rng.integers(0, 5, (n + 1, int(rng.integers(1, 4))))
    tags[0] = 0
    order = rng.permutation(n + 1)
    floats = rng.normal(size=(n + 1, int(rng.integers(1, 4)))).astype(np.float32)
    floats[0] = 0
    info = {"item_id": order, "item_tags": list(tags[order]), "item_emb_d128": list(floats[order])}
    some = rng.permutation(n)[: rng.integers(1, n + 1)] + 1
    feature = {
        "item_id": some,
        "item_title": [None if rng.random() < 0.2 else f"title {item}" for item in some],
        "item_tags": list(tags[some]),
        "likes_level": rng.integers(0, 11, len(some)),
        "views_level": rng.integers(0, 11, len(some)),
        schema.TEXT_COLUMN: list(rng.normal(size=(len(some), 3)).astype(np.float32)),
        schema.IMAGE_COLUMN: list(rng.normal(size=(len(some), 2))),
    }
    for column in list(feature)[1:]:
        if rng.random() < 0.2:
            del feature[column]
    files = {"item_info": pa.table(info), "item_feature": pa.table(feature)}
    rows = {name: int(rng.integers(1, 8)) for name in schema.SPLITS}
    for name, count in rows.items():
        histories = [rng.integers(0, n + 1, rng.integers(0, 5)) for _ in range(count)]
        columns = {
            "user_id": rng.integers(-3, 5, count),
            "item_seq": pa.array(histories, pa.list_(pa.int32())),
            "item_id": rng.integers(1, n + 1, count),
            "likes_level": rng.integers(0, 11, count),
            "views_level": rng.integers(0, 11, count),
            "label": rng.integers(0, 2, count),
        }
        files[name] = pa.table(columns)
    kept = rng.random(4)
    if kept[0] < 0.3:
        del files["item_feature"]
    elif kept[0] < 0.5 and "item_tags" in feature:
        del files["item_info"]
        if n not in some:  # the catalog then ends at the largest id of item_feature
            for name in rows:
                files[name] = _limited(files[name], int(max(some)))
    if kept[1] < 0.3:
        del files["test"], rows["test"]
    if kept[2] < 0.4:
        split = [name for name, count in rows.items() for _ in range(count)]
        row = [row for count in rows.values() for row in range(count)]
        truth = {"split": split, "row": row, "probability": rng.random(len(row))}
        files["truth"] = pa.table(truth)
    if kept[3] < 0.3:
        emb = list(rng.normal(size=(n, 2)).astype(np.float32))
        files["item_emb"] = pa.table({"item_id": np.arange(1, n + 1), "item_emb_64": emb})
    return files


def _limited(table: pa.Table, largest: int) -> pa.Table:
    """A split whose targets and histories name no item above the largest."""
    lists = [[item for item in row if item <= largest] for row in table["item_seq"].to_pylist()]
    target = np.minimum(table["item_id"].to_numpy(), largest)
    table = table.set_column(1, "item_seq", pa.array(lists, pa.list_(pa.int32())))
    return table.set_column(2, "item_id", pa.array(target))


def encoded(content: pa.Table | bytes, rng: np.random.Generator) -> bytes:
    """The bytes of a parquet file, in one or many row groups."""
    if isinstance(content, bytes):
        return content
    stream = io.BytesIO()
    pq.write_table(content, stream, row_group_size=int(rng.choice([1, 2, 1 << 20])))
    return stream.getvalue()


def table_mutation(mutate: Mutation) -> Mutation:
    """Register a mutation of tables by its function's name."""
    TABLES[mutate.__name__] = mutate
    return mutate


def bytes_mutation(mutate: Mutation) -> Mutation:
    """Register a mutation of bytes by its function's name."""
    BYTES[mutate.__name__] = mutate
    return mutate


def pick(rng: np.random.Generator, files: Files) -> tuple[str, pa.Table]:
    """A random file that is still a table with columns."""
    names = [n for n, c in files.items() if isinstance(c, pa.Table) and c.num_columns]
    name = str(rng.choice(names)) if names else "train"
    return name, files.get(name, pa.table({"x": [1]}))


def pick_column(
    rng: np.random.Generator, files: Files, want: Callable[[pa.DataType], bool] = bool
) -> tuple[str, pa.Table, int]:
    """A random column whose type is wanted, or any if there is none."""
    for _ in range(20):
        name, table = pick(rng, files)
        column = int(rng.integers(table.num_columns))
        if table.num_rows and want(table.schema.field(column).type):
            break
    return name, table, column


def replace(table: pa.Table, column: int, values: list, kind: pa.DataType | None = None):
    """The table with one column's values replaced, of a type that holds them."""
    kind = kind or table.schema.field(column).type
    try:
        array = pa.array(values, kind)
    except (pa.ArrowException, OverflowError, TypeError, ValueError):
        array = pa.array(values)
    return table.set_column(column, table.schema.names[column], array)


def change_value(rng: np.random.Generator, files: Files, value: object, want=bool) -> None:
    """Replace one value of a column, or one element of one of its lists."""
    name, table, column = pick_column(rng, files, want)
    values = table.column(column).to_pylist()
    if not values:
        return
    row = int(rng.integers(len(values)))
    if isinstance(values[row], list) and values[row] and rng.random() < 0.8:
        values[row][int(rng.integers(len(values[row])))] = value
    else:
        values[row] = value
    kind = table.schema.field(column).type
    if isinstance(value, int) and pa.types.is_integer(kind):
        kind = pa.uint64() if value > 2**63 - 1 else pa.int64()
    if isinstance(value, int) and _is_list(kind) and pa.types.is_integer(kind.value_type):
        kind = pa.list_(pa.int64())
    try:
        files[name] = replace(table, column, values, kind)
    except (pa.ArrowException, OverflowError):
        files[name] = replace(table, column, [str(value) for value in values], pa.string())


def _is_list(kind: pa.DataType) -> bool:
    return pa.types.is_nested(kind) and hasattr(kind, "value_type")


def is_number(kind: pa.DataType) -> bool:
    """Whether values, or the elements of lists, are numbers."""
    kind = kind.value_type if _is_list(kind) else kind
    return pa.types.is_integer(kind) or pa.types.is_floating(kind)


@table_mutation
def drop_column(rng, files):
    name, table, column = pick_column(rng, files)
    files[name] = table.remove_column(column)


@table_mutation
def rename_column(rng, files):
    name, table, column = pick_column(rng, files)
    names = list(table.schema.names)
    names[column] = str(rng.choice(["", "label", "item_id", names[column].upper(), "a\nb", "é"]))
    files[name] = table.rename_columns(names)


@table_mutation
def repeat_column(rng, files):
    name, table, column = pick_column(rng, files)
    files[name] = table.append_column(table.schema.field(column), table.column(column))


@table_mutation
def retype_column(rng, files):
    name, table, column = pick_column(rng, files)
    kinds = [
        pa.int8(), pa.uint8(), pa.int16(), pa.int32(), pa.uint32(), pa.int64(), pa.uint64(),
        pa.float16(), pa.float32(), pa.float64(), pa.bool_(), pa.string(), pa.large_string(),
        pa.binary(), pa.decimal128(20, 2), pa.timestamp("s"), pa.date32(), pa.time32("s"),
        pa.duration("ms"), pa.null(), pa.dictionary(pa.int32(), pa.string()),
        pa.dictionary(pa.int8(), pa.int64()), pa.struct([("a", pa.int64())]),
        pa.map_(pa.string(), pa.int64()),
    ]  # fmt: skip
    kinds += [pa.list_(kind) for kind in kinds[:14]]
    kinds += [pa.large_list(kind) for kind in kinds[:10]] + [pa.list_(pa.list_(pa.int64()))]
    kinds += [pa.list_(pa.int32(), 2), pa.list_(pa.float32(), 3)]
    kind = kinds[int(rng.integers(len(kinds)))]
    array = table.column(column).combine_chunks()
    for attempt in (
        lambda: array.cast(kind),
        lambda: pa.array(
            [None if v is None else kind_of(kind, v) for v in array.to_pylist()], kind
        ),
        lambda: pa.nulls(len(array), kind),
    ):
        try:
            files[name] = table.set_column(column, table.schema.names[column], attempt())
            pq.write_table(files[name], io.BytesIO())  # not every type can be written
            return
        except (pa.ArrowException, OverflowError, TypeError, ValueError):
            files[name] = table


def kind_of(kind: pa.DataType, value: object) -> object:
    """A value of another type that resembles the given one."""
    if _is_list(kind):
        return [
            kind_of(kind.value_type, v) for v in (value if isinstance(value, list) else [value])
        ]
    value = value[0] if isinstance(value, list) and value else value
    if pa.types.is_string(kind) or pa.types.is_large_string(kind):
        return str(value)
    if pa.types.is_binary(kind):
        return str(value).encode()
    if pa.types.is_struct(kind):
        return {"a": 1}
    if pa.types.is_map(kind):
        return [("a", 1)]
    return int(value) if isinstance(value, (int, float)) else len(str(value))


@table_mutation
def null_value(rng, files):
    change_value(rng, files, None)


@table_mutation
def null_column(rng, files):
    name, table, column = pick_column(rng, files)
    kind = table.schema.field(column).type if rng.random() < 0.5 else pa.null()
    files[name] = replace(table, column, [None] * table.num_rows, kind)


@table_mutation
def ragged_list(rng, files):
    name, table, column = pick_column(rng, files, pa.types.is_nested)
    values = table.column(column).to_pylist()
    row = int(rng.integers(max(1, len(values))))
    if values and isinstance(values[row], list):
        values[row] = values[row][:-1] if rng.random() < 0.5 else [*values[row], *values[row]]
        files[name] = replace(table, column, values)


@table_mutation
def empty_lists(rng, files):
    name, table, column = pick_column(rng, files, pa.types.is_nested)
    if pa.types.is_list(table.schema.field(column).type):
        files[name] = replace(table, column, [[] for _ in range(table.num_rows)])


@table_mutation
def negative_number(rng, files):
    change_value(rng, files, -int(rng.integers(1, 2**40)), is_number)


@table_mutation
def huge_number(rng, files):
    change_value(rng, files, int(rng.choice(HUGE)), is_number)


@table_mutation
def unsigned_number(rng, files):
    change_value(rng, files, 2**64 - 1 - int(rng.integers(3)), is_number)


@table_mutation
def beyond_catalog(rng, files):
    change_value(rng, files, int(rng.integers(5, 20)), is_number)


@table_mutation
def zero_number(rng, files):
    change_value(rng, files, 0, is_number)


@table_mutation
def not_a_number(rng, files):
    value = float(rng.choice([np.nan, np.inf, -np.inf, 1e300, 1e-300, 0.5, 1 + 1e-12]))
    change_value(rng, files, value, is_number)


@table_mutation
def repeat_row(rng, files):
    name, table = pick(rng, files)
    if table.num_rows:
        rows = [*range(table.num_rows), int(rng.integers(table.num_rows))]
        files[name] = table.take(rows)


@table_mutation
def drop_row(rng, files):
    name, table = pick(rng, files)
    if table.num_rows:
        rows = np.delete(np.arange(table.num_rows), rng.integers(table.num_rows))
        files[name] = table.take(rows)


@table_mutation
def drop_all_rows(rng, files):
    name, table = pick(rng, files)
    files[name] = table.slice(0, 0)


@table_mutation
def shuffle_rows(rng, files):
    name, table = pick(rng, files)
    files[name] = table.take(rng.permutation(table.num_rows))


@table_mutation
def swap_files(rng, files):
    names = list(rng.permutation(list(files)))
    if len(names) > 1:
        files[names[0]], files[names[1]] = files[names[1]], files[names[0]]


@table_mutation
def drop_file(rng, files):
    if files:
        del files[str(rng.choice(list(files)))]


@table_mutation
def not_utf8(rng, files):
    name, table, column = pick_column(rng, files, pa.types.is_string)
    texts = [b"\xff\xfe" if rng.random() < 0.5 else b"ok" for _ in range(table.num_rows)]
    raw = pa.array(texts, pa.binary())
    text = pa.StringArray.from_buffers(len(raw), *raw.buffers()[1:])
    files[name] = table.set_column(column, table.schema.names[column], text)


@table_mutation
def other_text(rng, files):
    name, table, column = pick_column(rng, files, pa.types.is_string)
    texts = [str(rng.choice(["train", "valid", "", "\x00", "x" * 999])) for _ in range(len(table))]
    files[name] = replace(table, column, texts, pa.string())


@table_mutation
def damaged_metadata(rng, files):
    name, table = pick(rng, files)
    text = rng.choice([b"{", b"[1]", b"\xff", b"null", b"[" * 5000]).tobytes()
    files[name] = table.replace_schema_metadata({schema.ENCODERS: text})


@table_mutation
def extra_columns(rng, files):
    name, table = pick(rng, files)
    more = [pa.array([{"a": [1]}] * len(table)), pa.array([[[0.5]]] * len(table))]
    more += [pa.array([[0.5]] * len(table)), pa.array(["x"] * len(table))]
    for number, column in enumerate(more):
        table = table.append_column(f"extra {number}", column)
    files[name] = table


@table_mutation
def odd_covers(rng, files):
    files[COVERS] = b""


@table_mutation
def odd_metadata(rng, files):
    """Notes of pandas that are damaged, or that make an index of a column."""
    name, table = pick(rng, files)
    column = str(rng.choice(table.schema.names))
    facts = {"name": column, "field_name": column, "pandas_type": "x", "numpy_type": "x"}
    about = {"index_columns": [column], "columns": [facts | {"metadata": None}]}
    text = json.dumps(about).encode() if rng.random() < 0.6 else b"\xff{"
    files[name] = table.replace_schema_metadata({"pandas": text})


@table_mutation
def odd_errors(rng, files):
    """Errors of an extraction that name items there are not, or nothing."""
    columns = {"item": [1, -5, 2**40], "medium": ["cover", "title", "x"], "reason": ["a", None, ""]}
    own = {"extraction_errors": pa.table(columns)}
    others = ["retype_column", "null_value", "not_utf8", "repeat_column", "shuffle_rows"]
    TABLES[str(rng.choice(others))](rng, own)
    files |= own


def _some_bytes(rng: np.random.Generator, files: Files) -> tuple[str, bytes]:
    if not files:
        files["train"] = b""
    name = str(rng.choice(list(files)))
    return name, encoded(files[name], rng)


@bytes_mutation
def empty_file(rng, files):
    files[_some_bytes(rng, files)[0]] = b""


@bytes_mutation
def truncated(rng, files):
    name, content = _some_bytes(rng, files)
    files[name] = content[: int(rng.integers(len(content) + 1))]


@bytes_mutation
def text_file(rng, files):
    texts = [
        b"ID,Task2\n0,0.5\n",
        b"\xff\xfe\x00caf\xe9",
        b"PAR1",
        b"PAR1PAR1",
        b"PAR1" + b"\0" * 9,
    ]
    files[_some_bytes(rng, files)[0]] = texts[int(rng.integers(len(texts)))]


@bytes_mutation
def wrong_endian(rng, files):
    """Big-endian numbers, and the footer's length written the wrong way round."""
    name, content = _some_bytes(rng, files)
    swapped = content[:-8] + content[-8:-4][::-1] + content[-4:]
    files[name] = swapped if rng.random() < 0.5 else np.arange(50, dtype=">i8").tobytes()


@bytes_mutation
def long_footer(rng, files):
    name, content = _some_bytes(rng, files)
    length = int(rng.choice([0, 2**31 - 1, 2**32 - 1, len(content), max(0, len(content) - 12)]))
    files[name] = content[:-8] + struct.pack("<I", length) + b"PAR1"


@bytes_mutation
def flipped_footer(rng, files):
    """Bytes of the metadata changed: counts of rows, sizes of pages, names, types."""
    name, content = _some_bytes(rng, files)
    changed = bytearray(content)
    if len(content) > 20 and content[-4:] == b"PAR1":
        length = struct.unpack("<I", content[-8:-4])[0]
        start = len(content) - 8 - length if 12 < length < len(content) - 12 else 4
        for _ in range(int(rng.integers(1, 4))):
            changed[int(rng.integers(start, len(content) - 8))] = int(rng.integers(256))
    files[name] = bytes(changed)


@bytes_mutation
def claimed_rows(rng, files):
    """A file, a row group or a column that claims to have 2^40 rows or values."""
    name, content = _some_bytes(rng, files)
    files[name] = claiming(content, 2**40, int(rng.integers(6)))


def claiming(content: bytes, number: int, place: int = 0) -> bytes:
    """A parquet file with another 64-bit number in its footer; the first is that of its rows."""
    if len(content) < 20 or content[-4:] != b"PAR1":
        return content
    start = len(content) - 8 - struct.unpack("<I", content[-8:-4])[0]
    footer = content[max(4, start) : -8]
    # Thrift's compact protocol: 0x16 is the next field, a 64-bit number, in groups of 7 bits.
    found = list(re.finditer(rb"\x16([\x80-\xff]*[\x00-\x7f])", footer))
    if not found:
        return content
    at = found[place % len(found)]
    footer = footer[: at.start(1)] + varint(2 * number) + footer[at.end(1) :]
    return content[: max(4, start)] + footer + struct.pack("<I", len(footer)) + b"PAR1"


def varint(number: int) -> bytes:
    """A whole number in groups of 7 bits, the lowest first."""
    groups = []
    while number > 127:
        groups.append(number & 127 | 128)
        number >>= 7
    return bytes([*groups, number])


@bytes_mutation
def flipped_bytes(rng, files):
    name, content = _some_bytes(rng, files)
    changed = bytearray(content)
    for _ in range(int(rng.integers(1, 6)) if content else 0):
        changed[int(rng.integers(len(content)))] = int(rng.integers(256))
    files[name] = bytes(changed)


@bytes_mutation
def random_bytes(rng, files):
    files[_some_bytes(rng, files)[0]] = b"PAR1" + rng.bytes(200) + b"PAR1"


@bytes_mutation
def folder_for_file(rng, files):
    files[_some_bytes(rng, files)[0]] = b"<folder>"


@bytes_mutation
def pickled(rng, files):
    """A pickle under a parquet name."""
    files[_some_bytes(rng, files)[0]] = pickle.dumps({"user_id": [1]})
