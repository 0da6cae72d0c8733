"""Tables of any writer give the same dataset, byte for byte, or one sentence."""

import gzip
import json
import tempfile
import uuid
from pathlib import Path

import duckdb
import fastparquet
import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mmctr.data.importing.parts import files_of
from mmctr.data.importing.recipe import Recipe
from mmctr.data.importing.steps import import_dataset
from mmctr.errors import ConfigError, DataError
from tests.data.importing.logs import ITEMS, folder_bytes, read, splits_of


def csv(frame, path, **options):
    frame.to_csv(path, index=False, **options)


def zstandard(frame, path):
    with pa.CompressedOutputStream(str(path), "zstd") as file:
        file.write(frame.to_csv(index=False).encode())


def json_lines(frame, path):
    rows = frame.to_dict("records")
    path.write_text("".join(json.dumps(row, default=str) + "\n" for row in rows))


def by_duckdb(frame, path):
    with duckdb.connect() as connection:
        connection.register("frame", frame)
        connection.execute(f"COPY frame TO '{path}' (FORMAT parquet)")


def parts(frame, folder):
    """As Spark leaves them: some parts, a mark of success, and checksums."""
    folder.mkdir()
    for number, part in enumerate(np.array_split(np.arange(len(frame)), 3)):
        pq.write_table(pa.Table.from_pandas(frame.iloc[part]), folder / f"part-{number}.parquet")
        (folder / f".part-{number}.parquet.crc").write_bytes(b"crc")
    (folder / "_SUCCESS").touch()


def hive(frame, folder):
    """One folder for each user, whose id stands in its name alone."""
    for user, part in frame.groupby("user_id"):
        place = folder / f"user_id={user}"
        place.mkdir(parents=True)
        pq.write_table(pa.Table.from_pandas(part.drop(columns="user_id")), place / "a.parquet")


WRITERS = {
    "comma.csv": csv,
    "semicolon.csv": lambda frame, path: csv(frame, path, sep=";"),
    "mark.csv": lambda frame, path: csv(frame, path, encoding="utf-8-sig"),
    "tabs.tsv": lambda frame, path: csv(frame, path, sep="\t"),
    "windows.csv": lambda frame, path: csv(frame, path, lineterminator="\r\n"),
    "packed.csv.gz": csv,
    "packed.csv.zst": zstandard,
    "polars.csv": lambda frame, path: pl.from_pandas(frame).write_csv(path),
    "lines.jsonl": json_lines,
    "pandas.parquet": lambda frame, path: frame.to_parquet(path),
    "pyarrow.parquet": lambda frame, path: pq.write_table(pa.Table.from_pandas(frame), path),
    "polars.parquet": lambda frame, path: pl.from_pandas(frame).write_parquet(path),
    "duckdb.parquet": by_duckdb,
    "fast.parquet": lambda frame, path: fastparquet.write(str(path), frame),
    "no_ending": lambda frame, path: frame.to_parquet(path),
    "parts": parts,
    "hive": hive,
}
# Ids as careless exports have them, as text.
IDS = ["007", "7", "12345678901234567890123", "a b", 'quo"te', "comma,", "u\u0308", "0x1F", "1e5"]
TITLES = ["plain", "two\nlines", 'a "quote"', "a;b,c\td", "", "ünï"]


def naive(clicks, items):
    """Users' and items' numbers, and each click's split and history, by loops over tuples."""
    order = sorted(items, key=lambda name: (len(name), name))
    first = {}
    for user, item, time in sorted(clicks, key=lambda click: click[2]):
        first.setdefault((user, item), time)
    users = sorted({user for user, _ in first}, key=lambda name: (len(name), name))
    rows = set()
    for number, user in enumerate(users, start=1):
        mine = sorted((t, order.index(i) + 1) for (u, i), t in first.items() if u == user)
        for place, (time, item) in enumerate(mine):
            left = len(mine) - place
            split = {1: "test", 2: "valid"}.get(left, "train") if len(mine) > 2 else "train"
            earlier = tuple(i for t, i in mine if t < time)
            rows.add((split, number, item, earlier))
    return order, users, rows


