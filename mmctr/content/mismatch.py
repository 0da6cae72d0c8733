"""Whether the text and the image of an item belong together, told by all other items.

Canonical correlations (Hotelling, 1936) of text and image features, fitted to four fifths of the
items, say of the last fifth how much likelier text and image are as a pair than side by side by
chance: their pointwise mutual information. Where the two know little of each other it stays near
zero, and nothing is found.
"""

import numpy as np

FOLDS = 5
LEAST = 200  # items with both; fewer do not tell
COMPONENTS = 64  # of each medium at most, and a twentieth of the items
SURE = 6.9  # nats, a thousand to one
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
    trusted = np.ones(len(rows), dtype=bool)
    for _ in range(2):  # what was at odds is not learned from again
        odds = _odds([_whitened(medium, rows, trusted) for medium in (text, image)], trusted)
        trusted = odds < SURE
    result = np.full(len(text), np.nan)
    result[rows] = odds
    return result


def _odds(both: list[np.ndarray], trusted: np.ndarray) -> np.ndarray:
    """Minus the pointwise mutual information of pairs of rows, by those of other folds, [n]."""
    n, width = len(trusted), min(one.shape[1] for one in both)
    fold, pairs = np.random.default_rng(0).permutation(n) % FOLDS, np.zeros((2, n, width))
    for part in range(FOLDS):
        others, asked = (fold != part) & trusted, fold == part
        covariance = both[0][others].T @ both[1][others] / max(others.sum(), 1)
        left, _, right = np.linalg.svd(covariance)
        for place, directions in enumerate((left[:, :width], right[:width].T)):
            pairs[place, asked] = both[place][asked] @ directions
    u, v = ((one / (one.std(axis=0) + 1e-12)).clip(-CLIP, CLIP) for one in pairs)
    r = (u * v)[trusted].mean(axis=0).clip(0, STRONGEST)  # of items that were not fitted to
    r[r < 2 / np.sqrt(n)] = 0  # two standard errors of none
    odds = (r**2 * (u**2 + v**2) - 2 * r * u * v) / (2 * (1 - r**2)) + np.log(1 - r**2) / 2
    return odds.sum(axis=1)


def _whitened(features: np.ndarray, rows: np.ndarray, trusted: np.ndarray) -> np.ndarray:
    """Some rows in the principal components of those trusted, at variance 1, float64."""
    from sklearn.decomposition import PCA

    components = min(COMPONENTS, len(rows) // 20, features.shape[1])
    pca = PCA(components, svd_solver="covariance_eigh")
    # In float32 the solver loses what differs little far from zero, hence the centring before it.
    mean = features[rows[trusted]].mean(axis=0)
    pca.fit(features[rows[trusted]] - mean)
    scale = np.sqrt(pca.explained_variance_)
    kept = scale > 1e-4 * scale.max(initial=0)
    found = pca.transform(features[rows] - mean)[:, kept]
    return found.astype(np.float64) / scale[kept]
