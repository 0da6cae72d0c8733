"""Residual quantization against a loop over items and levels, and on planted clusters."""

import json
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from safetensors.numpy import load, save

from mmctr.content import quantization
from mmctr.content.fitted import from_state, to_state
from mmctr.content.quantization import FEWEST, NOTHING, SHARED, ResidualQuantizer, codes_for


def clustered(seed=0, coarse=5, fine=4, items=40, width=6):
    """Items around fine centres around coarse ones, and which centres they belong to."""
    rng = np.random.default_rng(seed)
    centres = rng.normal(size=(coarse, 1, width)) * 10 + rng.normal(size=(coarse, fine, width)) * 2
    which = rng.integers(0, coarse * fine, items * fine)
    vectors = centres.reshape(-1, width)[which] + rng.normal(0, 0.05, (len(which), width))
    return vectors.astype(np.float32), which // fine, which


def require_nearest(quantizer, vector, codes):
    """Each code is a nearest one of what those before it left over, in double precision; what they
    decode to."""
    rest, scale, decoded, place = vector.astype(np.float64), 1.0, 0.0, 0
    for size, own, code in zip(quantizer.sizes_, quantizer.scales_, codes, strict=True):
        book = quantizer.codebooks_[place : place + size].astype(np.float64)
        place, scale, rest = place + size, scale * own, rest / own
        far = np.square(rest - book).sum(axis=1)
        assert far[code] <= far.min() + 1e-3
        decoded, rest = decoded + book[code] * scale, rest - book[code]
        rest[np.abs(rest) < NOTHING] = 0
    return decoded


@given(st.integers(0, 50), st.integers(1, 4), st.integers(2, 150))
def test_codes_and_ids_are_those_of_a_loop(seed, levels, items):
    vectors = np.random.default_rng(seed).normal(size=(items, 3)).astype(np.float32)
    quantizer = ResidualQuantizer(levels).fit(vectors)
    codes, ids = quantizer.codes(vectors), quantizer.transform(vectors)
    assert ids.dtype == np.int32 and ids.shape == (items, levels)
    prefixes = [[tuple(row[: level + 1]) for level in range(levels)] for row in codes.tolist()]
    for item in range(items):
        require_nearest(quantizer, vectors[item], codes[item])
        for level in range(levels):
            alike = [
                other for other in range(items) if prefixes[other][level] == prefixes[item][level]
            ]
            known = level == 0 or len(alike) >= SHARED
            assert (ids[item, level] > 0) == known
            same = np.flatnonzero(ids[:, level] == ids[item, level])
            assert not known or same.tolist() == alike


def test_an_id_says_what_its_items_have_in_common():
    vectors, coarse, _ = clustered()
    quantizer = ResidualQuantizer().fit(vectors)
    ids = quantizer.transform(vectors)
    for one in np.unique(ids[:, 0]):
        assert len(np.unique(coarse[ids[:, 0] == one])) == 1
    spread = np.square(vectors - vectors.mean(axis=0)).sum()
    errors = []
    for level in range(1, 4):
        cut = np.where(np.arange(3) < level, ids, 0)
        errors.append(np.square(vectors - quantizer.decode(cut)).sum() / spread)
    assert errors == sorted(errors, reverse=True)
    assert errors[0] < 0.05


def test_what_all_levels_know_decodes_as_in_a_loop(monkeypatch):
    monkeypatch.setattr(quantization, "SHARED", 2)
    vectors, *_ = clustered(seed=3)
    quantizer = ResidualQuantizer(2).fit(vectors)
    ids = quantizer.transform(vectors)
    whole = np.flatnonzero((ids > 0).all(axis=1))
    assert len(whole) > 10
    for item in whole[:50]:
        expected = require_nearest(quantizer, vectors[item], quantizer.codes(vectors[[item]])[0])
        np.testing.assert_allclose(quantizer.decode(ids[[item]])[0], expected, atol=1e-4)


def test_no_code_is_without_items():
    vectors, *_ = clustered(items=400)
    quantizer = ResidualQuantizer().fit(vectors)
    for level, size in enumerate(quantizer.sizes_):
        assert len(np.unique(quantizer.codes(vectors)[:, level])) == size


def test_new_items_have_the_ids_of_those_that_they_are_like_and_zeros_have_none():
    vectors, _, fine = clustered(items=60)
    known, new = np.arange(len(vectors)) % 5 > 0, np.arange(len(vectors)) % 5 == 0
    quantizer = ResidualQuantizer(1).fit(vectors[known])
    of_known = quantizer.transform(vectors[known])[:, 0]
    for item in np.flatnonzero(new):
        own = quantizer.transform(vectors[[item]])[0, 0]
        assert own in of_known[fine[known] == fine[item]]
    assert not quantizer.transform(np.zeros((2, vectors.shape[1]), np.float32)).any()
    far = quantizer.transform(np.full((1, vectors.shape[1]), 1e6, np.float32))
    assert far[0, 0] in of_known


@pytest.mark.parametrize("vectors", [np.zeros((5, 3)), np.ones((5, 3)), np.eye(3)[:1]])
def test_items_that_are_all_alike_are_quantized_too(vectors):
    vectors = vectors.astype(np.float32)
    quantizer = ResidualQuantizer().fit(vectors)
    ids = quantizer.transform(vectors)
    assert (ids[:, 0] > 0).all() == bool(vectors.any())
    np.testing.assert_allclose(quantizer.decode(ids), vectors, atol=1e-6)


def test_it_comes_back_from_a_file_bit_for_bit():
    vectors, *_ = clustered()
    quantizer = ResidualQuantizer(2).fit(vectors)
    structure, arrays = to_state(quantizer)
    again = from_state(json.loads(json.dumps(structure)), load(save(arrays)))
    ids = quantizer.transform(vectors)
    assert np.array_equal(again.transform(vectors), ids)
    assert np.array_equal(again.decode(ids), quantizer.decode(ids))


def test_the_number_of_threads_changes_nothing():
    script = (
        "import numpy as np, hashlib\n"
        "from mmctr.content.quantization import ResidualQuantizer\n"
        "x = np.random.default_rng(0).normal(size=(3000, 16)).astype(np.float32)\n"
        "print(hashlib.sha256(ResidualQuantizer().fit(x).codebooks_.tobytes()).hexdigest())\n"
    )
    found = {
        subprocess.run(
            [sys.executable, "-c", script],
            env={"OMP_NUM_THREADS": threads, "PYTHONPATH": ":".join(sys.path)},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for threads in ("1", "2")
    }
    assert len(found) == 1


def test_levels_grow_with_the_catalog():
    assert [codes_for(items) for items in (1, 64, 3000, 50_000, 10**7)] == [
        FEWEST, FEWEST, 32, 64, 512,
    ]  # fmt: skip