@settings(max_examples=8)
@given(
    st.lists(
        st.tuples(st.sampled_from(IDS), st.sampled_from(IDS), st.integers(0, 9)),
        min_size=4,
        max_size=40,
    ),
    st.lists(st.sampled_from(list(WRITERS)), min_size=3, max_size=3, unique=True),
    st.randoms(use_true_random=False),
)
def test_writer_and_order_of_rows_do_not_matter(clicks, writers, random):
    """The dataset is that of a naive reader of the tuples, and byte for byte the same."""
    clicks = [("007", item, 20 + n) for n, item in enumerate(IDS[:4])] + clicks
    log = [(user, item, 1_700_000_000 + time) for user, item, time in clicks]
    items = [(item, TITLES[n % len(TITLES)]) for n, item in enumerate(IDS)]
    items += [("never", "unclicked")]
    made = []
    with tempfile.TemporaryDirectory() as name:
        for writer in writers:
            random.shuffle(log)
            random.shuffle(items)
            place = Path(name) / writer
            place.mkdir()
            frame = pd.DataFrame(log, columns=["user_id", "item_id", "timestamp"])
            table = pd.DataFrame(items, columns=["item_id", "title"])
            kind = WRITERS[writer]
            kind(frame, place / writer)
            flat = writer if writer not in ("parts", "hive") else "pandas.parquet"
            WRITERS[flat](table, place / f"items_{flat}")
            paths = [place / writer], [place / f"items_{flat}"]
            import_dataset(*paths, None, place / "out", Recipe.of(negatives=1))
            made.append(folder_bytes(place / "out"))
        assert made[0] == made[1] == made[2], writers
        order, users, rows = naive(log, [item for item, _ in items])
        out = Path(name) / writers[0] / "out"
        ids = pd.read_parquet(out / "item_ids.parquet")["original_id"].tolist()
        assert ids == order
        assert pd.read_parquet(out / "user_ids.parquet")["original_id"].tolist() == users
        titles = pd.read_parquet(out / "item_feature.parquet")["item_title"].tolist()
        assert titles == [dict(items)[item] for item in order]
        found = set()
        for split in ("train", "valid", "test"):
            frame = pd.read_parquet(out / "MicroLens_1M_x1" / f"{split}.parquet")
            for row in frame[frame["label"] == 1].itertuples():
                found.add((split, row.user_id, row.item_id, tuple(row.item_seq)))
        assert found == {(s, u, i, h) for s, u, i, h in rows}


@pytest.mark.parametrize(
    ("log_ids", "item_ids", "expected"),
    [
        (pa.array([1, 2, 3], pa.int8()), ["1", "2", "3"], ["1", "2", "3"]),
        (pa.array([1.0, 2.0, 1e16]), [1, 2, 10**16], ["1", "2", "10000000000000000"]),
        (pa.array([2**64 - 1, 5, 6], pa.uint64()), ["5", "6", str(2**64 - 1)], None),
        (pa.array(["01", "1", "001"]), ["1", "01", "001"], ["1", "01", "001"]),
        (pa.array([1, 2, 3], pa.decimal128(20, 2)), ["1", "2", "3"], None),
        (pa.array(["a", "b", "c"]).dictionary_encode(), ["a", "b", "c"], None),
        (pa.array(["a", "b", "c"], pa.string_view()), ["a", "b", "c"], None),
        (
            pa.array([uuid.UUID(int=n).bytes for n in (1, 2**127, 2**100)], pa.binary(16)),
            [str(uuid.UUID(int=n)) for n in (1, 2**100, 2**127)],
            None,
        ),
        (pa.array([b"a", b"b", b"c"]), ["a", "b", "c"], None),
    ],
    ids=[
        "small",
        "doubles",
        "unsigned",
        "zeros",
        "decimals",
        "categories",
        "views",
        "uuid",
        "bytes",
    ],
)
def test_ids_of_any_type_join_as_the_text_that_one_sees(tmp_path, log_ids, item_ids, expected):
    log = pa.table({"user_id": log_ids, "item_id": log_ids, "timestamp": [1, 2, 3]})
    one = log.set_column(0, "user_id", pa.array(["u"] * 3))
    pq.write_table(one, tmp_path / "log.parquet")
    pd.DataFrame({"item_id": item_ids}).to_parquet(tmp_path / "items.parquet")
    paths = [tmp_path / "log.parquet"], [tmp_path / "items.parquet"]
    facts = import_dataset(*paths, None, tmp_path / "out", Recipe.of(negatives=0))
    assert facts["counts"]["clicks"] == 3
    found = pd.read_parquet(tmp_path / "out" / "item_ids.parquet")["original_id"].tolist()
    assert found == (expected or [str(item) for item in item_ids])


