"""Windows follow each other in time, and nothing of the future is known in any of them."""

from collections import Counter
from dataclasses import replace
from itertools import chain, pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mmctr.data.popularity import popularity_levels
from mmctr.errors import ConfigError, DataError
from mmctr.evaluation.windows import cut, windows
from mmctr.training.negatives import FreshNegatives
from tests.data.folders import histories, load_changed
from tests.evaluation.timed import log_of, timed


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    """The log, split by date; do not change it."""
    return timed(tmp_path_factory.mktemp("log"))


def told(rows, *further):
    """Each row as a tuple: user, target, label, time, history, and further fields."""
    columns = [getattr(rows, name).tolist() for name in ("user", "target", "label", "time")]
    columns += [map(tuple, histories(rows)), *(getattr(rows, n).tolist() for n in further)]
    return list(zip(*columns, strict=True))


def inputs(window):
    """All that a model learns from or is given before the window begins."""
    known = []
    for data in window.datasets():
        splits = [str(told(data.split(name), "levels")) for name in ("train", "valid")]
        levels = [data.catalog.likes_level, data.catalog.views_level, data.train_clicks()]
        target = FreshNegatives(data).targets(np.random.default_rng(0))
        known += [*splits, *(array.tolist() for array in levels), target.tolist()]
    return known


@given(
    times=st.lists(st.integers(0, 9), min_size=1, max_size=40),
    shares=st.lists(st.floats(0.01, 0.99), min_size=1, max_size=4),
)
def test_rows_are_cut_at_the_nearest_change_of_time(times, shares):
    time = np.sort(np.array(times))
    changes = [0, *(i for i in range(1, len(time)) if time[i] != time[i - 1]), len(time)]
    for share, place in zip(shares, cut(time, 0, len(time), np.array(shares)), strict=True):
        nearest = min(abs(change - share * len(time)) for change in changes)
        assert place in changes and abs(place - share * len(time)) == pytest.approx(nearest)


def test_windows_have_every_row_once_and_follow_each_other(dataset):
    found, count = windows(dataset, 3), sum(map(len, dataset.splits.values()))
    tested = []
    for window in found:
        whole, newest = window.datasets()
        assert newest.valid is whole.valid and newest.split("test") is whole.split("test")
        parts = [told(rows) for rows in whole.splits.values()]
        for earlier, later in pairwise(parts):
            assert max(row[3] for row in earlier) < min(row[3] for row in later)
        assert len(parts[0]) + len(parts[1]) == pytest.approx(window.number * count / 4, abs=20)
        assert len(parts[1]) == pytest.approx(count / 40, abs=10)
        tested.append(parts[2])
        # Warm training has the part just before the window, but for what it is stopped by.
        before = tested[-2] if window.number > 1 else parts[0] + parts[1]
        assert Counter(told(newest.train)) + Counter(parts[1]) == Counter(before)
    everything = chain.from_iterable(told(rows) for rows in dataset.splits.values())
    first = told(found[0].datasets()[0].train) + told(found[0].datasets()[0].valid)
    assert Counter(chain(first, *tested)) == Counter(everything)


@pytest.mark.parametrize("number", [1, 2, 3])
def test_what_happens_later_changes_nothing_that_is_known_before(dataset, number):
    before = windows(dataset, 3)[number - 1]
    rng = np.random.default_rng(number)
    splits = {}
    for name, rows in dataset.splits.items():
        later = rows.time >= before.rows.time[before.test]
        assert later.any() or name == "train"
        other = rng.integers(1, dataset.catalog.n_items + 1, size=len(rows)).astype(np.int32)
        splits[name] = replace(
            rows,
            user=np.where(later, rng.permutation(rows.user), rows.user),
            target=np.where(later, other, rows.target),
            label=np.where(later, rng.permutation(rows.label), rows.label),
            levels=np.where(later[:, None], 9, rows.levels).astype(np.int8),
            history_start=np.where(later, 0, rows.history_start),
            history_end=np.where(later, 0, rows.history_end),
        )
    catalog = dataset.catalog
    catalog = replace(catalog, likes_level=catalog.likes_level * 0, views_level=catalog.tags[:, 0])
    changed = replace(dataset, catalog=catalog, splits=splits)
    after = windows(changed, 3)[number - 1]
    assert inputs(after) == inputs(before)
    # Of a row to be tested popularity at its time is known, and that is of train clicks alone.
    clicks = [row for row in told(before.datasets()[0].train) if row[2]]
    rows = after.datasets()[0].split("test")
    for target, levels in zip(rows.target, rows.levels, strict=True):
        own = np.array(sum(click[1] == target for click in clicks))
        assert levels.tolist() == popularity_levels(own, len(clicks), catalog.n_items).tolist()


