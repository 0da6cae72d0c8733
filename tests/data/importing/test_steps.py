"""A whole import: no row sees its future."""

import tempfile
from collections import Counter
from pathlib import Path

import numpy as np
import pandas as pd
from hypothesis import given, settings
from hypothesis import strategies as st

from mmctr.data.dataset import Dataset
from mmctr.data.popularity import popularity_levels
from mmctr.errors import ConfigError
from tests.data.importing.logs import imported, log_rows


def first_clicks(log):
    """The log as the importer should see it: each user's first click on each item, by time."""
    seen = {}
    for user, item, time in sorted(log, key=lambda row: row[2]):
        seen.setdefault((user, item), time)
    return seen


@settings(max_examples=40)
@given(log_rows, st.sampled_from(["uniform", "popularity"]), st.integers(1, 4))
def test_nothing_leaks(log, sampling, max_history):
    with tempfile.TemporaryDirectory() as name:
        options = {"sampling": sampling, "negatives": 2, "max_history": max_history}
        try:
            out, _ = imported(Path(name), log, **options)
        except ConfigError as error:
            mine = [user for user, _ in first_clicks(log)]
            few = max(map(mine.count, mine)) < 3
            assert ("No user has three" if few else "clicked every item") in str(error)
            return
        frames = {
            split: pd.read_parquet(out / "MicroLens_1M_x1" / f"{split}.parquet")
            for split in ("train", "valid", "test")
        }
        users = pd.read_parquet(out / "user_ids.parquet").set_index("user_id")["original_id"]
        items = pd.read_parquet(out / "item_feature.parquet").set_index("item_id")
        dataset = Dataset.load(out)
    time_of = first_clicks(log)
    rows = pd.concat(frames.values(), ignore_index=True)
    positives = rows[rows["label"] == 1]
    targets = {
        (users[row.user_id], row.item_id - 1): row.item_seq for row in positives.itertuples()
    }
    assert set(targets) == set(time_of), "every first click is a target once"
    assert len(positives) == len(time_of)
    for (user, item), history in targets.items():
        now = time_of[user, item]
        earlier = {i for (u, i), time in time_of.items() if u == user and time < now}
        assert len(history) == min(max_history, len(earlier))
        assert {number - 1 for number in history} <= earlier
        times = [time_of[user, number - 1] for number in history]
        assert times == sorted(times), "oldest first"
        if len(earlier) > max_history:
            left_out = [time_of[user, i] for i in earlier if i + 1 not in history]
            assert max(left_out) <= min(times), "the latest clicks are kept"
    for row in rows[rows["label"] == 0].itertuples():
        assert (users[row.user_id], row.item_id - 1) not in time_of, "a negative was clicked"
    clicked = rows.iloc[np.arange(len(rows)) // 3 * 3]
    for name in ("user_id", "time", "item_seq"):
        assert clicked[name].map(str).tolist() == rows[name].map(str).tolist()
    assert (rows.groupby(np.arange(len(rows)) // 3)["label"].sum() == 1).all()
    assert (rows["label"].to_numpy()[::3] == 1).all()
    train = frames["train"]
    counts = train[train["label"] == 1]["item_id"].value_counts().reindex(items.index).fillna(0)
    expected = popularity_levels(counts.to_numpy(), counts.sum(), len(items))
    found = items[["likes_level", "views_level"]].to_numpy()
    assert found.tolist() == expected.tolist(), "levels know of train clicks only"
    learned = [(row.time, row.item_id) for row in train.itertuples() if row.label]
    for split, frame in frames.items():
        levels = dataset.split(split).levels
        for place, row in enumerate(frame.itertuples()):
            before = [item for time, item in learned if time < row.time]
            own = np.array([before.count(row.item_id)])
            expected = popularity_levels(own, len(before), len(items))
            assert levels[place].tolist() == expected[0].tolist(), "and of earlier ones"
    for user in set(users[rows["user_id"]]):
        mine = sum(1 for name, _ in time_of if name == user)
        held = [
            (users[frames[split].query("label == 1")["user_id"]] == user).sum()
            for split in ("valid", "test")
        ]
        assert held == ([1, 1] if mine >= 3 else [0, 0])


def test_one_seed_gives_one_dataset(tmp_path):
    log = [("abc"[number % 3], number % 8, number) for number in range(30)]
    prints = []
    for seed, name in ((1, "one"), (1, "two"), (2, "three")):
        (tmp_path / name).mkdir()
        out, _ = imported(tmp_path / name, log, seed=seed)
        prints.append(Dataset.load(out).fingerprint)
    assert prints[0] == prints[1] != prints[2]


@settings(max_examples=20)
@given(log_rows, st.booleans(), st.data())
def test_what_comes_later_changes_nothing_before(log, labelled, data):
    """Rows from a time on are changed or left out: earlier rows keep histories and levels."""
    log = [("a", 0, 0), ("a", 1, 5), ("a", 2, 9), ("b", 8, 0), ("b", 9, 7), *log]
    labels = data.draw(st.lists(st.booleans(), min_size=len(log), max_size=len(log)))
    labels[:4] = True, True, True, False
    cut = data.draw(st.integers(1, 9))
    kept = [(*row, label) for row, label in zip(log, labels, strict=True) if row[2] < cut]
    later = [(*row, label) for row, label in zip(log, labels, strict=True) if row[2] >= cut]
    changed = [
        (user, data.draw(st.integers(0, 9)), data.draw(st.integers(cut, 9)), label)
        for user, _, _, label in data.draw(st.permutations(later))
        if data.draw(st.booleans())
    ]
    ends = [("a", 10, 5, True), ("a", 11, 9, True)]  # of valid and test, which must not be empty
    options = {"split": "date", "valid_from": 5, "test_from": 8}
    options |= {"label_column": "label"} if labelled else {"negatives": 0}
    found = []
    for rows in ([*kept, *later, *ends], [*kept, *changed, *ends]):
        frame = pd.DataFrame(rows, columns=["user_id", "item_id", "timestamp", "label"])
        frame = frame.assign(item_id="i" + frame["item_id"].astype(str))
        with tempfile.TemporaryDirectory() as name:
            out, _ = imported(Path(name), frame, **options)
            dataset, users = Dataset.load(out), pd.read_parquet(out / "user_ids.parquet")
            own = users.set_index("user_id")["original_id"]
            found.append(
                Counter(
                    (
                        *(own[part.user[row]], part.target[row], part.time[row]),
                        *(tuple(part.history(row)), tuple(part.levels[row])),
                    )
                    for part in dataset.splits.values()
                    for row in range(len(part))
                    if part.time[row] < cut * 86_400 * 10**9
                )
            )
    assert found[0] == found[1]
    assert found[0]