@pytest.mark.parametrize("form", [pa.int16(), pa.int64(), pa.uint64(), pa.string()])
def test_whole_numbers_join_no_item_that_is_written_otherwise(tmp_path, form):
    users, items = (
        pa.array(ids, pa.string()).cast(form)
        for ids in (["20", "20", "3", "20", "20", "3"], ["7", "10", "9", "100", "5", "100"])
    )
    log = pa.table({"user_id": users, "item_id": items, "timestamp": [1, 2, 3, 4, 5, 6]})
    pq.write_table(log, tmp_path / "log.parquet")
    items = ["007", "07", "7", "+7", "7.0", " 9", "9 ", "1e1", "100", "5", str(2**70), "x", "-10"]
    pd.DataFrame({"item_id": items}).to_parquet(tmp_path / "items.parquet")
    paths = [tmp_path / "log.parquet"], [tmp_path / "items.parquet"]
    facts = import_dataset(*paths, None, tmp_path / "out", Recipe.of(negatives=0))
    assert facts["counts"]["of_unknown_items"] == 2
    ids = pd.read_parquet(tmp_path / "out" / "item_ids.parquet").set_index("item_id")
    users = pd.read_parquet(tmp_path / "out" / "user_ids.parquet")["original_id"].tolist()
    clicked = [
        (users[row.user_id - 1], ids["original_id"][row.item_id])
        for rows in splits_of(tmp_path / "out").values()
        for row in rows.itertuples()
    ]
    assert clicked == [("3", "100"), ("20", "7"), ("20", "100"), ("20", "5")]


def test_csv_ids_are_never_guessed_to_be_numbers(tmp_path):
    (tmp_path / "log.csv").write_text(
        "user_id,item_id,timestamp\n01,007,1\n01,7,2\n01,9007199254740993,3\n1,1.0,4\n"
    )
    (tmp_path / "items.csv").write_text("item_id,title\n007,a\n7,b\n9007199254740993,c\n1.0,d\n")
    paths = [tmp_path / "log.csv"], [tmp_path / "items.csv"]
    facts = import_dataset(*paths, None, tmp_path / "out", Recipe.of(negatives=0))
    assert facts["counts"]["users"] == 2
    found = pd.read_parquet(tmp_path / "out" / "item_ids.parquet")["original_id"].tolist()
    assert found == ["7", "007", "1.0", "9007199254740993"]


def test_another_delimiter_or_encoding_can_be_forced_and_is_told(tmp_path):
    text = "user_id~item_id~timestamp\nü~i1~1\nü~i2~2\nü~i3~3\n"
    (tmp_path / "log.csv").write_bytes(text.encode("latin-1"))
    ITEMS.to_parquet(tmp_path / "items.parquet")
    paths, said = ([tmp_path / "log.csv"], [tmp_path / "items.parquet"]), []
    with pytest.raises(DataError, match=r"log\.csv .*(encoding|no column)"):
        import_dataset(*paths, None, tmp_path / "out", Recipe.of())
    recipe = Recipe.of(delimiter="~", encoding="latin-1", negatives=1)
    import_dataset(*paths, None, tmp_path / "out", recipe, say=said.append)
    assert pd.read_parquet(tmp_path / "out" / "user_ids.parquet")["original_id"].tolist() == ["ü"]
    assert said[0] == f"interactions: {tmp_path / 'log.csv'} (CSV, delimiter '~')"


def test_torn_lines_are_counted(tmp_path):
    lines = ["user_id,item_id,timestamp", "u,i1,1", "u,i2", "u,i2,2,extra", "u,i2,2", "u,i3,3"]
    (tmp_path / "log.csv").write_text("\n".join(lines) + "\n")
    ITEMS.to_parquet(tmp_path / "items.parquet")
    paths = [tmp_path / "log.csv"], [tmp_path / "items.parquet"]
    counts = import_dataset(*paths, None, tmp_path / "out", Recipe.of(negatives=0))["counts"]
    assert (counts["interactions"], counts["unreadable"], counts["clicks"]) == (5, 2, 3)


