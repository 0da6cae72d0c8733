"""Which items an embedding calls alike, and whether users agree."""

from collections.abc import Callable

import numpy as np
import pandas as pd

from mmctr.bars import bar_if_long
from mmctr.data.dataset import Dataset
from mmctr.data.impressions import slice_positions
from mmctr.evaluation.explain import mean_interval
from mmctr.evaluation.new_items import newness, unit_vectors

LATEST, TOP, ASKED = 5, 20, 4000  # clicks that ask, neighbours that answer, and valid clicks


def cosine(embedding: np.ndarray, left: np.ndarray, right: np.ndarray) -> np.ndarray:
    """Cosine similarity of pairs of items, float32 [n]; zero where an embedding is zero."""
    lengths = np.linalg.norm(embedding, axis=1)
    products = np.einsum("nd,nd->n", embedding[left], embedding[right])
    return products / np.maximum(lengths[left] * lengths[right], 1e-12)


def nearest(embedding: np.ndarray, item: int, count: int) -> np.ndarray:
    """The items most similar to an item by cosine, int64 [count], the nearest first.

    Fewer than `count` if there are no more items.
    """
    items = np.arange(len(embedding))
    similarity = cosine(embedding, np.full(len(items), item), items)
    similarity[[0, item]] = -np.inf
    return np.argsort(-similarity, kind="stable")[: min(count, len(items) - 2)]


