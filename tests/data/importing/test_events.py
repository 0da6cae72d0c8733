"""Clicks in the order of their time."""

import tempfile
from itertools import pairwise
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mmctr.data.importing import events, writing
from mmctr.errors import ConfigError, DataError
from tests.data.importing.logs import imported, log_rows


@given(log_rows, st.randoms())
@settings(max_examples=25)
def test_counts_add_up_to_the_rows_that_came_in(log, random):
    """Every row is kept, repeated, of an unknown item, filtered or unreadable."""
    rows = [
        (
            random.choice([user, user, None]),
            random.choice([f"i{item}", f"i{item}", "gone", None]),
            random.choice([time, time, None]),
            random.choice([1, 5, None, float("nan")]),
        )
        for user, item, time in log
    ]
    frame = pd.DataFrame(rows, columns=["user_id", "item_id", "timestamp", "rating"])
    frame["timestamp"] = frame["timestamp"].astype("Int64")
    frame["rating"] = frame["rating"].astype(object)
    with tempfile.TemporaryDirectory() as name:
        try:
            _, facts = imported(Path(name), frame, min_rating=3, negatives=0)
        except (ConfigError, DataError):
            return
    counts = facts["counts"]
    kinds = ("below_min_rating", "unreadable", "of_unknown_items", "repeated", "clicks")
    assert sum(counts[kind] for kind in kinds) == counts["interactions"] == len(rows)
    kept = {
        (user, item)
        for user, item, time, rating in rows
        if rating == 5 and None not in (user, item, time) and item != "gone"
    }
    assert counts["clicks"] == len(kept)


@given(
    st.lists(st.integers(1, 12), min_size=1, max_size=15),
    st.lists(st.integers(1, 9), min_size=1, max_size=9),
    st.integers(1, 10),
)
def test_tables_of_whole_users_do_not_depend_on_the_batches(clicks, sizes, chunk):
    """clicks: of each user. sizes: of batches, over and over."""
    user = np.repeat(np.arange(len(clicks)), clicks)
    cuts = [cut for cut in np.cumsum(np.resize(sizes, len(user))).tolist() if cut < len(user)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(events, "CHUNK", chunk)
        parts, whole = (
            [table["user"].to_pylist() for table in events._whole_users(batches)]
            for batches in (
                [pa.record_batch({"user": user[start:stop]}) for start, stop in pairwise(ends)]
                for ends in ([0, *cuts, len(user)], [0, len(user)])
            )
        )
    assert parts == whole
    assert [one for part in parts for one in part] == user.tolist()
    assert all(one[-1] < other[0] for one, other in pairwise(parts)), "a user is whole"


def test_a_dataset_says_the_same_however_few_clicks_are_worked_on_at_once(tmp_path, monkeypatch):
    rng = np.random.default_rng(0)
    log = [
        ("abcdefg"[user], item, time) for user, item, time in rng.integers(0, (7, 8, 9), (90, 3))
    ]
    made = []
    for chunk in (1 << 18, 3):
        monkeypatch.setattr(events, "CHUNK", chunk)
        monkeypatch.setattr(writing, "VALUES", 64 * chunk)
        (tmp_path / str(chunk)).mkdir()
        out, facts = imported(tmp_path / str(chunk), log, negatives=2, max_history=4)
        files = [path.relative_to(out) for path in sorted(out.rglob("*.parquet"))]
        made.append([facts["counts"], *(pq.read_table(out / path) for path in files)])
        groups = pq.ParquetFile(out / "MicroLens_1M_x1" / "train.parquet").num_row_groups
    assert made[0] == made[1]
    assert groups > 1