def test_popularity_is_of_train_clicks_before_a_rows_time(dataset):
    for data in windows(dataset, 2)[1].datasets():
        known = [row for row in told(data.known_rows) if row[2]]
        n_items = data.catalog.n_items
        for rows in data.splits.values():
            for target, time, levels in zip(rows.target, rows.time, rows.levels, strict=True):
                before = [row[1] for row in known if row[3] < time]
                own = np.array(before.count(target))
                assert levels.tolist() == popularity_levels(own, len(before), n_items).tolist()
        every = np.bincount([row[1] for row in known], minlength=n_items + 1)
        assert data.train_clicks().tolist() == every.tolist()
        catalog = np.stack([data.catalog.likes_level, data.catalog.views_level], axis=1)
        assert catalog.tolist() == popularity_levels(every, every.sum(), n_items).tolist()


def test_fresh_negatives_of_the_newest_rows_were_never_clicked_before(dataset):
    _, newest = windows(dataset, 3)[2].datasets()
    clicked = {row[:2] for row in told(newest.known_rows) if row[2]}
    fresh, rows = FreshNegatives(newest), newest.train
    for seed in range(5):
        target = fresh.targets(np.random.default_rng(seed))
        drawn = zip(rows.user, target, rows.label, strict=True)
        assert not clicked & {(u, t) for u, t, label in drawn if not label}
        assert (fresh.levels(target)[rows.label == 1] == rows.levels[rows.label == 1]).all()


DAY = 86_400 * 10**9
SPLITS = [
    {"split": "date"},
    {"split": "last-two"},
    {"split": "new-items", "new_share": 0.45},
    {"split": "date", "max_history": 2},
]


@pytest.mark.parametrize("options", SPLITS, ids=lambda chosen: "-".join(map(str, chosen.values())))
def test_histories_are_those_of_a_rows_time_whatever_the_split(tmp_path, options):
    """What windows rely on: a history holds its user's clicks before the row's time, no others,
    and all of them, but for those of items that an import held out."""
    dataset = timed(tmp_path, **options)
    held_out, own_ids = dataset.catalog.held_out, dataset.catalog.ids
    new = [] if held_out is None else own_ids[held_out > 0]
    log = sorted((user, time, f"i{item}") for user, item, time in set(log_of()))
    for rows in dataset.splits.values():
        users, longest = dataset.user_names(rows.user), options.get("max_history", 100)
        for user, time, history in zip(users, rows.time, histories(rows), strict=True):
            found = [own_ids[item] for item in history]
            earlier = [(t, item) for u, t, item in log if u == user and t * DAY < time]
            new = (
                {own_ids[item] for item in np.flatnonzero(held_out)} if held_out is not None else ()
            )
            earlier = [click for click in earlier if click[1] not in new]
            assert len(found) == min(longest, len(earlier))
            # Clicks of one time may stand in either order.
            times = dict(map(reversed, earlier))
            assert [times[item] for item in found] == [t for t, _ in earlier][-len(found) or 99 :]


def test_new_items_of_an_import_are_items_like_others(tmp_path):
    dataset = timed(tmp_path, split="new-items", new_share=0.45)
    assert dataset.catalog.held_out.any()
    whole, _ = windows(dataset, 2)[1].datasets()
    assert whole.catalog.held_out is None
    assert whole.train_clicks()[dataset.catalog.held_out > 0].any()


def test_what_cannot_be_cut_is_one_sentence(tmp_path, dataset):
    with pytest.raises(DataError, match=r"has no column time in train\.parquet, expected the time"):
        windows(load_changed(tmp_path / "challenge", {}), 2)
    with pytest.raises(ConfigError, match=r"Window \d+ of 60 has \d+ rows to .* fewer windows"):
        windows(dataset, 60)


def test_rows_without_labels_are_left_out(dataset):
    test = replace(dataset.split("test"), label=None)
    blind = replace(dataset, splits=dataset.splits | {"test": test})
    kept = sum(len(dataset.split(name)) for name in ("train", "valid"))
    assert windows(blind, 2)[-1].end == kept