def item_map(embedding: np.ndarray) -> np.ndarray:
    """A place in the plane for each item, [n, 2]: near where embeddings are alike (t-SNE)."""
    from sklearn.manifold import TSNE

    # Items that are all alike have one place. t-SNE cannot say so: it divides by their spread.
    if (embedding == embedding[0]).all():
        return np.zeros((len(embedding), 2), dtype=np.float32)
    # It starts from two principal components, which a single column does not have.
    columns = np.pad(embedding, ((0, 0), (0, max(0, 2 - embedding.shape[1]))))
    perplexity = max(1, min(30, len(embedding) // 4))
    return TSNE(perplexity=perplexity, max_iter=500, random_state=0).fit_transform(columns)


def same_tag_share(places: np.ndarray, tags: np.ndarray, count: int = 10) -> tuple[float, float]:
    """How often an item's nearest on a map have its tag, and how often any other item has it.

    places: [n, 2]; tags: text [n], None where an item has none of those that are drawn; such items
    do not ask, and answer. NaN if nobody asks.
    """
    from sklearn.neighbors import NearestNeighbors

    asks = np.flatnonzero([tag is not None for tag in tags])
    if not len(asks) or len(places) < 2:
        return float("nan"), float("nan")
    search = NearestNeighbors(n_neighbors=min(count, len(places) - 1)).fit(places)
    nearest = search.kneighbors(return_distance=False)[asks]  # none is its own neighbour
    _, kinds = np.unique([tag or "" for tag in tags], return_inverse=True)
    among = np.bincount(kinds)[kinds[asks]] - 1
    same = kinds[nearest] == kinds[asks, None]
    return float(same.mean()), float((among / (len(places) - 1)).mean())


def co_click_pairs(
    dataset: Dataset, count: int = 20_000, seed: int = 0
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Pairs of items that one user clicked, and for each item one clicked by somebody else.

    Returns item, together, apart: int32 [count], and history, int64 [count], whose they are.
    `together` was clicked right after `item` in a train history; `apart` is another pair's, so that
    popularity tells nothing.
    """
    rows, rng = dataset.train, np.random.default_rng(seed)
    slices = np.unique(np.stack([rows.history_start, rows.history_end]), axis=1)
    lengths = slices[1] - slices[0]
    ends = np.cumsum(lengths)
    flat = slice_positions(slices[0], lengths)
    has_next = np.ones(len(flat), dtype=bool)
    has_next[ends[lengths > 0] - 1] = False
    chosen = np.flatnonzero(has_next)
    chosen = rng.choice(chosen, size=min(count, len(chosen)), replace=False)
    first, history = flat[chosen], np.repeat(np.arange(len(lengths)), lengths)[chosen]
    item, together = rows.history_items[first], rows.history_items[first + 1]
    return item, together, rng.permutation(together), history


def co_clicks(
    embeddings: dict[str, np.ndarray], pairs: tuple[np.ndarray, ...]
) -> tuple[pd.DataFrame, dict[str, str | float]]:
    """How often the item clicked next is the more similar one (cosine), and who is ahead by it.

    pairs: as of co_click_pairs; ties count half. The table has strategy, mean, low and high (95%,
    over histories), the lead first, second and the mean, low and high of the difference.
    """
    item, together, apart, history = pairs
    wins = {}
    for name, embedding in embeddings.items():
        gap = cosine(embedding, item, together) - cosine(embedding, item, apart)
        wins[name] = (gap > 0) + (gap == 0) / 2
    lines = [{"strategy": name} | mean_interval(won, history) for name, won in wins.items()]
    table = pd.DataFrame(lines)
    order = table["mean"].argsort(kind="stable")[::-1]
    names = table["strategy"].to_numpy()[order]
    lead = {"first": names[0], "second": names[min(1, len(names) - 1)]}
    return table, lead | mean_interval(wins[lead["first"]] - wins[lead["second"]], history)


def next_click_hits(dataset: Dataset, embeddings: dict[str, np.ndarray]) -> pd.DataFrame:
    """How often a click of valid is among the TOP items most like the user's latest clicks.

    Likeness is the cosine with the mean of the LATEST clicks' unit vectors; all items that are not
    in the history compete, of equal ones in the order of their numbers. Columns: strategy, group
    (newness of the clicked item), clicks (of ASKED at most, drawn by chance), and hits, the share,
    with its 95% interval over users, low and high.
    """
    rows = dataset.valid
    asked = np.flatnonzero((rows.label == 1) & (rows.history_length > 0))
    rows = rows.select(np.sort(np.random.default_rng(0).permutation(asked)[:ASKED]))
    group = newness(dataset.train_clicks()[rows.target])
    found = []
    for name, embedding in embeddings.items():
        unit = unit_vectors(embedding)
        asked = zip(map(rows.history, range(len(rows))), rows.target, strict=True)
        asked = bar_if_long(asked, len(rows), f"next clicks, {name}")
        hit = np.array([_is_hit(unit, *one) for one in asked], dtype=float)
        for one in group.cat.categories:
            own = (group == one).to_numpy()
            about = mean_interval(hit[own], rows.user[own])
            found.append({"strategy": name, "group": one, "clicks": int(own.sum())} | about)
    return pd.DataFrame(found).rename(columns={"mean": "hits"})


def _is_hit(unit: np.ndarray, history: np.ndarray, target: int) -> bool:
    likeness = unit @ unit[history[-LATEST:]].mean(axis=0)
    likeness[0] = -np.inf
    likeness[history[history != target]] = -np.inf
    before = (likeness > likeness[target]).sum() + (likeness[:target] == likeness[target]).sum()
    return bool(before < TOP)


def shared_ids(ids: np.ndarray) -> pd.DataFrame:
    """How many items have each semantic id, int [n_items + 1, levels]: level, id, rank, items.

    The ids of most items first, within each level; items without one are left out.
    """
    tables = []
    for level, column in enumerate(ids[1:].T, start=1):
        counts = pd.Series(column[column > 0]).value_counts()
        about = {"level": level, "id": counts.index, "rank": np.arange(1, len(counts) + 1)}
        tables.append(pd.DataFrame(about | {"items": counts.to_numpy()}))
    return pd.concat(tables, ignore_index=True)


def quantization_error(
    features: np.ndarray, ids: np.ndarray, decode: Callable[[np.ndarray], np.ndarray]
) -> pd.DataFrame:
    """What quantizing costs, down to each level: level, ids, bits, error, alone.

    features: float32 [n_items + 1, width], which ids, int [n_items + 1, levels], stand for. bits:
    of one item, by the ids that there are. error: share of the variance that is lost. alone: share
    of items whose id no other has.
    """
    spread = np.square(features[1:] - features[1:].mean(axis=0)).sum()
    rows, bits = [], 0.0
    for level in range(1, ids.shape[1] + 1):
        cut = np.where(np.arange(ids.shape[1]) < level, ids[1:], 0)
        _, items = np.unique(cut[:, :level], axis=0, return_counts=True)
        below = max(1, len(items)) / max(1, rows[-1]["ids"] if rows else 1)
        bits += np.log2(below) if below > 1 else 0.0
        error = np.square(features[1:] - decode(cut)).sum() / max(spread, 1e-30)
        alone = (items == 1).sum() / len(cut)
        rows.append(
            {"level": level, "ids": len(items), "bits": bits, "error": error, "alone": alone}
        )
    return pd.DataFrame(rows)
