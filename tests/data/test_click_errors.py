"""Scripts among users, against loops and against clicks whose making is known."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mmctr.data import click_errors, schema
from mmctr.data.click_errors import ClickLog
from mmctr.data.dataset import Dataset
from mmctr.data.impressions import Impressions
from tests.data.folders import load_changed

SECOND = 1_000_000_000


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return load_changed(tmp_path_factory.mktemp("four"), {})


def log_of(folder, users, n_items=50):
    """A log of users' clicks: {user: [(item, seconds)]}, each a row with its history before it."""
    lines, flat = [], []
    for user, clicks in users.items():
        start = len(flat)
        flat += [item for item, _ in clicks]
        lines += [(user, item, start, start + n, when) for n, (item, when) in enumerate(clicks)]
    user, target, starts, ends, time = map(np.array, zip(*lines, strict=True))
    rows = Impressions(
        *(user, target.astype(np.int32), np.ones(len(user), np.float32), starts, ends),
        np.array(flat, np.int32),
        time=(time * SECOND).astype(np.int64),
    )
    none = rows.select(np.zeros(0, int))
    tags = np.ones((n_items + 1, 1), np.int32)
    catalog = replace(folder.catalog, tags=tags, own_ids=None, covers={})
    return ClickLog(replace(folder, catalog=catalog, splits={"train": rows, "valid": none}))


def found(log, name):
    """The users whose score reaches the threshold of a kind."""
    (kind,) = (kind for kind in click_errors.KINDS if kind.name == name)
    return log.users[kind.score(log) >= kind.threshold].tolist()


@given(
    st.dictionaries(
        st.integers(1, 5), st.lists(st.integers(0, 200), min_size=1, max_size=30), min_size=1
    ),
    st.sampled_from([1, 10, 60]),
)
def test_most_clicks_within_a_time(folder, times, seconds):
    log = log_of(folder, {user: [(1, when) for when in sorted(of)] for user, of in times.items()})
    if log.clock > seconds * SECOND:
        assert "in steps of" in click_errors.most_within(log, seconds)
        return
    expected = [
        max(sum(t <= u < t + seconds for u in times[k]) for t in times[k]) for k in log.users
    ]
    assert click_errors.most_within(log, seconds).tolist() == expected


def test_rates_and_bursts_of_scripts_among_people(folder):
    rng = np.random.default_rng(0)
    users = {
        user: [(int(item), 1000 * user + 7 * n + int(rng.integers(3))) for n, item in enumerate(of)]
        for user, of in enumerate(rng.integers(1, 51, (60, 30)), start=1)
    }
    users[100] = [(1 + n % 50, 0.5 * n) for n in range(100)]  # twice a second
    users[101] = [(1 + n, 5e5 + 0.01 * n) for n in range(20)]  # all at once
    log = log_of(folder, users)
    assert found(log, "rate") == [100]
    assert found(log, "burst") == [101]


