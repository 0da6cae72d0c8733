"""Titles of one vector are counted, whatever rounding did to it, and others are not."""

import numpy as np

from mmctr.content.alike import alike, places

RNG = np.random.default_rng(0)
VECTORS = RNG.standard_normal((3000, 16)).astype(np.float32) + 20  # most of a vector is common
TITLES = [f"Title {number}" for number in range(3000)]


def test_vectors_that_are_equal_but_for_rounding_are_counted():
    vectors = VECTORS.copy()
    vectors[100:300] = vectors[100] * (1 + 1e-7 * RNG.standard_normal((200, 16)))
    assert alike(TITLES, places(VECTORS)) == ""
    said = alike(TITLES, places(vectors))
    assert said.startswith("200 of 3,000 different titles share their vector with another")
    assert alike(TITLES, places(VECTORS + 1e-4 * RNG.standard_normal((3000, 16)))) == ""
    vectors[250:300] = VECTORS[250:300]
    assert alike(TITLES, places(vectors)) == ""  # 150 are 5%, not more


def test_the_same_title_is_no_other_one():
    same = ["A  boat", "a boat", "A BOAT ", "", "  "]
    vectors = np.vstack([np.repeat(VECTORS[:1], 5, 0), VECTORS[1:3]])
    assert alike([*same, "lake", "chef"], places(vectors)) == ""
    assert alike([], places(vectors[:0])) == "" and alike([""], places(vectors[:1])) == ""
    assert "2 of 3 different" in alike([*same, "lake", "chef"], places(vectors[[0] * 6 + [6]]))
