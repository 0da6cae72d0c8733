"""Whether the text and the image of an item belong together, told by all other items.

Canonical correlations (Hotelling, 1936) of text and image features, fitted to four fifths of the
items, say of the last fifth how much likelier text and image are as a pair than side by side by
chance: their pointwise mutual information. Where the two know little of each other it stays near
zero, and nothing is found.
"""

import numpy as np

FOLDS = 5
LEAST = 200  # items with both; fewer do not tell
COMPONENTS = 64  # of each medium at most, and a tenth of the items
CLIP = 4.0  # standard deviations: an outlier is no proof
STRONGEST = 0.995  # correlation that is believed at most


def at_odds(text: np.ndarray, image: np.ndarray, known: np.ndarray) -> np.ndarray | None:
    """Minus the pointwise mutual information of each item's text and image, in nats, float [n].

    text, image: float32 [n, width] each. known: bool [n], items with both; others get NaN. None if
    there are fewer than LEAST. Above zero, the pair is likelier by chance than as a pair.
    """
    rows = np.flatnonzero(known)
    if len(rows) < LEAST:
        return None
    fold = np.random.default_rng(0).permutation(len(rows)) % FOLDS
    components = min(COMPONENTS, len(rows) // 10)
    both = [_whitened(medium, rows, components) for medium in (text, image)]
    width = min(one.shape[1] for one in both)
    pairs = np.zeros((2, len(rows), width))
    for part in range(FOLDS):
        others, asked = fold != part, fold == part
        left, _, right = np.linalg.svd(both[0][others].T @ both[1][others] / others.sum())
        for place, directions in enumerate((left[:, :width], right[:width].T)):
            pairs[place, asked] = both[place][asked] @ directions
    u, v = (one / (one.std(axis=0) + 1e-12) for one in pairs)
    u, v = u.clip(-CLIP, CLIP), v.clip(-CLIP, CLIP)
    r = (u * v).mean(axis=0).clip(0, STRONGEST)  # of items that the directions were not fitted to
    r[r < 2 / np.sqrt(len(rows))] = 0  # two standard errors of none
    odds = (r**2 * (u**2 + v**2) - 2 * r * u * v) / (2 * (1 - r**2)) + np.log(1 - r**2) / 2
    result = np.full(len(text), np.nan)
    result[rows] = odds.sum(axis=1)
    return result


def _whitened(features: np.ndarray, rows: np.ndarray, components: int) -> np.ndarray:
    """The principal components of some rows at variance 1, float64 [rows, <= components]."""
    from sklearn.decomposition import PCA

    chosen = features[rows] - features[rows].mean(axis=0)
    pca = PCA(min(components, chosen.shape[1]), svd_solver="covariance_eigh")
    found = pca.fit_transform(chosen).astype(np.float64)
    scale = found.std(axis=0)
    kept = scale > 1e-4 * scale.max(initial=0)
    return found[:, kept] / scale[kept]