def test_however_many_lines_are_torn_all_are_counted(tmp_path):
    lines = ["user_id,item_id,timestamp", "u,i1,1", "u,i2,2", "u,i3,3", *["u,i4"] * 1500]
    (tmp_path / "log.csv").write_text("\n".join(lines) + "\n")
    ITEMS.to_parquet(tmp_path / "items.parquet")
    paths = [tmp_path / "log.csv"], [tmp_path / "items.parquet"]
    counts = import_dataset(*paths, None, tmp_path / "out", Recipe.of(negatives=0))["counts"]
    assert (counts["interactions"], counts["unreadable"], counts["clicks"]) == (1503, 1500, 3)


def test_nothing_is_read_that_was_not_named(tmp_path):
    """Names that SQL or DuckDB would understand otherwise are names."""
    secret = tmp_path / "secret.csv"
    secret.write_text("user_id,item_id,timestamp\nx,i1,1\n")
    ITEMS.to_parquet(tmp_path / "items.parquet")
    odd = tmp_path / f"a'], all_varchar=true) UNION ALL FROM read_csv('{secret.name}"
    with pytest.raises(DataError, match="is no file"):
        files_of(odd)
    odd = tmp_path / "a'b.csv"
    odd.write_text("user_id,item_id,timestamp\nu,i1,1\nu,i2,2\nu,i3,3\n")
    paths = [odd], [tmp_path / "items.parquet"]
    recipe = Recipe.of(negatives=0, user_column="user_id")
    assert import_dataset(*paths, None, tmp_path / "out", recipe)["counts"]["clicks"] == 3
    odd.write_text('user_id,item_id,a"b\nu,i1,1\nu,i2,2\nu,i3,3\n')
    recipe = Recipe.of(negatives=0, time_column='a"b')
    assert import_dataset(*paths, None, tmp_path / "two", recipe)["counts"]["clicks"] == 3


@pytest.mark.parametrize("text", ["", "user_id,item_id,timestamp\na,i1,soon\n", "a\x00b"])
def test_odd_logs_are_one_sentence(tmp_path, text):
    (tmp_path / "log.csv").write_text(text)
    ITEMS.to_parquet(tmp_path / "items.parquet")
    with pytest.raises(DataError, match=r"log\.csv"):
        paths = [tmp_path / "log.csv"], [tmp_path / "items.parquet"]
        import_dataset(*paths, None, tmp_path / "o", Recipe.of())


@pytest.mark.parametrize("place", [2, 5000])
def test_a_torn_line_anywhere_does_not_mislead(tmp_path, place):
    rows = ["user_id;item_id;timestamp", *(f"u{n % 70};i{n % 12};{n}" for n in range(20_000))]
    rows[place] = "610;3949"
    (tmp_path / "log.csv").write_text("\n".join(rows) + "\n")
    counts, said = read(tmp_path, "log.csv")
    assert (counts["interactions"], counts["unreadable"]) == (20_000, 1)
    assert said[1].endswith("(CSV, delimiter ';')")


@pytest.mark.parametrize("users", [["u1", "u2"], ["0019", "19"]])
def test_hive_partitions_of_json_and_csv_name_ids_as_text(tmp_path, users):
    rows = [{"item_id": f"i{n}", "timestamp": n} for n in range(3)]
    for user in users:
        for form in ("json", "csv"):
            (tmp_path / form / f"user_id={user}").mkdir(parents=True)
        json_lines(pd.DataFrame(rows), tmp_path / "json" / f"user_id={user}" / "a.jsonl")
        csv(pd.DataFrame(rows), tmp_path / "csv" / f"user_id={user}" / "a.csv")
    for form in ("json", "csv"):
        (tmp_path / form).rename(tmp_path / "log")
        assert read(tmp_path, "log")[0]["clicks"] == 6
        found = pd.read_parquet(tmp_path / "o" / "user_ids.parquet")["original_id"]
        assert sorted(found) == sorted(users)
        (tmp_path / "o").rename(tmp_path / f"out of {form}")
        (tmp_path / "log").rename(tmp_path / f"old {form}")


