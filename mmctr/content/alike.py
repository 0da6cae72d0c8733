"""Whether an encoder tells titles apart: what most of a catalog shares is no content."""

import numpy as np

LIMIT = 0.05  # of the different titles; fewer differ in nothing that the encoder could know
DIRECTIONS = 4
ROUNDING = 1e-5  # of equal vectors, which come out of batches of other shapes
SHOWN = 40  # letters of an example


def places(vectors: np.ndarray) -> np.ndarray:
    """Where vectors [n, width] lie along a few directions, [n, DIRECTIONS]: enough to compare them.

    Equal vectors have equal places, and others hardly ever along all directions.
    """
    directions = np.random.default_rng(0).standard_normal((vectors.shape[1], DIRECTIONS))
    return vectors @ directions.astype(np.float32)


def alike(titles: list[str], places: np.ndarray) -> str:
    """Says how many of the different titles have another one's vector; empty if only few have.

    places: of the vectors of these titles. Case and blanks make no difference between titles.
    """
    first: dict[str, int] = {}
    for row, title in enumerate(titles):
        first.setdefault(" ".join(title.casefold().split()), row)
    first.pop("", None)
    if not first:
        return ""
    rows = np.array(list(first.values()))
    rows = rows[places[rows, 0].argsort(kind="stable")]
    places = places[rows]
    near = np.abs(np.diff(places, axis=0)) <= ROUNDING * np.abs(places).mean()
    group = np.append(0, np.cumsum(~near.all(axis=1)))
    sizes = np.bincount(group)
    shared = int(sizes[sizes > 1].sum())
    if shared <= LIMIT * len(rows):
        return ""
    one, other = (_shown(titles[row]) for row in rows[group == sizes.argmax()][:2])
    return (
        f"{shared:,} of {len(rows):,} different titles share their vector with another title, such "
        f"as {one} and {other}: another --text-model or --pooling may tell them apart."
    )


def _shown(title: str) -> str:
    """A title in quotes, short, and without what would command a terminal."""
    title = " ".join(title.split())
    title = title if len(title) <= SHOWN else title[: SHOWN - 1] + "…"
    return "'" + "".join(letter if letter.isprintable() else "�" for letter in title) + "'"
