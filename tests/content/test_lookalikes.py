"""Which items have the same picture, against pairs compared one by one."""

import itertools

import numpy as np
import pytest

from mmctr.content import lookalikes
from mmctr.content.covers import CoverFacts
from mmctr.content.lookalikes import BITS, COLOUR, same_picture


def facts_of(hashes, colours, flat=None):
    n = len(hashes)
    nothing = np.zeros(n, np.float32)
    return CoverFacts(
        reason=np.array(["no cover", *[""] * (n - 1)]),
        aspect=nothing,
        flat=nothing if flat is None else flat,
        bright=nothing,
        sharp=nothing,
        hash=np.array(hashes, np.uint64),
        colours=np.array(colours, np.uint8).reshape(n, 1, 1, 3),
    )


def groups(numbers):
    """The items of each picture that several items have."""
    found = {}
    for item, number in enumerate(numbers):
        found.setdefault(number, set()).add(item)
    return sorted(sorted(items) for items in found.values() if len(items) > 1)


def naive(facts):
    """Components of all pairs whose hashes and colours are near, one by one."""
    n, of = len(facts.hash), list(range(len(facts.hash)))
    for one in range(1, n):
        for other in range(one + 1, n):
            bits = bin(int(facts.hash[one]) ^ int(facts.hash[other])).count("1")
            gap = np.abs(facts.colours[one].astype(int) - facts.colours[other]).mean()
            if bits <= BITS and gap <= COLOUR:
                old, new = of[other], of[one]
                of = [new if number == old else number for number in of]
    return groups(of)


@pytest.mark.parametrize("pairs", [1, 7, 100_000])
def test_pairs_are_those_of_a_loop_however_many_at_once(monkeypatch, pairs):
    monkeypatch.setattr(lookalikes, "PAIRS", pairs)
    rng = np.random.default_rng(0)
    bases = rng.integers(0, 2**63, 12, dtype=np.uint64)
    hashes, colours = [0], [[0, 0, 0]]
    for _ in range(60):
        flips = rng.choice(64, rng.integers(0, 9), replace=False)
        base = int(bases[rng.integers(12)])
        hashes.append(base ^ sum(1 << int(bit) for bit in flips))
        colours.append(rng.choice([100, 104, 140]) + rng.integers(0, 3, 3))
    facts = facts_of(hashes, colours)
    found = groups(same_picture(facts, None))
    assert found == naive(facts)
    assert found


def test_flat_pictures_share_a_hash_and_no_picture_unless_their_colour_does():
    flat = np.array([0, 1, 1, 1, 1], np.float32)
    colours = [[0, 0, 0], [200, 10, 10], [10, 200, 10], [200, 10, 10], [205, 10, 10]]
    facts = facts_of([0] * 5, colours, flat)
    (found,) = groups(same_picture(facts, None))
    assert {1, 3} <= set(found) <= {1, 3, 4}, "item 4 is nearly of their colour"


def test_features_that_differ_tell_near_pictures_apart():
    facts = facts_of([0, 7, 6, 99], [[0, 0, 0], [50, 50, 50], [51, 50, 50], [200, 0, 0]])
    alike = np.array([[0, 0], [1, 0], [1, 0.1], [-2, 0]], np.float32)
    assert groups(same_picture(facts, alike)) == [[1, 2]]
    unlike = np.array([[0, 0], [1, 0], [-1, 0.1], [0, 3]], np.float32)
    assert groups(same_picture(facts, unlike)) == []
    none = np.zeros_like(alike)  # not extracted: features say neither yes nor no
    assert groups(same_picture(facts, none)) == [[1, 2]]


def test_items_without_a_cover_share_nothing():
    facts = facts_of([5, 5, 5], np.zeros((3, 3)))
    facts.reason[:] = ["no cover", "no cover", "empty file"]
    assert groups(same_picture(facts, None)) == []


def test_near_hashes_are_found_once_and_no_others():
    """Wherever their bits differ: of all bands, of one, at its ends."""
    rng = np.random.default_rng(1)
    hashes = list(rng.integers(0, 2**63, 3, dtype=np.uint64))
    for differing in range(BITS - 2, BITS + 3):
        for bits in (
            *(rng.choice(64, differing, replace=False) for _ in range(20)),
            *(start + np.arange(differing) for start in (0, 13, 16, 32, 64 - differing)),
        ):
            base = int(hashes[rng.integers(3)])
            hashes.append(base ^ sum(1 << int(bit) for bit in bits))
    hashes += hashes[:2]
    hashes = np.array(hashes, np.uint64)
    parts = list(lookalikes._near(hashes, np.zeros((len(hashes), 3), np.uint8)))
    found = sorted(sorted(map(int, pair)) for part in parts for pair in zip(*part, strict=True))
    expected = [
        [one, other]
        for one, other in itertools.combinations(range(len(hashes)), 2)
        if (int(hashes[one]) ^ int(hashes[other])).bit_count() <= BITS
    ]
    assert found == expected