def test_times_in_days_tell_no_rate(folder):
    log = log_of(folder, {1: [(n, 86400 * (n // 30)) for n in range(1, 50)]})
    assert "in steps of 86,400 seconds" in click_errors.most_within(log, 60)


def test_without_times_no_rate(folder):
    log = ClickLog(folder)
    assert click_errors.most_within(log, 60) == "the rows have no times"


def test_sweeps_of_the_catalog(folder):
    rng = np.random.default_rng(1)
    people = {
        u: [(int(i), 60 * n) for n, i in enumerate(rng.permutation(400)[:40] + 1)]
        for u in range(1, 30)
    }
    up = [(n, n) for n in range(100, 112)]
    down = [(n, n) for n in range(60, 48, -1)]
    most = [(int(n) + 1, n) for n in rng.permutation(400)[:230]]
    gaps = [(n, n) for n in range(1, 80, 2)]  # every second item is no sweep
    log = log_of(folder, people | {90: up, 91: down, 92: most, 93: gaps}, n_items=400)
    assert found(log, "sweep") == [90, 91, 92]


def test_whoever_copies_an_earlier_user(folder):
    rng = np.random.default_rng(2)
    clicks = {user: (rng.permutation(300)[:40] + 1).tolist() for user in range(1, 40)}
    clicks[50] = clicks[7]
    clicks[51] = clicks[8][5:25]  # a part, in order
    clicks[52] = clicks[9][::-1]  # the same items in another order
    clicks[53] = clicks[10][:12]  # too few to be sure
    log = log_of(folder, {u: [(i, n) for n, i in enumerate(of)] for u, of in clicks.items()}, 300)
    assert found(log, "copy") == [50, 51]
    # A row's history lacks the last click.
    assert click_errors.copied(log)[log.users == 51] == 19


def test_clicks_before_the_item_came(tmp_path):
    times = {"train": {"time": [10, 20, 30, 5]}, "valid": {"time": [50, 60]}, "test": None}
    feature = {schema.AVAILABLE: [0, 15, None, 25]}  # of items 4, 2, 1, 3
    data = load_changed(tmp_path, times | {"item_feature": feature})
    # Clicks: user 7 on item 3 at 20, user 8 on item 1 at 5, user 7 on item 4 at 50.
    log = ClickLog(data)
    assert dict(zip(log.users, click_errors.too_early(log), strict=True)) == {7: 1, 8: 0, 9: 0}


def test_without_the_items_dates_it_is_not_told(folder):
    assert "does not say when items came" in click_errors.too_early(ClickLog(folder))


def clicked_by_chance(folder, rate, rng, users=300, each=40):
    """Rows whose label is drawn by a probability that the popularity levels tell."""
    level = rng.integers(1, 11, 51).astype(np.int8)
    level[0] = 0
    n = users * each
    target = rng.integers(1, 51, n).astype(np.int32)
    probability = (rate * level / 5.5)[target]
    label = (rng.random(n) < probability).astype(np.float32)
    user, zero = np.repeat(np.arange(1, users + 1), each), np.zeros(n, np.int64)
    rows = Impressions(user, target, label, zero, zero, np.zeros(0, np.int32))
    catalog = replace(
        folder.catalog,
        tags=np.ones((51, 1), np.int32),
        likes_level=level,
        views_level=level,
        own_ids=None,
    )
    return replace(folder, catalog=catalog, splits={"train": rows, "valid": rows})


@pytest.mark.parametrize("rate", [0.03, 0.25])
def test_a_rare_click_is_no_error(folder, rate):
    """Of calibrated labels hardly anything is found, and whoever clicks on everything is."""
    data = clicked_by_chance(folder, rate, np.random.default_rng(3))
    assert len(found(ClickLog(data), "labels")) <= 2  # of 300
    label = data.train.label.copy()
    label[data.train.user == 17] = 1
    spoilt = {"train": replace(data.train, label=label), "valid": data.valid}
    assert 17 in found(ClickLog(replace(data, splits=spoilt)), "labels")


def test_drawn_negatives_are_no_labels(folder):
    data = clicked_by_chance(folder, 0.25, np.random.default_rng(4))
    vars(data)["negatives_from"] = "sampled"
    assert "drawn by the import" in click_errors.unlike_labels(ClickLog(data))


def test_few_users_tell_nothing(folder):
    assert click_errors.unlike_labels(ClickLog(folder)) == "train has too few users or rows"


def test_every_kind_says_why():
    for kind in click_errors.KINDS:
        assert kind.what == "user"
        assert kind.reason
        assert kind.false_alarms


def test_a_log_without_clicks_has_no_scripts(folder):
    rows = folder.train.select(np.flatnonzero(folder.train.label == 0))
    rows = replace(rows, time=np.arange(len(rows), dtype=np.int64))
    data = Dataset(folder.folder, folder.catalog, {"train": rows, "valid": rows})
    log = ClickLog(data)
    assert not click_errors.most_within(log, 60).any()
    assert isinstance(pd.Series(click_errors.copied(log)).sum(), float)
