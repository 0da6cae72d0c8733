"""Titles that say nothing of their item."""

import numpy as np
import pytest

from mmctr.content.titles import SERIES, boilerplate, foreign, plain, says_nothing


@pytest.mark.parametrize(
    ("title", "same"),
    [
        ("The LAST reef!", "the last reef"),
        ("  a\tb ", "a b"),
        ("_x-1_", "x 1"),
        ("日本 語", "日本 語"),
    ],
)
def test_plain(title, same):
    assert plain(title) == same


def test_titles_of_nothing():
    nothing = ["", "  ", "---", "N/A", "null", "Untitled", "TEST", "no-title", "…"]
    something = ["Nothing", "Test drive", "7", "日本", "Untitled 2", "Null Island"]
    assert says_nothing(np.array(nothing)).all()
    assert not says_nothing(np.array(something)).any()


def test_titles_with_other_numbers_are_one_boilerplate():
    titles = np.array([f"IMG_{n}.jpg" for n in range(SERIES)] + ["Alien 3", "alien 4!", "", "1984"])
    counts = boilerplate(titles)
    assert counts[:7].tolist() == [SERIES] * SERIES + [2, 2]
    assert np.isnan(counts[7:]).all()


@pytest.fixture
def english():
    rng = np.random.default_rng(0)
    verbs = ["find", "learn", "watch", "leave", "follow", "remember", "forget"]
    nouns = ["the river", "another winter", "silent people", "every garden", "an old house"]
    ends = ["in spring", "with friends", "on monday", "before dinner", "and nothing else"]
    return [" ".join(rng.choice(part) for part in (verbs, nouns, ends)) for _ in range(400)]


def test_other_scripts_and_random_keys_are_foreign(english):
    strange = [
        "Тайна старого замка",
        "東京の夜をひとりで静かに歩く",
        "xqzv jkwp qqxz vvkj",
        "Żółte liście",
    ]
    share = foreign(np.array(english + strange, dtype=object))
    assert (share[-4:] >= 0.5).all()
    assert (share[:-4] < 0.5).all()


def test_a_short_title_tells_no_language(english):
    share = foreign(np.array([*english, "Żółć", "1984", ""], dtype=object))
    assert np.isnan(share[-3:]).all()


def test_a_language_that_many_titles_share_is_none_of_a_few(english):
    half = ["Тайна старого замка на холме", "Путешествие к далёким островам"] * 100
    assert (foreign(np.array(english + half, dtype=object))[-200:] < 0.5).all()
