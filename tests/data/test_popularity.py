"""Popularity as of a time."""

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mmctr.data.impressions import Impressions
from mmctr.data.popularity import Popularity, popularity_levels

N_ITEMS = 5
rows = st.lists(
    st.tuples(st.integers(1, N_ITEMS), st.integers(-3, 6), st.booleans()), min_size=1, max_size=60
)


def impressions(log):
    """Train rows of (item, time, label)."""
    item, time, label = map(np.array, zip(*log, strict=True))
    nothing = np.zeros(len(log), dtype=np.int64)
    return Impressions(
        nothing,
        item.astype(np.int32),
        label.astype(np.float32),
        nothing,
        nothing,
        nothing.astype(np.int32),
        time=time.astype(np.int64),
    )


@given(rows, st.lists(st.tuples(st.integers(0, N_ITEMS), st.integers(-5, 8)), min_size=1))
def test_clicks_are_those_of_a_naive_loop(log, asked):
    """Those strictly before: neither the click itself, nor another of its time."""
    popularity = Popularity(impressions(log), N_ITEMS)
    item, time = map(np.array, zip(*asked, strict=True))
    found, levels = popularity.clicks(item, time), popularity.levels(item, time)
    for place, (one, now) in enumerate(asked):
        before = [i for i, then, clicked in log if clicked and then < now]
        own = before.count(one)
        assert found[place] == own
        if not own:
            assert levels[place].tolist() == [0, 0]
            continue
        # By whole numbers: the smallest level whose clicks suffice, the largest that is reached.
        likes = next(level for level in range(1, 11) if own <= 2 ** (level - 1))
        times_the_mean = Fraction(own * N_ITEMS, len(before))
        views = max(
            level for level in range(1, 11) if level == 1 or times_the_mean**2 >= 2.0 ** (level - 5)
        )
        assert levels[place].tolist() == [likes, views]


@pytest.mark.parametrize(
    ("clicks", "all_clicks", "levels"),
    [
        (0, 0, (0, 0)),
        (0, 900, (0, 0)),
        (1, 100, (1, 5)),  # as often as the mean of 100 items
        (2, 100, (2, 7)),
        (3, 100, (3, 8)),
        (4, 400, (3, 5)),
        (5, 400, (4, 5)),
        (1, 101, (1, 4)),
        (1, 100_000, (1, 1)),
        (512, 512, (10, 10)),
        (10**9, 10**9, (10, 10)),
    ],
)
def test_levels_by_hand(clicks, all_clicks, levels):
    found = popularity_levels(np.array([clicks]), all_clicks, n_items=100)
    assert found.tolist() == [list(levels)]
    assert found.dtype == np.int8


@given(st.integers(1, 10**12), st.integers(1, 10**12), st.integers(1, 10**8))
def test_levels_rise_with_clicks_and_stay_within_what_a_file_may_hold(clicks, further, n_items):
    few, many = popularity_levels(np.array([clicks, clicks + further]), clicks + further, n_items)
    assert (few <= many).all() and few.min() >= 1 and many.max() <= 10


def test_who_is_clicked_like_everyone_has_the_same_level_early_and_late():
    early = popularity_levels(np.array([1]), 10, n_items=10)
    late = popularity_levels(np.array([1000]), 10_000, n_items=10)
    assert early[0, 1] == late[0, 1] == 5
