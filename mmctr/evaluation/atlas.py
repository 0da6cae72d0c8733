"""The error atlas: where a model is right and where it is not, tile by tile of the rows."""

from typing import NamedTuple

import numpy as np
import pandas as pd

from mmctr.data.dataset import Dataset
from mmctr.data.impressions import Impressions
from mmctr.data.rates import field_codes
from mmctr.evaluation.new_items import LEAST, newness
from mmctr.training.metrics import auc, bins, bootstrap_auc, bootstrap_mean, interval, logloss

MOST = 10  # values of a category, or tags, that have a tile: the most frequent ones
RESAMPLES = 200  # of the users of a tile that is not all rows
WORST = 5  # rows of a tile that are shown
ALL, TAG, NEWNESS, HISTORY = "all rows", "tag", "target", "history length"


class Tile(NamedTuple):
    """Rows that have something in common: by what, its value, and their places, int64, rising."""

    by: str
    value: str
    rows: np.ndarray


def tiles(dataset: Dataset, rows: Impressions) -> list[Tile]:
    """All rows, then those of each tag, of new, cold and warm targets, history length and field.

    A row stands in a tile of each of its tags. Tiles without rows are left out, and so are those
    of rarer tags and values of categories than the MOST frequent; numbers are in bins.
    """
    found = [Tile(ALL, ALL, np.arange(len(rows))), *_by_tag(dataset, rows)]
    group = newness(dataset.train_clicks()[rows.target])
    found += _by_code(NEWNESS, group.cat.codes.to_numpy(), list(group.cat.categories))
    lengths = bins(rows.history_length, [0, 1, 4, 8, 16, 32])
    found += _by_code(HISTORY, lengths.cat.codes.to_numpy(), list(lengths.cat.categories))
    for field, codes in field_codes(dataset, rows):
        most = None if field.values is None else MOST
        found += _by_code(field.title, codes, field.labels(), most)
    return found


def measured(found: list[Tile], rows: Impressions, probability: np.ndarray) -> pd.DataFrame:
    """How well each tile is predicted, a line each in the order given; probability: [n].

    Columns: by, value, rows, clicks, auc, auc_low, auc_high, logloss, logloss_low, logloss_high
    (95% intervals; users are resampled), few (fewer than LEAST clicks or negatives, so that its
    figures say little). AUC is that of clicks against negatives of the tile, NaN without either.
    """
    lines, loss = [], losses(rows.label, probability)
    for tile in found:
        user, label, score = (v[tile.rows] for v in (rows.user, rows.label, probability))
        clicks, own = int(label.sum()), [float("nan")] * 3
        # Of all rows as often as of every run, whose summary has the same interval.
        resamples = {"resamples": 500 if len(label) == len(rows) else RESAMPLES}
        if 0 < clicks < len(label):
            draws = bootstrap_auc(user, label, score, **resamples)[:, 0]
            own = [auc(label, score), *interval(draws)]
        draws = bootstrap_mean(user, loss[tile.rows], **resamples)
        own += [logloss(label, score), *interval(draws)]
        few = min(clicks, len(label) - clicks) < LEAST
        lines.append((tile.by, tile.value, len(label), clicks, *own, few))
    names = [f"{name}{end}" for name in ("auc", "logloss") for end in ("", "_low", "_high")]
    return pd.DataFrame(lines, columns=["by", "value", "rows", "clicks", *names, "few"])


def losses(label: np.ndarray, probability: np.ndarray) -> np.ndarray:
    """What each row adds to the logloss, in nats, float64 [n]."""
    tiny = np.finfo(np.float64).eps  # as scikit-learn's log_loss
    probability = np.clip(probability.astype(np.float64), tiny, 1 - tiny)
    return -np.log(np.where(np.asarray(label) == 1, probability, 1 - probability))


def worst(tile: Tile, loss: np.ndarray, count: int = WORST) -> np.ndarray:
    """The rows of a tile of the largest loss, the largest first: int64 [count], fewer if it is
    smaller. loss: of all rows, [n]."""
    return tile.rows[np.argsort(-loss[tile.rows], kind="stable")[:count]]


def weaker(table: pd.DataFrame) -> pd.DataFrame:
    """The tiles whose interval of AUC is below the AUC of all rows, the weakest first."""
    clear = ~table["few"] & (table["auc_high"] < table["auc"][0])
    return table[clear].sort_values("auc", kind="stable")


def told(table: pd.DataFrame) -> str:
    """Where the model ranks worse than over all rows, in words; the table is that of measured."""
    judged, found = int((~table["few"]).sum()) - 1, weaker(table)
    if judged < 1:
        return "No tile has enough clicks and negatives to say where the model is weak."
    if found.empty:
        return f"No tile's interval of AUC is below that of all rows, {table['auc'][0]:.3f}."
    named = [
        f"{line.value} ({line.by}) {line.auc:.3f}, 95% interval {line.auc_low:.3f} to "
        f"{line.auc_high:.3f}"
        for line in found.head(3).itertuples()
    ]
    return (
        f"Of {judged} tiles {len(found)} have an interval of AUC below that of all rows, "
        f"{table['auc'][0]:.3f}, where chance alone gives about {0.025 * judged:.1f}; the weakest: "
        f"{'; '.join(named)}."
    )


def _by_tag(dataset: Dataset, rows: Impressions) -> list[Tile]:
    tags = dataset.catalog.tags[rows.target]
    # Of a tag that an item has twice its row counts once.
    ordered = np.sort(tags, axis=1)
    again = np.pad(ordered[:, 1:] == ordered[:, :-1], ((0, 0), (1, 0)))
    counts = np.bincount(ordered[~again])
    counts[:1] = 0
    most = np.argsort(-counts, kind="stable")[:MOST]
    name = dataset.catalog.tag_name
    return [
        Tile(TAG, name(tag), np.flatnonzero((tags == tag).any(axis=1)))
        for tag in most.tolist()
        if counts[tag]
    ]


def _by_code(by: str, codes: np.ndarray, names: list[str], most: int | None = None) -> list[Tile]:
    """A tile for each code that rows, int [n], have: in order, or the most frequent ones first."""
    counts = np.bincount(codes, minlength=len(names))
    order = range(len(names)) if most is None else np.argsort(-counts, kind="stable")[:most]
    return [Tile(by, names[code], np.flatnonzero(codes == code)) for code in order if counts[code]]
