"""What embeddings and trained models attend to, as tidy DataFrames."""

import numpy as np
import pandas as pd
import torch
from sklearn.metrics import roc_auc_score

from mmctr.data.dataset import Dataset, Impressions, slice_positions
from mmctr.errors import DataError
from mmctr.model.din import DIN
from mmctr.training.batches import Batches
from mmctr.training.prediction import predict


@torch.inference_mode()
def attention(model: DIN, rows: Impressions) -> pd.DataFrame:
    """Each head's weight of each click that the model reads.

    Columns: row (position in rows), target, item, age (1 = the latest click), head (from 1),
    weight. The softmax weights of a row and head sum to 1; those of attention="mlp" need not.
    """
    parts = []
    batches = Batches(rows, model)
    for first, batch in zip(range(0, len(rows), 1024), batches.in_order(1024), strict=True):
        weights = model.attention_weights(batch).cpu().numpy()
        histories = batch.histories
        click_row = histories.rows.cpu().numpy()
        end = histories.offsets[1:].cpu().numpy()
        heads = weights.shape[1]
        columns = {
            "row": first + click_row,
            "target": batch.items[batch.target].cpu().numpy()[click_row],
            "item": batch.items[histories.items].cpu().numpy(),
            "age": end[click_row] - np.arange(len(click_row)),
        }
        part = pd.DataFrame({name: np.repeat(value, heads) for name, value in columns.items()})
        part["head"] = np.tile(np.arange(1, heads + 1), len(click_row))
        part["weight"] = weights.ravel()
        parts.append(part)
    return pd.concat(parts, ignore_index=True)


@torch.inference_mode()
def field_weights(model: DIN, rows: Impressions) -> pd.DataFrame:
    """SENet's weight of each field over rows: field, mean, low and high (5% and 95% quantiles).

    Raises ConfigError if the model has no SENet.
    """
    batches = Batches(rows, model)
    weights = [model.field_weights(batch) for batch in batches.in_order(4096)]
    weights = torch.cat(weights).cpu().numpy()
    low, high = np.quantile(weights, [0.05, 0.95], axis=0)
    return pd.DataFrame(
        {"field": model.fields, "mean": weights.mean(axis=0), "low": low, "high": high}
    )


def cases(rows: Impressions, probability: np.ndarray) -> dict[str, int]:
    """Telling rows by kind: a foreseen click, a missed click, and the longest history.

    Only rows with at least two clicks in their history are taken, and no row twice. Raises
    DataError if there is none: attention has nothing to choose between.
    """
    length = rows.history_length
    if length.max(initial=0) < 2:
        raise DataError(
            f"The {len(rows)} rows have histories of at most {length.max(initial=0)} clicks, "
            "expected some of at least 2: attention needs clicks to choose between."
        )
    clicked = (rows.label == 1) & (length >= 2)
    wanted = {
        "A foreseen click": np.where(clicked, probability, -np.inf),
        "A missed click": np.where(clicked, -probability, -np.inf),
        "A long history": np.where(length >= 2, length, -np.inf),
    }
    found: dict[str, int] = {}
    for name, score in wanted.items():
        score[list(found.values())] = -np.inf
        if np.isfinite(score.max(initial=-np.inf)):
            found[name] = int(score.argmax())
    return found


def removal_effects(model: DIN, rows: Impressions, seed: int = 0) -> pd.DataFrame:
    """How a prediction changes when one click is taken out of the history.

    One line a row with at least two clicks: row, probability, most_attended and random, the
    changes of the probability without the most attended click (mean over heads) and without a
    random other one.
    """
    weights = attention(model, rows).groupby(["row", "age"], as_index=False)["weight"].mean()
    clicks = weights.groupby("row")["age"].transform("size")
    weights = weights[clicks >= 2].reset_index(drop=True)
    most = weights.loc[weights.groupby("row")["weight"].idxmax()]
    others = weights.drop(most.index)
    random = others.sample(frac=1, random_state=seed).groupby("row").head(1).sort_values("row")
    chosen = rows.select(most["row"].to_numpy())
    probability = predict(model, chosen)
    changes = {
        name: predict(model, without_click(chosen, picked["age"].to_numpy())) - probability
        for name, picked in (("most_attended", most), ("random", random))
    }
    return pd.DataFrame({"row": most["row"].to_numpy(), "probability": probability, **changes})


def without_click(rows: Impressions, age: np.ndarray) -> Impressions:
    """The same rows, each without one click of its history: the age-th latest, int [n] from 1."""
    lengths = rows.history_length
    ends = np.cumsum(lengths)
    flat = slice_positions(rows.history_start, lengths)
    kept = np.ones(len(flat), dtype=bool)
    kept[ends - age] = False
    end = np.cumsum(lengths - 1)
    shorter = {
        "history_start": end - (lengths - 1),
        "history_end": end,
        "history_items": rows.history_items[flat[kept]],
    }
    return Impressions(**(vars(rows) | shorter))


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


def co_click_pairs(
    dataset: Dataset, count: int = 20_000, seed: int = 0
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Pairs of items that one user clicked, and for each item one clicked by somebody else.

    Returns item, together, apart: int32 [count]. `together` was clicked right after `item` in a
    train history; `apart` is another pair's, so that popularity tells nothing.
    """
    rows, rng = dataset.train, np.random.default_rng(seed)
    slices = np.unique(np.stack([rows.history_start, rows.history_end]), axis=1)
    lengths = slices[1] - slices[0]
    ends = np.cumsum(lengths)
    flat = slice_positions(slices[0], lengths)
    has_next = np.ones(len(flat), dtype=bool)
    has_next[ends[lengths > 0] - 1] = False
    first = flat[has_next]
    first = rng.choice(first, size=min(count, len(first)), replace=False)
    item, together = rows.history_items[first], rows.history_items[first + 1]
    return item, together, rng.permutation(together)


def co_click_auc(embedding: np.ndarray, pairs: tuple[np.ndarray, np.ndarray, np.ndarray]) -> float:
    """How often cosine similarity tells an item clicked together from one that was not (AUC)."""
    item, together, apart = pairs
    scores = [cosine(embedding, item, together), cosine(embedding, item, apart)]
    label = np.repeat([1, 0], len(item))
    return float(roc_auc_score(label, np.concatenate(scores))) if len(item) else float("nan")
