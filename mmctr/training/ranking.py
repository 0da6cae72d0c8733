"""How well the rows of each user, or of each impression, are ranked: NDCG, Recall and MRR."""

from typing import NamedTuple

import numpy as np
import pandas as pd

from mmctr.data.impressions import Impressions
from mmctr.training.metrics import gauc

AT = 10  # rows of a group that count as its top


class Ranking(NamedTuple):
    """Means over groups, each of which counts alike; NaN if there is no group.

    groups: those that have a click and a negative. short: how many of them have no more rows than
    the top, so that their recall is 1 however they are ranked. recall: the share of a group's
    clicks that are in its top. mrr: the mean of 1 / rank of a group's first click.
    """

    groups: int
    short: int
    ndcg: float
    recall: float
    mrr: float


def ranking(group: np.ndarray, label: np.ndarray, score: np.ndarray, k: int = AT) -> Ranking:
    """Rank the rows of each group by score, the highest first; arrays [n].

    NDCG@k with gains of 1 for a click and discounts 1 / log2(rank + 1) (Järvelin and Kekäläinen,
    2002), as scikit-learn's ndcg_score. Equal scores stand in no order: each measure is its mean
    over all of theirs, which is what ndcg_score takes (McSherry and Najork, 2008).
    """
    group = np.unique(group, return_inverse=True)[1]
    rows, clicks = np.bincount(group), np.bincount(group, label == 1)
    both = (clicks > 0) & (clicks < rows)
    if not both.any():
        return Ranking(0, 0, *[float("nan")] * 3)
    kept = np.flatnonzero(both[group])
    order = kept[np.lexsort((-score[kept].astype(np.float64), group[kept]))]
    # Groups are numbered anew: those that are left.
    group, score = (np.cumsum(both) - 1)[group[order]], score[order]
    clicked, rows, clicks = label[order] == 1, rows[both], clicks[both]
    place = np.arange(len(order)) - (np.cumsum(rows) - rows)[group]
    tie = np.cumsum((place == 0) | (np.diff(score, prepend=score[:1]) != 0)) - 1
    discount = np.where(place < k, 1 / np.log2(place + 2), 0)
    ideal = np.append(0, np.cumsum(1 / np.log2(np.arange(k) + 2)))
    gained = np.bincount(group, clicked * _means(tie, discount))
    found = np.bincount(group, clicked * _means(tie, place < k))
    return Ranking(
        groups=len(rows),
        short=int((rows <= k).sum()),
        ndcg=float(np.mean(gained / ideal[np.minimum(clicks, k).astype(int)])),
        recall=float(np.mean(found / clicks)),
        mrr=float(np.mean(np.bincount(group, _first(tie, group, clicked) / (place + 1)))),
    )


def groups_of(rows: Impressions) -> dict[str, np.ndarray]:
    """What rows are ranked within, int64 [n]: the user, and the impression if it is known."""
    shown = {} if rows.impression is None else {"impression": rows.impression}
    return {"user": rows.user} | shown


def ranking_table(rows: Impressions, systems: dict[str, np.ndarray]) -> pd.DataFrame:
    """A line for each kind of group and system; systems: scores [n] by name.

    Columns: within, system, groups, GAUC, NDCG@10, Recall@10, MRR.
    """
    lines = []
    for within, group in groups_of(rows).items():
        for name, score in systems.items():
            found = ranking(group, rows.label, score)
            own = gauc(group, rows.label, score)
            lines.append((within, name, found.groups, own, found.ndcg, found.recall, found.mrr))
    measures = ["GAUC", f"NDCG@{AT}", f"Recall@{AT}", "MRR"]
    return pd.DataFrame(lines, columns=["within", "system", "groups", *measures])


def in_words(rows: Impressions) -> str:
    """What the ranking measures of rows are computed on, in a sentence for each kind of group."""
    said = []
    for within, group in groups_of(rows).items():
        # Whatever the scores are, the groups are the same.
        found, of_all = ranking(group, rows.label, rows.label), len(np.unique(group))
        if not found.groups:
            said.append(f"None of {of_all:,} {within}s has a click and a negative to rank.")
            continue
        told = f"Within {found.groups:,} of {of_all:,} {within}s, those with a click and a negative"
        if found.short:
            which = "all" if found.short == found.groups else f"{found.short:,}"
            told += (
                f"; in {which} of them there are at most {AT} rows, so that Recall@{AT} "
                "is 1 however they are ranked"
            )
        said.append(told + ".")
    return " ".join(said)


def _means(part: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Of each row the mean of the values in its part, float64 [n]; parts are numbered from 0."""
    return (np.bincount(part, values) / np.bincount(part))[part]


def _first(tie: np.ndarray, group: np.ndarray, clicked: np.ndarray) -> np.ndarray:
    """The chance of each place that its group's first click stands there, float64 [n].

    tie: number of the rows of equal score, rising with group and rank; int [n], as group. Of t such
    rows with c clicks none stands before place j with chance C(t - j, c) / C(t, c).
    """
    from scipy.special import gammaln

    size, clicks = np.bincount(tie), np.bincount(tie, clicked)
    with_click = np.flatnonzero(clicks)
    owner = group[(np.cumsum(size) - size)[with_click]]
    is_first = np.zeros(len(size), dtype=bool)
    is_first[with_click[np.unique(owner, return_index=True)[1]]] = True
    chance, of_first = np.zeros(len(tie)), np.flatnonzero(is_first[tie])
    t, c = size[tie[of_first]], clicks[tie[of_first]]
    before = of_first - (np.cumsum(size) - size)[tie[of_first]]

    def none_before(j: np.ndarray) -> np.ndarray:
        left = np.maximum(t - j, c)
        ways = gammaln(left + 1) - gammaln(left - c + 1) + gammaln(t - c + 1) - gammaln(t + 1)
        return np.where(t - j < c, 0, np.exp(ways))

    chance[of_first] = none_before(before) - none_before(before + 1)
    return chance
