"""Items with the same picture: by perceptual hash, by colours, and by what an encoder sees.

The hash alone is not enough: flat pictures of any colour share one. Neither time nor memory grows
with the square of the catalog.
"""

from collections.abc import Iterator

import numpy as np

from mmctr.content.covers import CoverFacts
from mmctr.data.impressions import blocks, slice_positions

BITS = 10  # of 64, as is customary: of regular patterns so many differ if they are saved anew
COLOUR = 6.0  # of 255, mean over the small picture: what another JPEG quality changes
COSINE = 0.9  # of centred image features: below, an encoder sees two pictures
FLAT = 0.97  # share of pixels of one colour from which on a hash tells nothing but noise
BANDS = 4  # of 16 bits, by which hashes are looked up
PAIRS = 100_000  # pairs that are compared at once


def same_picture(facts: CoverFacts, features: np.ndarray | None) -> np.ndarray:
    """A number for each item, int64 [n_items + 1]: equal for items with the same picture.

    features: float32 [n_items + 1, width] of the images, or None. Items without a readable cover
    have a number of their own.
    """
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    read = np.flatnonzero(facts.read)
    colours = facts.colours[read].reshape(len(read), facts.colours[0].size)
    hashes = facts.hash[read].copy()
    flat = facts.flat[read] >= FLAT
    # A flat picture is known by its colour alone.
    hashes[flat] = _mixed(colours[flat].mean(axis=1, dtype=np.float32))
    content = np.ascontiguousarray(np.hstack([hashes[:, None].view(np.uint8), colours]))
    whole = content.view(np.dtype((np.void, content.shape[1]))).ravel()
    _, first, place = np.unique(whole, return_index=True, return_inverse=True)
    links = [np.stack([read, read[first[place.ravel()]]])]
    seen = None if features is None else _directions(features)
    for one, other in _near(hashes[first], colours[first]):
        one, other = read[first[one]], read[first[other]]
        if seen is not None:
            lengths = (seen[one] != 0).any(axis=1) & (seen[other] != 0).any(axis=1)
            cosine = np.einsum("ij,ij->i", seen[one], seen[other])
            agree = ~lengths | (cosine >= COSINE)
            one, other = one[agree], other[agree]
        links.append(np.stack([one, other]))
    n = len(facts.reason)
    one, other = np.concatenate(links, axis=1)
    graph = coo_array((np.ones(len(one), np.int8), (one, other)), shape=(n, n))
    return connected_components(graph, directed=False)[1].astype(np.int64)


def _near(hashes: np.ndarray, colours: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Pairs of positions whose hashes and colours are near, each pair once; in parts.

    If few bits of two hashes differ, few of them lie in one of the hashes' bands: only those pairs
    are compared (multi-index hashing: Norouzi et al., 2012, section 2.1). All pairs of a
    million pictures would take an hour.
    """
    bands = np.ascontiguousarray(hashes).view(np.uint16).reshape(len(hashes), BANDS)
    values = np.arange(1 << 16, dtype=np.uint16)
    for number, band in enumerate(bands.T):
        order = np.argsort(band, kind="stable")
        starts = np.searchsorted(band[order], np.arange(len(values) + 1))
        sizes = np.diff(starts)
        for differing in values[np.bitwise_count(values) <= BITS // BANDS]:
            there = band ^ differing
            # Of two that differ, the lower one looks for the higher.
            width = np.where(there >= band, sizes[there], 0)
            for rows in blocks(width, PAIRS) if width.any() else ():
                one = np.repeat(np.arange(rows.start, rows.stop), width[rows])
                other = order[slice_positions(starts[there[rows]], width[rows])]
                near = np.bitwise_count(hashes[one] ^ hashes[other]) <= BITS
                one, other = one[near], other[near]
                new = (one < other) | (differing > 0)
                unlike = np.bitwise_count(bands[one, :number] ^ bands[other, :number])
                new &= (unlike > BITS // BANDS).all(axis=1)  # else a band before has found them
                one, other = one[new], other[new]
                gap = np.abs(colours[one].astype(np.int16) - colours[other]).mean(axis=1)
                yield one[gap <= COLOUR], other[gap <= COLOUR]


def _mixed(brightness: np.ndarray) -> np.ndarray:
    """Well-mixed 64 bits for each step of brightness, so that only equal steps are near."""
    from pandas.util import hash_array

    return hash_array(np.rint(brightness / 4).astype(np.uint64))


def _directions(features: np.ndarray) -> np.ndarray:
    """Centred features at length 1; zero where there were none."""
    known = features.any(axis=1)
    if not known.any():
        return np.zeros_like(features)
    centred = np.where(known[:, None], features - features[known].mean(axis=0), 0)
    length = np.linalg.norm(centred, axis=1, keepdims=True)
    return centred / np.where(length > 0, length, 1)
