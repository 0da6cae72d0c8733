"""Of v5: text and image features turned until what the same users click lies together.

Contrastive learning with user-perceived similarity, which arXiv 2504.18961 names as future work.
"""

from collections.abc import Iterator
from zlib import crc32

import numpy as np
import torch
from scipy.linalg import block_diag
from sklearn.base import BaseEstimator, TransformerMixin
from torch import Tensor
from torch.nn import functional as F
from tqdm.auto import tqdm

from mmctr.adam import PlainAdam
from mmctr.data.impressions import Impressions, blocks, slice_positions

RECENT = 20  # latest clicks among which a click has its positives
NEAREST = 5  # of these, those nearest in content: on valid better than 2, and than all of them
MOST_CLICKS = 2_000_000  # that are learned from; of more a part is drawn
COMPONENTS = 256  # of each medium that the projection reads
TEMPERATURE = 0.2
BATCH = 1024  # pairs, each with the others' items as negatives
LEARNING_RATE = 3e-3
CLOSENESS = 1e-3  # how strongly a projection is held to where it starts
MODALITY_DROPOUT = 0.2  # of items whose text or image is left out in training
HELD_OUT = 0.1  # of the items, whose pairs say when to stop
MOST_STEPS, MOST_PASSES = 2000, 100  # of training, and over the pairs
CHECK_EVERY = 25  # steps between looks at the held-out pairs
PATIENCE = 4  # looks without a better loss
BLOCK = 1 << 20  # clicks of histories that are compared at once


class ContrastiveAlignment(TransformerMixin, BaseEstimator):
    """A linear projection of each medium, by InfoNCE on pairs of items that one user clicked.

    A pair is a click and one of the most similar of the clicks before it (QARM: arXiv 2411.11739).
    The projections start as principal components, of v4's geometry, are held to them, and are
    taken where pairs of items that were kept out tell that they generalise. Each medium has unit
    length, and zeros for an item without it.

    columns: first and stop of each medium in X. dim: the width of all media together.
    """

    def __init__(self, columns: list[list[int]], dim: int = 128, seed: int = 0) -> None:
        self.columns, self.dim, self.seed = columns, dim, seed

    def fit(self, X: np.ndarray, y: Impressions | None = None) -> "ContrastiveAlignment":
        """Learn from features, float32 [n, features], of items 1 to n and the rows y of clicks.

        Without clicks the projections stay principal components.
        """
        self.mean_ = np.zeros(X.shape[1], dtype=np.float32)
        bases, media, projections = [], [], []
        for number, (first, stop) in enumerate(self.columns):
            features = X[:, first:stop]
            there = features.any(axis=1)
            if there.any():
                self.mean_[first:stop] = features[there].mean(axis=0)
            centred = (features - self.mean_[first:stop]) * there[:, None]
            bases.append(_basis(centred[there]))
            media.append(torch.from_numpy(centred @ bases[-1]))
            share = (self.dim + number) // len(self.columns)  # an odd column goes to the image
            projections.append(torch.eye(bases[-1].shape[1])[:, :share])
        if y is not None:
            pairs = positive_pairs(y, _joined(media, projections).numpy())
            projections = align(media, projections, pairs, _drawn(X), self.seed)
        self.widths_ = np.array([projection.shape[1] for projection in projections])
        self.projection_ = block_diag(
            *(basis @ learned.numpy() for basis, learned in zip(bases, projections, strict=True))
        )
        return self

    def transform(self, X: np.ndarray) -> np.ndarray:
        """Embeddings, float32 [n, width], each medium at the same root mean square of 1."""
        there = [X[:, first:stop].any(axis=1) for first, stop in self.columns]
        centred = X - self.mean_
        for (first, stop), own in zip(self.columns, there, strict=True):
            centred[~own, first:stop] = 0
        made = np.split(centred @ self.projection_, np.cumsum(self.widths_)[:-1], axis=1)
        lengths = [np.linalg.norm(part, axis=1, keepdims=True) for part in made]
        parts = zip(made, lengths, self.widths_, strict=True)
        return np.hstack(
            [part / np.maximum(length, 1e-12) * np.sqrt(width) for part, length, width in parts]
        ).astype(np.float32)


def positive_pairs(
    clicks: Impressions, vectors: np.ndarray, recent: int = RECENT, nearest: int = NEAREST
) -> np.ndarray:
    """Pairs of a clicked item and the nearest of the clicks before it: int32 [pairs, 2].

    Items are rows of vectors, float32 [n, width] of unit length: item - 1. A pair stands as often
    as it was clicked; an item is no pair with itself.
    """
    found = [np.zeros((0, 2), dtype=np.int32)]
    for rows in _parts(clicks, recent):
        lengths = np.minimum(rows.history_length, recent)
        row = np.repeat(np.arange(len(rows)), lengths)
        items = rows.history_items[slice_positions(rows.history_end - lengths, lengths)] - 1
        target = rows.target[row] - 1
        cosine = np.einsum("nd,nd->n", vectors[target], vectors[items])
        cosine[target == items] = -np.inf
        order = np.lexsort((-cosine, row))
        rank = np.arange(len(order)) - np.repeat(np.cumsum(lengths) - lengths, lengths)
        kept = order[(rank < nearest) & (cosine[order] > -np.inf)]
        found.append(np.stack([target[kept], items[kept]], axis=1))
    return np.concatenate(found)


