"""Metrics of predicted click probabilities, and how certain they are."""

from itertools import pairwise

import numpy as np
import pandas as pd
from sklearn.metrics import log_loss, roc_auc_score

from mmctr.bars import bar_if_long
from mmctr.data.dataset import Dataset
from mmctr.data.impressions import Impressions


def auc(label: np.ndarray, score: np.ndarray) -> float:
    """Area under the ROC curve; NaN if all labels are equal."""
    return float(roc_auc_score(label, score)) if len(np.unique(label)) == 2 else float("nan")


def logloss(label: np.ndarray, probability: np.ndarray) -> float:
    """Mean negative log-likelihood of the labels, in nats."""
    return float(log_loss(label, probability.astype(np.float64), labels=[0, 1]))


def gauc(user: np.ndarray, label: np.ndarray, score: np.ndarray) -> float:
    """Mean AUC of the users with both clicks and non-clicks, weighted by their rows.

    Deep Interest Network (Zhou et al., 2018, eq. 7). NaN if there is no such user.
    """
    rows = pd.DataFrame({"user": user, "label": label, "score": score})
    rows["rank"] = rows.groupby("user")["score"].rank()
    rows["clicked_rank"] = rows["rank"] * rows["label"]
    users = rows.groupby("user").agg(
        rows=("label", "size"), clicks=("label", "sum"), ranks=("clicked_rank", "sum")
    )
    users = users[(users["clicks"] > 0) & (users["clicks"] < users["rows"])]
    if users.empty:
        return float("nan")
    # Mann-Whitney: the AUC is the clicks' mean rank above the lowest possible one.
    lowest = users["clicks"] * (users["clicks"] + 1) / 2
    user_auc = (users["ranks"] - lowest) / (users["clicks"] * (users["rows"] - users["clicks"]))
    return float(np.average(user_auc, weights=users["rows"]))


def recall_at(clicked: np.ndarray, score: np.ndarray, k: int = 20) -> float:
    """Share of a user's clicks that stand among the k best of all candidates; NaN without clicks.

    clicked: bool [n], score: float [n], of every candidate.
    """
    return float(clicked[_best(score, k)].sum() / clicked.sum()) if clicked.any() else float("nan")


def ndcg_at(clicked: np.ndarray, score: np.ndarray, k: int = 20) -> float:
    """Normalized discounted cumulative gain of the k best of all candidates; NaN without clicks.

    A click at rank r counts 1 / log2(r + 1) (Järvelin and Kekäläinen, 2002), over the best that so
    many clicks allow. clicked: bool [n], score: float [n].
    """
    if not clicked.any():
        return float("nan")
    gains = 1 / np.log2(np.arange(2, min(k, len(score)) + 2))
    return float(gains @ clicked[_best(score, k)] / gains[: int(clicked.sum())].sum())


def _best(score: np.ndarray, k: int) -> np.ndarray:
    """Places of the k highest scores, the highest first; of equal ones the earlier first."""
    return np.argsort(-score, kind="stable")[:k]


def calibration(
    label: np.ndarray,
    probability: np.ndarray,
    bins: int = 10,
    weight: np.ndarray | None = None,
) -> pd.DataFrame:
    """Mean predicted and observed click rate in bins of equally many rows.

    Columns: rows, predicted, observed; the bins are ordered by predicted probability. weight: how
    many rows each stands for, where clicks were drawn more often than others.
    """
    weight = np.ones(len(label)) if weight is None else weight
    order = np.argsort(probability, kind="stable")
    parts = [part for part in np.array_split(order, bins) if len(part)]
    both = (probability, label)
    table = [
        (len(part), *(float(np.average(v[part], weights=weight[part])) for v in both))
        for part in parts
    ]
    return pd.DataFrame(table, columns=["rows", "predicted", "observed"])


def calibration_error(label: np.ndarray, probability: np.ndarray, bins: int = 10) -> float:
    """Expected calibration error: mean gap of predicted and observed rate, weighted by rows."""
    table = calibration(label, probability, bins)
    return float(np.average((table["predicted"] - table["observed"]).abs(), weights=table["rows"]))


def corrected(probability: np.ndarray, train_rate: float, click_rate: float) -> np.ndarray:
    """Probabilities as they are where click_rate is the share of clicks, of the same shape.

    A model that was trained where the share is train_rate, because negatives were drawn, is off by
    the ratio of the odds alone (prior shift; King and Zeng, 2001, section 4.1).
    """
    ratio = click_rate / (1 - click_rate) / (train_rate / (1 - train_rate))
    odds = ratio * probability.astype(np.float64)
    return odds / (odds + 1 - probability)


def corrected_calibration(
    label: np.ndarray, probability: np.ndarray, train_rate: float, click_rate: float
) -> pd.DataFrame:
    """`calibration` of the corrected probabilities where click_rate is the share of clicks.

    Non-clicks stand for as many rows as that takes.
    """
    clicks = float(np.mean(label))
    stands_for = (1 - click_rate) / click_rate / ((1 - clicks) / clicks)
    weight = np.where(label == 1, 1.0, stands_for)
    return calibration(label, corrected(probability, train_rate, click_rate), weight=weight)


