"""Drawing negatives for a log."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mmctr.data.dataset import Dataset
from mmctr.data.importing import negatives
from mmctr.data.importing.events import Events
from mmctr.data.importing.negatives import NegativeSampler, sample_negatives
from mmctr.data.importing.recipe import Recipe
from mmctr.errors import ConfigError
from tests.data.importing.logs import imported

ITEMS = 6
clicks = st.lists(st.tuples(st.integers(0, 4), st.integers(1, ITEMS)), min_size=1, max_size=40)


def sampler(log, weight):
    """Of rows (user number, item)."""
    user, item = np.array(log).T
    return NegativeSampler(np.array(weight), user, item)


def points(seed):
    """Random numbers for any rows and attempts."""
    rng = np.random.default_rng(seed)
    return lambda rows, attempt: rng.random(len(rows))


weights = st.lists(st.sampled_from([0, 0, 1, 1, 2.5]), min_size=ITEMS + 1, max_size=ITEMS + 1)


@given(clicks, weights, st.integers(0, 5), st.integers(1, 9), st.sampled_from([1, 3, 22]))
def test_nobody_is_shown_what_they_clicked(log, weight, seed, block, sieve):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(negatives, "BLOCK", block)
        patch.setattr(negatives, "SIEVE", sieve)
        asked = np.repeat(np.arange(5), 4)
        drawn = sampler(log, weight).draw(asked, points(seed))
    known = {item for item in range(1, ITEMS + 1) if weight[item]}
    for user, item in zip(asked, drawn, strict=True):
        left = known - {i for u, i in log if u == user}
        assert item in left if left else item == 0


@given(clicks, st.booleans(), st.integers(1, 4), st.integers(1, 9), st.sampled_from([1, 3, 22]))
def test_draws_are_those_of_a_naive_loop(log, popular, draws, block, sieve):
    """The first attempt whose item the user never clicked, told by a hash of words alone."""
    log = sorted({*log, (5, 1)})
    user, item = np.array(log).T
    first = np.searchsorted(user, user)
    events = Events(user, item, *np.ones((3, len(log)), dtype=int), first, first, None, None)
    counts = np.bincount(item, minlength=ITEMS + 1)
    recipe = Recipe(negatives=draws, seed=3, sampling="popularity" if popular else "uniform")
    weight = counts * 1.0 if popular else np.r_[0, np.ones(ITEMS)]
    expected = []
    for mine, clicked in log:
        state = negatives.mixed(np.uint64(3), np.array([mine]), np.array([clicked]))
        for draw in range(draws):
            for attempt in range(30):
                word = negatives.mixed(state, np.array([draw * 31 + attempt]))
                point = float(word[0] >> np.uint64(11)) * 2.0**-53 * weight.sum()
                found = int((np.cumsum(weight) <= point).sum())
                if (mine, found) not in log:
                    break
            else:
                return  # the user clicked nearly everything
            expected.append(found)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(negatives, "BLOCK", block)
        patch.setattr(negatives, "SIEVE", sieve)
        drawn = sample_negatives(events, counts, np.zeros(ITEMS + 1, dtype=np.int8), recipe, str)
    assert drawn.ravel().tolist() == expected


@pytest.mark.parametrize(
    ("weight", "expected"),
    [
        (np.ones(ITEMS + 1), {2: 1 / 3, 5: 1 / 3, 6: 1 / 3}),
        ([9, 50, 1, 50, 50, 3, 6], {2: 0.1, 5: 0.3, 6: 0.6}),
        ([1, 1, 0, 1, 1, 1, 1], {5: 0.5, 6: 0.5}),
        ([7, 0, 3, 3, 0, 3, 0], {2: 0.5, 5: 0.5}),
    ],
)
def test_chances_are_those_of_the_weights(weight, expected):
    log = [(0, 1), (0, 3), (0, 4), (1, 2)]
    found = sampler(log, weight)
    drawn = found.draw(np.zeros(30_000, dtype=np.int64), points(0))
    for item in range(1, ITEMS + 1):
        chance = expected.get(item, 0)
        # Four standard deviations of a share.
        assert abs((drawn == item).mean() - chance) <= 4 * (chance * (1 - chance) / 30_000) ** 0.5


def test_the_last_item_left_is_found():
    log = [(0, item) for item in range(1, 2000)] + [(1, 3)]
    for last in (1.0, 1e-9):
        found = sampler(log, np.r_[np.ones(2000), last])
        assert found.draw(np.array([0, 0]), points(0)).tolist() == [2000, 2000]


def log_of(users=30):
    """Each user clicks two of ten items, one soon after the other."""
    return [
        (f"u{user}", (user + 3 * step) % 10, user + step)
        for user in range(users)
        for step in (0, 1)
    ]


@pytest.mark.parametrize(("drawn", "sampling"), [(0, None), (1, "uniform"), (1, "popularity")])
def test_an_import_says_how_it_drew(tmp_path, drawn, sampling):
    options = {"sampling": sampling} if sampling else {}
    out, _ = imported(tmp_path, log_of(), split="date", negatives=drawn, **options)
    assert Dataset.load(out).negative_sampling == sampling


def test_popular_items_are_drawn_more_often(tmp_path):
    log = [(f"u{number}", 1, number) for number in range(200)]
    log += [(f"v{number}", 2, number) for number in range(20)] + [("w", 3, 1)]
    out, _ = imported(tmp_path, log, sampling="popularity", negatives=1, split="date")
    rows = pd.read_parquet(out / "MicroLens_1M_x1" / "train.parquet")
    drawn = rows[rows["label"] == 0]["item_id"].value_counts()
    assert drawn[3] > 8 * drawn.get(4, 0), "item i2 was clicked 20 times as often as i3"
    assert set(drawn.index) <= {2, 3, 4}


def test_who_clicked_everything_gets_a_sentence(tmp_path):
    with pytest.raises(ConfigError, match="clicked every item"):
        imported(tmp_path, [("a", number, number) for number in range(12)])
    assert not (tmp_path / "out").exists()


@given(st.integers(0, 2**40), st.lists(st.integers(0, 2**40), min_size=1, max_size=5))
def test_a_hash_depends_on_its_own_words_alone(seed, words):
    words = np.array(words)
    found = negatives.mixed(np.uint64(seed), words, words + 1)
    for word, expected in zip(words, found, strict=True):
        state = np.uint64(seed)
        for part in (int(word), int(word) + 1):  # SplitMix64 in whole numbers of Python
            x = ((int(state) ^ part) + 0x9E3779B97F4A7C15) % 2**64
            x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9 % 2**64
            x = (x ^ (x >> 27)) * 0x94D049BB133111EB % 2**64
            state = x ^ (x >> 31)
        assert int(expected) == int(state)


def test_hashes_are_spread_evenly_and_do_not_go_together():
    numbers = np.arange(100_000)
    first, second = (
        (negatives.mixed(np.uint64(seed), numbers % 10, numbers // 10) >> np.uint64(11)) * 2.0**-53
        for seed in (0, 1)
    )
    # 100 bins of 1,000: chi-square with 99 degrees of freedom is below 160 in all but 1 of 10,000.
    for values in (first, second):
        counts = np.bincount((values * 100).astype(int), minlength=100)
        assert ((counts - 1000) ** 2 / 1000).sum() < 160
    assert abs(np.corrcoef(first, second)[0, 1]) < 0.015
    assert abs(np.corrcoef(first[:-1], first[1:])[0, 1]) < 0.015
