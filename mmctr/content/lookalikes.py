"""Items with the same picture: by perceptual hash, by colours, and by what an encoder sees.

The hash alone is not enough: flat pictures of any colour share one. Pairs are looked for in
blocks, so that memory does not grow with the square of the catalog.
"""

import numpy as np

from mmctr.content.covers import CoverFacts

BITS = 10  # of 64, as is customary: of regular patterns so many differ if they are saved anew
COLOUR = 6.0  # of 255, mean over the small picture: what another JPEG quality changes
COSINE = 0.9  # of centred image features: below, an encoder sees two pictures
FLAT = 0.97  # share of pixels of one colour from which on a hash tells nothing but noise
BLOCK = 64  # pictures that are compared with all others at once
PAIRS = 100_000  # pairs whose colours are compared at once


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


def _near(hashes: np.ndarray, colours: np.ndarray):
    """Pairs of positions, first < second, whose hashes and colours are near; in parts."""
    for start in range(0, len(hashes), BLOCK):
        block = hashes[start : start + BLOCK, None] ^ hashes[None, start:]
        one, other = np.nonzero(np.bitwise_count(block) <= BITS)
        later = other > one
        one, other = one[later] + start, other[later] + start
        for part in range(0, len(one), PAIRS):
            a, b = one[part : part + PAIRS], other[part : part + PAIRS]
            gap = np.abs(colours[a].astype(np.int16) - colours[b]).mean(axis=1)
            yield a[gap <= COLOUR], b[gap <= COLOUR]


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
