"""Recommendations are the best of all candidates by the model itself, without what was clicked."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from mmctr.data.dataset import Dataset
from mmctr.data.impressions import Impressions
from mmctr.errors import DataError
from mmctr.evaluation.recommend import Clicks, read_candidates, recommend, write_table
from mmctr.runs.train import train
from mmctr.training.config import configs
from mmctr.training.prediction import predict
from tests.data.folders import load_with_fields
from tests.data.importing.logs import imported


def row_of(history, target):
    """One row to be scored."""
    ends = np.array([len(history)])
    target = np.array([target], dtype=np.int32)
    return Impressions(
        np.array([1]), target, None, ends * 0, ends, np.array(history, dtype=np.int32)
    )


@pytest.mark.parametrize("split", ["last-two", "date"])
@pytest.mark.parametrize("cap", [3, 100])
def test_a_history_is_every_click_of_the_log_oldest_first(tmp_path, split, cap):
    rng = np.random.default_rng(0)
    clicks = {user: rng.permutation(12)[:9].tolist() for user in "abc"}
    log = [(user, clicks[user][time], time) for time in range(9) for user in "abc"]
    out, _ = imported(tmp_path, log, split=split, max_history=cap, say=lambda _: None)
    dataset = Dataset.load(out)
    clicks = Clicks(dataset)
    for user in "abc":
        number = int(dataset.users([user])[0])
        own = [f"i{item}" for name, item, _ in log if name == user]
        found = dataset.catalog.ids[clicks.history(number)].tolist()
        assert found == own[-len(found) :]
        assert len(found) >= min(cap, len(own))
        assert set(dataset.catalog.ids[clicks.seen(number)]) == set(own)


def test_without_times_the_longest_history_is_the_latest(tiny):
    timeless = {name: replace(rows, time=None) for name, rows in tiny.splits.items()}
    clicks = Clicks(replace(tiny, splits=timeless))
    assert not clicks.has_times
    for user in np.unique(tiny.train.user)[:40]:
        rows = [
            (rows.history(row).tolist(), int(rows.target[row]), rows.label[row])
            for rows in tiny.splits.values()
            for row in np.flatnonzero(rows.user == user)
        ]
        longest = max(len(history) for history, _, _ in rows)
        late = [row for row in rows if len(row[0]) == longest]
        history = late[-1][0]
        after = [item for _, item, label in late if label == 1 and item not in history]
        assert clicks.history(user).tolist() == history + after
        seen = {item for history, _, _ in rows for item in history}
        seen |= {item for _, item, label in rows if label == 1}
        assert set(clicks.seen(user).tolist()) == seen


def test_the_best_candidates_are_those_that_the_model_itself_ranks_first(tiny, tiny_run):
    users = np.unique(tiny.valid.user)[[3, 1]]
    wanted = np.arange(40, 90)
    table = recommend(tiny_run, tiny, [str(user) for user in users], wanted, top=7)
    clicks, model = Clicks(tiny), tiny_run.model()
    assert list(dict.fromkeys(table["user_id"])) == [str(user) for user in users]
    for user in users:
        history = clicks.history(user).tolist()
        asked = [item for item in wanted if item not in clicks.seen(user)]
        scores = [float(predict(model, row_of(history, item))[0]) for item in asked]
        best = sorted(zip(scores, asked, strict=True), reverse=True)[:7]
        found = table[table["user_id"] == str(user)]
        assert found["rank"].tolist() == list(range(1, 8))
        np.testing.assert_allclose(found["score"], [score for score, _ in best], rtol=1e-4)
        assert found["item_id"].tolist() == [str(item) for _, item in best]
        titles = [tiny.catalog.titles[item] for _, item in best]
        assert found["title"].tolist() == titles
    assert not table["new"].any()


def test_all_users_and_all_items_if_none_are_named(tiny, tiny_run):
    table = recommend(tiny_run, tiny, top=1)
    users = np.unique(np.concatenate([rows.user for rows in tiny.splits.values()]))
    assert sorted(table["user_id"]) == sorted(users.astype(str))


def test_a_user_may_have_clicked_nothing_or_all_candidates(tiny, tiny_run):
    nobody = Impressions(
        np.array([10**6]),
        *(np.array([5], dtype=np.int32), np.zeros(1, dtype=np.float32)),
        *(np.zeros(1, dtype=np.int64), np.zeros(1, dtype=np.int64)),
        np.zeros(0, dtype=np.int32),
    )
    dataset = Dataset(tiny.folder, tiny.catalog, tiny.splits | {"test": nobody})
    table = recommend(tiny_run, dataset, ["1000000"], np.arange(1, 11), top=3)
    assert len(table) == 3
    expected = predict(tiny_run.model(), row_of([], int(table["item_id"][0])))
    np.testing.assert_allclose(table["score"][0], expected[0], rtol=1e-4)
    user = int(tiny.valid.user[0])
    assert recommend(tiny_run, tiny, [str(user)], Clicks(tiny).seen(user)).empty


def test_the_user_s_fields_are_read_and_the_context_is_unknown(tmp_path):
    dataset = load_with_fields(tmp_path)
    clicks = Clicks(dataset)
    assert clicks.codes(7).tolist() == [2, 0, 0]  # FR of user 7, neither device nor position
    small = configs(epochs=1, embedding_dim=4, heads=1, hidden=(4,), batch_size=4)
    run = train(dataset, "ids", *small, tmp_path / "runs")
    table = recommend(run, dataset, ["7"])
    items = dataset.catalog.numbers(table["item_id"])
    history = clicks.history(7)
    for item, score in zip(items, table["score"], strict=True):
        row = replace(row_of(history, item), fields=np.array([[2, 0, 0]], dtype=np.int32))
        np.testing.assert_allclose(predict(run.model(), row), [score], rtol=1e-4)


def test_unknown_users_and_items_are_one_sentence(tiny, tiny_run, tmp_path):
    with pytest.raises(DataError, match=r"Found user 'nobody', expected one of the 241 users of"):
        recommend(tiny_run, tiny, ["nobody"])
    path = tmp_path / "items.txt"
    path.write_text("1\nnothing\n")
    with pytest.raises(DataError, match=r"Found item 'nothing', expected one of the 300 items"):
        read_candidates(path, tiny.catalog)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("items.txt", "3\n 1 \n\n3\n"),
        ("items.txt", "\ufeff3\r\n1\r\n"),
        ("items.csv", "title,item_id\nA,3\nB,1\n"),
        ("items.csv", 'item_id,title\n"3","a, b"\n1,\n'),
        ("items.parquet", pa.array([3, 1])),
        ("items.parquet", pa.array(["3", "1", "3"])),
    ],
)
def test_candidates_are_read_from_what_people_have(tiny, tmp_path, name, text):
    path = tmp_path / name
    if isinstance(text, str):
        path.write_bytes(text.encode())
    else:
        pq.write_table(pa.table({"item_id": text, "more": text}), path)
    assert read_candidates(path, tiny.catalog).tolist() == [3, 1]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("items.txt", None, r"items.txt cannot be read \("),
        ("items.txt", b"\xff\xfe", r"items.txt cannot be read \("),
        ("items.txt", b"\n", "names no items, expected an id a line"),
        ("items.parquet", b"1", "is not a readable parquet file"),
    ],
)
def test_candidates_that_cannot_be_read_are_one_sentence(tiny, tmp_path, name, content, message):
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError, match=message):
        read_candidates(tmp_path / name, tiny.catalog)


@pytest.mark.parametrize("ending", ["csv", "parquet"])
def test_a_table_is_written_and_reads_back(tiny, tiny_run, tmp_path, ending):
    table = recommend(tiny_run, tiny, [str(tiny.valid.user[0])], top=3)
    path = tmp_path / f"out.{ending}"
    write_table(path, table)
    kinds = {"user_id": str, "item_id": str}
    again = pd.read_csv(path, dtype=kinds) if ending == "csv" else pd.read_parquet(path)
    pd.testing.assert_frame_equal(again, table, check_dtype=False)