def evaluate(rows: Impressions, probability: np.ndarray) -> dict[str, float]:
    """All metrics of one split: auc, logloss, gauc and calibration_error.

    Where items were shown together also gauc_impression, the GAUC within impressions.
    """
    label = rows.label
    metrics = {
        "auc": auc(label, probability),
        "logloss": logloss(label, probability),
        "gauc": gauc(rows.user, label, probability),
        "calibration_error": calibration_error(label, probability),
    }
    if rows.impression is not None:
        metrics["gauc_impression"] = gauc(rows.impression, label, probability)
    return metrics


def bootstrap_auc(
    user: np.ndarray, label: np.ndarray, scores: np.ndarray, *, resamples: int = 500, seed: int = 0
) -> np.ndarray:
    """AUC of each row of scores [systems, n] on resampled users: float64 [resamples, systems].

    Users are drawn with replacement, because rows of one user depend on each other. All systems
    see the same draws, so that differences between columns are paired.
    """
    scores = np.atleast_2d(scores)
    clicked = np.asarray(label) == 1
    users, user_of_row = np.unique(user, return_inverse=True)
    rng = np.random.default_rng(seed)
    orders = [np.argsort(score, kind="stable") for score in scores]
    ties = [
        np.flatnonzero(np.diff(score[order], prepend=np.nan) != 0)
        for score, order in zip(scores, orders, strict=True)
    ]
    result = np.empty((resamples, len(scores)))
    for draw in bar_if_long(result, resamples, "resample"):
        copies = np.bincount(rng.integers(len(users), size=len(users)), minlength=len(users))
        weight = copies[user_of_row].astype(np.float64)
        for system, (order, starts) in enumerate(zip(orders, ties, strict=True)):
            draw[system] = _weighted_auc(weight[order], clicked[order], starts)
    return result


def bootstrap_mean(
    user: np.ndarray, values: np.ndarray, *, resamples: int = 500, seed: int = 0
) -> np.ndarray:
    """The mean of values [n] on resampled users, float64 [resamples]; draws as of bootstrap_auc."""
    users, user_of_row = np.unique(user, return_inverse=True)
    sums, rows = np.bincount(user_of_row, values), np.bincount(user_of_row)
    rng, result = np.random.default_rng(seed), np.empty(resamples)
    for draw in range(resamples):
        copies = np.bincount(rng.integers(len(users), size=len(users)), minlength=len(users))
        result[draw] = copies @ sums / (copies @ rows)
    return result


def interval(samples: np.ndarray, level: float = 0.95) -> tuple[float, float]:
    """The percentile interval of bootstrap samples [resamples]."""
    tail = (1 - level) / 2
    low, high = np.nanquantile(samples, [tail, 1 - tail])
    return float(low), float(high)


def _weighted_auc(weight: np.ndarray, clicked: np.ndarray, tie_starts: np.ndarray) -> float:
    """AUC of rows sorted by score; tie_starts are the positions where the score changes."""
    positive = np.add.reduceat(weight * clicked, tie_starts)
    negative = np.add.reduceat(weight * ~clicked, tie_starts)
    below = np.cumsum(negative) - negative
    pairs = positive.sum() * negative.sum()
    return float((positive * (below + negative / 2)).sum() / pairs) if pairs else float("nan")


def auc_by_group(
    user: np.ndarray, label: np.ndarray, systems: dict[str, np.ndarray], group: pd.Series
) -> pd.DataFrame:
    """AUC of each system with its 95% bootstrap interval within each group of rows.

    systems: scores [n] by name. group: categorical [n], in the order wanted. Columns: system,
    group, rows, auc, low, high; groups without both labels are left out.
    """
    table = []
    for name in group.cat.categories:
        rows = np.flatnonzero(group == name)
        if len(np.unique(label[rows])) < 2:
            continue
        scores = np.stack([score[rows] for score in systems.values()])
        samples = bootstrap_auc(user[rows], label[rows], scores, resamples=200)
        for system, score, draws in zip(systems, scores, samples.T, strict=True):
            table.append((system, name, len(rows), auc(label[rows], score), *interval(draws)))
    return pd.DataFrame(table, columns=["system", "group", "rows", "auc", "low", "high"])


def bins(values: np.ndarray, edges: list[int]) -> pd.Series:
    """Whole numbers as ordered groups that start at the given edges: "0", "1-4", "5+"."""
    names = [
        f"{start:,}" if stop == start + 1 else f"{start:,}-{stop - 1:,}"
        for start, stop in pairwise(edges)
    ]
    names.append(f"{edges[-1]:,}+")
    return pd.Series(pd.cut(values, [*edges, np.inf], right=False, labels=names))


def references(dataset: Dataset, rows: Impressions) -> dict[str, np.ndarray]:
    """Scores [n] of what a model is set beside: popularity alone (train clicks of the target) and,
    if simulated, the oracle."""
    return {"popularity": dataset.known_clicks(rows)} | rows.oracle


def reference_aucs(dataset: Dataset, rows: Impressions) -> dict[str, float]:
    """AUC of each of `references`, by name."""
    return {name: auc(rows.label, score) for name, score in references(dataset, rows).items()}