def info_nce(left: Tensor, right: Tensor, items: Tensor, log_share: Tensor) -> Tensor:
    """InfoNCE of pairs with each other's items as negatives, corrected for popularity: a scalar.

    left, right: float [n, width] of unit length. items: int64 [n, 2], whose vectors they are: an
    item is no negative of itself, nor of its pair. log_share: float [n], of the right items, how
    often each stands among the pairs, in logarithms: popular ones are negatives more often (logQ:
    Yi et al., 2019, section 4).
    """
    scores = left @ right.T / TEMPERATURE - log_share
    same = (items[:, 1:] == items[:, 1]) | (items[:, :1] == items[:, 1])
    scores = scores.masked_fill(same & ~torch.eye(len(items), dtype=torch.bool), -torch.inf)
    return F.cross_entropy(scores, torch.arange(len(items)))


def align(
    media: list[Tensor], starts: list[Tensor], pairs: np.ndarray, kept_out: np.ndarray, seed: int
) -> list[Tensor]:
    """Projections of media, [n, components] each, learned from pairs, int [pairs, 2].

    Those of the lowest loss on pairs with an item that is kept out of training, bool [n], of which
    the start is one.
    """
    generator = torch.Generator().manual_seed(seed)
    n_items = len(media[0])
    pairs = torch.from_numpy(pairs).long()
    log_share = torch.bincount(pairs.flatten(), minlength=n_items).clamp(min=1).log()
    log_share -= log_share.exp().sum().log()
    new = torch.from_numpy(kept_out)[pairs].any(dim=1)
    held, pairs = pairs[new], pairs[~new]
    held = held[torch.randperm(len(held), generator=generator)][: 8 * BATCH]
    weights = [start.clone().requires_grad_() for start in starts]
    optimizer = PlainAdam(weights, lr=LEARNING_RATE)

    def loss(batch: Tensor, dropout: float = 0.0) -> Tensor:
        vectors = [
            _joined([one[side] for one in media], weights, dropout, generator)
            for side in batch.unbind(1)
        ]
        return info_nce(*vectors, batch, log_share[batch[:, 1]])

    def on_held_out() -> float:
        with torch.no_grad():
            parts = [part for part in held.split(BATCH) if len(part) > 1]
            return float(torch.stack([loss(part) for part in parts]).mean()) if parts else np.inf

    steps = min(MOST_STEPS, MOST_PASSES * -(-len(pairs) // BATCH))
    best, chosen, waited = on_held_out(), [start.clone() for start in starts], 0
    batches = _batches(pairs, generator)
    with tqdm(total=steps, desc="align", unit="step") as bar:
        for step in range(1, steps + 1) if len(pairs) > 1 else ():
            value = loss(next(batches), MODALITY_DROPOUT)
            moved = sum(
                (one - start).square().sum() for one, start in zip(weights, starts, strict=True)
            )
            optimizer.zero_grad()
            (value + CLOSENESS * moved).backward()
            optimizer.step()
            bar.update()
            if step % CHECK_EVERY:
                continue
            now, waited = on_held_out(), waited + 1
            bar.set_postfix(held_out=f"{now:.4f}")
            if now < best:
                best, chosen, waited = now, [one.detach().clone() for one in weights], 0
            if waited == PATIENCE:
                break
    return chosen


def _drawn(features: np.ndarray) -> np.ndarray:
    """HELD_OUT of the items, bool [n], by chance, whatever their order: a hash of each decides."""
    hashes = np.array([crc32(np.ascontiguousarray(row)) for row in features])
    return hashes.argsort(kind="stable").argsort() < round(HELD_OUT * len(hashes))


def _batches(pairs: Tensor, generator: torch.Generator) -> Iterator[Tensor]:
    """Pairs in random order and direction, pass after pass, in batches of BATCH."""
    while True:
        for index in torch.randperm(len(pairs), generator=generator).split(BATCH):
            turned = torch.rand(len(index), generator=generator) < 0.5
            batch = pairs[index]
            yield torch.where(turned[:, None], batch.flip(1), batch)


def _joined(
    media: list[Tensor],
    projections: list[Tensor],
    dropout: float = 0.0,
    generator: torch.Generator | None = None,
) -> Tensor:
    """Items as unit vectors, [n, width], of their media, which count alike."""
    units = [F.normalize(one @ by, dim=1) for one, by in zip(media, projections, strict=True)]
    if dropout and len(units) > 1:
        drawn = torch.rand(len(units[0]), len(units), generator=generator)
        # One is left: the last of those drawn, whichever that is.
        dropped = (drawn < dropout) & (drawn < drawn.amax(dim=1, keepdim=True))
        units = [unit.masked_fill(dropped[:, [k]], 0) for k, unit in enumerate(units)]
    return F.normalize(torch.cat(units, dim=1), dim=1)


def _basis(centred: np.ndarray) -> np.ndarray:
    """Principal directions, [features, components], along the largest of which the deviation is 1.

    Weaker ones keep their place behind it: scaled up, they did better alone and worse in the model.
    Zeros where all items are alike.
    """
    from sklearn.decomposition import PCA

    possible = min(COMPONENTS, *centred.shape)
    if len(centred) < 2 or not centred.any():
        return np.zeros((centred.shape[1], 1), dtype=np.float32)
    pca = PCA(possible, svd_solver="covariance_eigh", random_state=0).fit(centred)
    deviation = np.sqrt(np.maximum(pca.explained_variance_, 0))
    kept = deviation > 1e-6 * deviation.max(initial=0)
    return (pca.components_[kept] / deviation[0]).T.astype(np.float32)


def _parts(clicks: Impressions, recent: int) -> Iterator[Impressions]:
    """The clicks, or a part of very many, in parts of about BLOCK clicks of histories."""
    if len(clicks) > MOST_CLICKS:
        clicks = clicks.select(
            np.sort(np.random.default_rng(0).permutation(len(clicks))[:MOST_CLICKS])
        )
    for rows in blocks(np.minimum(clicks.history_length, recent), BLOCK):
        yield clicks.select(rows)