def test_a_forced_delimiter_and_encoding_are_for_the_tables_that_have_them(tmp_path):
    (tmp_path / "log.csv").write_bytes(
        "user_id^item_id^timestamp\nü^i1^1\nü^i2^2\nü^i3^3\n".encode("cp1252")
    )
    (tmp_path / "items.csv").write_text("item_id,title\ni1,é\ni2,b\ni3,c\n", encoding="utf-8")
    options = {"delimiter": "^", "encoding": "latin-1", "items": "items.csv"}
    counts, said = read(tmp_path, "log.csv", **options)
    assert (counts["clicks"], counts["items"]) == (3, 3)
    titles = pd.read_parquet(tmp_path / "o" / "item_feature.parquet")["item_title"]
    assert titles.tolist() == ["é", "b", "c"]
    assert pd.read_parquet(tmp_path / "o" / "user_ids.parquet")["original_id"].tolist() == ["ü"]
    assert said[1].endswith("(CSV, delimiter '^')")


@pytest.mark.parametrize(("log", "items"), [("{}.0", "{}"), ("{}", "{}.0"), ("{}.0", "{}.00")])
def test_whole_numbers_with_a_point_join_their_digits(tmp_path, log, items):
    rows = "".join(f"7.0,{log.format(item)},{item}\n" for item in (1, 2, 3))
    (tmp_path / "log.csv").write_text("user_id,item_id,timestamp\n" + rows + "7.0,,4\n")
    rows = "".join(f"{items.format(item)}\n" for item in (1, 2, 3))
    (tmp_path / "items.csv").write_text("item_id\n" + rows)
    counts, said = read(tmp_path, "log.csv", items="items.csv")
    assert (counts["clicks"], counts["unreadable"]) == (3, 1)
    assert pd.read_parquet(tmp_path / "o" / "item_ids.parquet")["original_id"].tolist() == [*"123"]
    assert any("log.csv, column user_id: ids such as 7.0 are read as 7" in line for line in said)


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("log.parquet", "PAR1 no more", "log.parquet is not a readable table .*: write it again.$"),
        ("log.jsonl", '{"user_id": 1,\n', "as JSON Lines, an object a line.$"),
        ("log.csv", "user_id,item_id,timestamp\n", "log.csv has columns, but no rows"),
        ("log.csv", "", "log.csv is empty: name a CSV"),
        ("log.csv.gz", "not packed", "log.csv.gz is not a readable table .*: write it again.$"),
    ],
)
def test_advice_fits_the_kind_of_file(tmp_path, name, text, message):
    (tmp_path / name).write_text(text)
    with pytest.raises(DataError, match=message) as caught:
        read(tmp_path, name)
    assert "delimiter" not in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_delimiter_that_no_table_has_is_told(tmp_path):
    (tmp_path / "log.csv").write_text("user_id,item_id,timestamp\nu,i1,1\n")
    with pytest.raises(ConfigError, match="'delimiter' is ';', which no CSV file has in its first"):
        read(tmp_path, "log.csv", delimiter=";")


@pytest.mark.parametrize("name", ["log.csv", "log.csv.gz"])
def test_text_that_is_no_utf_8_is_refused_instead_of_losing_its_lines(tmp_path, name):
    rows = ["user_id,item_id,timestamp", *(f"u{n % 70},i{n % 12},{n}" for n in range(40_000))]
    rows[30_000] = "Zoë,i1,1"  # beyond what is looked at to find out the delimiter
    packed = gzip.compress if name.endswith("gz") else bytes
    (tmp_path / name).write_bytes(packed("\n".join(rows).encode("latin-1")))
    with pytest.raises(DataError, match=r"log.csv.* is no text in UTF-8: .* -p encoding=latin-1"):
        read(tmp_path, name)
    counts, _ = read(tmp_path, name, encoding="latin-1")
    assert (counts["unreadable"], counts["users"]) == (0, 71)
    users = pd.read_parquet(tmp_path / "o" / "user_ids.parquet")["original_id"]
    assert "Zoë" in set(users)
