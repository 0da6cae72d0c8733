"""New items: how well what nobody has clicked yet is ranked, and what content is worth for it."""

import copy
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd
import torch
from tqdm.auto import tqdm

from mmctr.content.fitted import Fitted
from mmctr.content.fusion import embed
from mmctr.content.strategies import IDS
from mmctr.data.catalog import Catalog
from mmctr.data.dataset import Dataset
from mmctr.data.impressions import Impressions, slice_positions
from mmctr.errors import RunError
from mmctr.evaluation.compare import (
    LEVEL,
    holm,
    listed,
    names_of,
    paired,
    probabilities,
    systems_of,
)
from mmctr.evaluation.verdict import Verdict
from mmctr.model.din import DIN
from mmctr.runs.run import Run
from mmctr.training.metrics import auc, auc_by_group, bins
from mmctr.training.prediction import predict

NEW, COLD, WARM = "new", "cold", "warm"
WITHIN, AGAINST_ALL = "Negatives of the same group", "Negatives of all items"
LEAST = 30  # clicks and negatives of a group, below which its figures say little
RESAMPLES = 2000  # of the users: p-values stay small for many strategies and groups
STAND_IN = 20_000  # rows that are scored again where identities are withheld
BLOCK = 4096  # rows that are scored by cosine at once


def newness(clicks: np.ndarray) -> pd.Series:
    """Rows by the train clicks of their target, int [n]: new (0), cold (1 to 4), warm (5 or more).

    Categorical, in this order.
    """
    return bins(clicks, [0, 1, 5]).cat.rename_categories([NEW, COLD, WARM])


def auc_by_newness(
    rows: Impressions, systems: dict[str, np.ndarray], group: pd.Series
) -> pd.DataFrame:
    """AUC with interval of the clicks of each group, against two kinds of negatives.

    Within their group, where popularity tells little, and against the negatives of all items, as
    they compete. systems: scores [n] by name. Columns: those of metrics.auc_by_group, against,
    and clicks, of the group.
    """
    within = auc_by_group(rows.user, rows.label, systems, group).assign(against=WITHIN)
    tables = [within]
    for name in group.cat.categories:
        kept = np.flatnonzero((rows.label == 0) | (group == name))
        one = pd.Series(pd.Categorical([name] * len(kept), [name]))
        kept_systems = {system: score[kept] for system, score in systems.items()}
        table = auc_by_group(rows.user[kept], rows.label[kept], kept_systems, one)
        tables.append(table.assign(against=AGAINST_ALL))
    clicks = group[rows.label == 1].value_counts()
    table = pd.concat(tables, ignore_index=True)
    return table.assign(clicks=table["group"].map(clicks).astype(int))


def told(table: pd.DataFrame) -> str:
    """How new items are ranked, in words; the table is that of auc_by_newness."""
    said = []
    for against, words in ((WITHIN, "within the group"), (AGAINST_ALL, "against all negatives")):
        part = table[(table["group"] == NEW) & (table["against"] == against)]
        part = part.sort_values("auc", ascending=False)
        found = [f"{line.system} {line.auc:.3f}" for line in part.itertuples()]
        said += [f"{words} {listed(found)}"] if found else []
    return f"Clicks of new items, {'; '.join(said)}." if said else ""


def remarks(label: np.ndarray, group: pd.Series) -> str:
    """Which groups are empty or too small to say much, in words; empty if none is."""
    said = []
    for name in group.cat.categories:
        rows = label[group == name]
        clicks, negatives = int(rows.sum()), int((rows == 0).sum())
        if not clicks:
            said.append(f"No click of these rows is on a {name} item.")
        elif min(clicks, negatives) < LEAST:
            said.append(
                f"The {name} group is small ({clicks} clicks, {negatives} negatives): its figures "
                "say little."
            )
    return " ".join(said)


def cosines(catalog: Catalog, rows: Impressions) -> dict[str, np.ndarray]:
    """How like the target is to the history, without training: float32 [n] by medium.

    The cosine of the target's vector with the mean of the history's unit vectors, of text and of
    image, as far as there are; 0 where either says nothing.
    """
    # Rows share histories: the mean of each is taken once.
    slices = np.stack([rows.history_start, rows.history_end])
    distinct, history = np.unique(slices, axis=1, return_inverse=True)
    history = history.ravel()
    order = np.argsort(history, kind="stable")
    found = {}
    for name, features in media(catalog).items():
        unit, scores = unit_vectors(features), np.zeros(len(rows), dtype=np.float32)
        for first in range(0, len(order), BLOCK):
            here = order[first : first + BLOCK]
            own = history[here]
            start, end = distinct[:, own[0] : own[-1] + 1]
            items = rows.history_items[slice_positions(start, end - start)]
            like = unit_vectors(_sums(unit, items, end - start))[own - own[0]]
            scores[here] = np.einsum("nd,nd->n", unit[rows.target[here]], like)
        found[name] = scores
    return found


def media(catalog: Catalog) -> dict[str, np.ndarray]:
    """The features that there are, [n_items + 1, width], by the name of their system."""
    features = {"cosine of text": catalog.text_features, "cosine of image": catalog.image_features}
    return {name: values for name, values in features.items() if values is not None}


def unit_vectors(vectors: np.ndarray) -> np.ndarray:
    """Rows, [n, width], at length 1; zero ones stay zero."""
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    return vectors / np.where(lengths > 0, lengths, 1)


def withheld(model: DIN, items: np.ndarray) -> DIN:
    """A copy of a model that does not know the identity of some items, int [k].

    Their ids and popularity levels say nothing, as those of new items, in histories and as
    targets. The weights are shared with the model.
    """
    hidden = sharing(model)
    known = model.embedding.known
    everything = torch.ones(model.n_items + 1, dtype=torch.bool, device=model.device)
    known = everything if known is None else known.clone()
    known[torch.as_tensor(items, device=model.device)] = False
    hidden.embedding.register_buffer("known", known)
    return hidden


def a_tenth(n_items: int, seed: int = 0) -> np.ndarray:
    """A tenth of the items, at least one, drawn by chance: int64 [k], sorted."""
    drawn = np.random.default_rng(seed).permutation(n_items)[: max(1, n_items // 10)]
    return np.sort(drawn) + 1


@dataclass(frozen=True)
class Trial:
    """Valid rows as if some of their items were new, or because they are, and their scores.

    new: bool [n_items + 1]. group: newness of the rows' targets. models: a model of each strategy,
    of its first seed, transformers: what embedded items for it, if any. scores: of all seeds by
    strategy, float [runs, n]. real: whether training never saw the new items, or their identity was
    withheld from it afterwards.
    """

    dataset: Dataset
    rows: Impressions
    new: np.ndarray
    group: pd.Series
    scores: dict[str, np.ndarray]
    models: dict[str, DIN]
    transformers: dict[str, Fitted]
    real: bool

    @classmethod
    def of(cls, dataset: Dataset, runs: list[Run]) -> "Trial":
        """The new items of a new-items split, elsewhere a tenth of the items as a stand-in."""
        clicks, rows = dataset.train_clicks(), dataset.valid
        real = dataset.catalog.held_out is not None
        first = {name: found[0] for name, found in systems_of(runs).items()}
        models = {name: run.model() for name, run in first.items()}
        fitted = {name: _transformer(run, dataset) for name, run in first.items() if name != IDS}
        if real:
            scores = probabilities(runs)
        else:
            items = a_tenth(dataset.catalog.n_items)
            clicks[items] = 0
            order = np.random.default_rng(0).permutation(len(rows))
            rows = rows.select(np.sort(order[:STAND_IN]))
            models = {name: withheld(model, items) for name, model in models.items()}
            scored = [predict(withheld(run.model(), items), rows) for run in tqdm(runs, unit="run")]
            found = pd.Series(names_of(runs))
            scores = {name: np.stack([scored[k] for k in of]) for name, of in _places(found)}
        new = clicks == 0
        new[0] = False
        return cls(dataset, rows, new, newness(clicks[rows.target]), scores, models, fitted, real)

    @cached_property
    def systems(self) -> dict[str, np.ndarray]:
        """Scores of each strategy, averaged over seeds, and of what needs no training, [n]."""
        means = {name: scores.mean(axis=0) for name, scores in self.scores.items()}
        return means | cosines(self.dataset.catalog, self.rows) | self.rows.oracle

    @property
    def best(self) -> str:
        """The strategy that ranks clicks of new items best among new items; ids if it is alone."""
        kept = (self.group == NEW).to_numpy()
        label = self.rows.label[kept]
        found = {name: auc(label, self.systems[name][kept]) for name in self.scores if name != IDS}
        return max(found, key=lambda name: np.nan_to_num(found[name]), default=IDS)

    @property
    def words(self) -> str:
        """What is new here, and how far it can be believed."""
        items, clicks = int(self.new.sum()), int(self.rows.label[self.group == NEW].sum())
        if self.real:
            return (
                f"The real thing: {items:,} items have no click in train, because an import kept "
                f"some from it, and {clicks:,} clicks of valid are on them."
            )
        return (
            f"A stand-in: these data keep no items from train, so the identity (id and popularity) "
            f"of a tenth of the items is withheld from the trained models. With those that have no "
            f"click in train {items:,} items count as new, with {clicks:,} clicks among "
            f"{len(self.rows):,} rows of valid. The models were trained on clicks of the withheld "
            "items, so this is an upper bound: an import with --split new-items shows the real "
            "thing."
        )


def worth(scores: dict[str, np.ndarray], rows: Impressions, group: pd.Series) -> pd.DataFrame:
    """What content adds to AUC within each group: the best strategy minus ids, a line a group.

    scores: of each strategy's runs, [runs, n]. Columns: group, strategy, clicks, difference, low,
    high, p, p_holm (corrected for all strategies and groups). Empty without runs of ids and of
    another strategy; groups without both labels are left out.
    """
    tables = []
    for name in group.cat.categories if IDS in scores and len(scores) > 1 else ():
        kept = np.flatnonzero(group == name)
        label = rows.label[kept]
        if len(np.unique(label)) == 2:
            own = {strategy: score[:, kept] for strategy, score in scores.items()}
            table = paired(IDS, own, rows.user[kept], label, resamples=RESAMPLES)
            table = table.rename_axis("strategy").reset_index()
            tables.append(table.assign(group=name, clicks=int(label.sum())))
    columns = ["group", "strategy", "clicks", "difference", "low", "high", "p", "p_holm"]
    if not tables:
        return pd.DataFrame(columns=columns)
    table = pd.concat(tables, ignore_index=True)
    table["p_holm"] = holm(table["p"].to_numpy(np.float64))
    best = table.groupby("group", sort=False)["difference"].idxmax()
    return table.loc[best, columns].reset_index(drop=True)


def worth_in_words(table: pd.DataFrame) -> str:
    """What content is worth for which items, in a sentence; the table is that of worth."""
    if table.empty:
        return (
            "What text and image are worth for new items is not known: a report with ids beside "
            "other strategies tells (mmctr report --strategies v1,v4,ids)."
        )
    said = [
        f"{line.difference:+z.3f} on {line.group} items ({_how_sure(line)})"
        for line in table.itertuples()
    ]
    return f"Text and image add to the AUC of ids: {listed(said)}, each within its group."


def verdict(table: pd.DataFrame, trial: Trial) -> Verdict:
    """What content is worth for new items, as a card; the table is that of worth."""
    headline, clear, facts = worth_in_words(table), False, []
    if not table.empty:
        first, *_ = table.itertuples()
        clear = bool(first.p_holm < LEVEL)
        headline = f"Text and image: {first.difference:+z.3f} AUC on {first.group} items"
        facts = [
            (f"{line.group} items", f"{line.difference:+z.3f} to AUC of ids ({_how_sure(line)})")
            for line in table.itertuples()
        ]
    return Verdict(headline, clear, [*facts, ("what is new", trial.words)], "")


def _how_sure(line: Any) -> str:
    """The strategy and interval of a line of worth, and whether it is more than chance."""
    sure = "more than chance" if line.p_holm < LEVEL else "could be chance"
    few = ", few clicks" if line.clicks < LEAST else ""
    return f"{line.strategy}, 95% interval {line.low:+z.3f} to {line.high:+z.3f}, {sure}{few}"


def gains(trial: Trial, strategy: str, baseline: str = IDS, least: int = 3) -> pd.DataFrame:
    """New items by what a strategy adds to the AUC of their clicks against the group's negatives.

    Columns: item, clicks (at least `least`), before (of the baseline), after, gain; the largest
    gain first. Empty without runs of the baseline.
    """
    if baseline not in trial.systems:
        return pd.DataFrame(columns=["item", "clicks", "before", "after", "gain"])
    new, label = (trial.group == NEW).to_numpy(), trial.rows.label
    clicked = np.flatnonzero(new & (label == 1))
    table = pd.DataFrame({"item": trial.rows.target[clicked]})
    for column, name in (("before", baseline), ("after", strategy)):
        score = trial.systems[name]
        negatives = np.sort(score[new & (label == 0)])
        sides = [np.searchsorted(negatives, score[clicked], side) for side in ("left", "right")]
        table[column] = (sides[0] + sides[1]) / (2 * max(1, len(negatives)))
    items = table.groupby("item").agg(
        clicks=("before", "size"), before=("before", "mean"), after=("after", "mean")
    )
    items = items[items["clicks"] >= least].assign(gain=lambda one: one["after"] - one["before"])
    return items.sort_values("gain", ascending=False, kind="stable").reset_index()


def gains_in_words(table: pd.DataFrame, strategy: str) -> str:
    """How many new items a strategy ranks better than ids; the table is that of gains."""
    if table.empty:
        return "No new item has three clicks here, or there is no run of ids to compare with."
    better = int((table["gain"] > 0).sum())
    return (
        f"Of {len(table):,} new items with three clicks or more, {strategy} ranks {better:,} "
        f"better than ids, {int((table['gain'] < 0).sum()):,} worse; the median gain in AUC is "
        f"{table['gain'].median():+.3f}."
    )


def notes(table: pd.DataFrame) -> list[str]:
    """A note for each item of a table of gains: what it was, what it became, and its clicks."""
    return [f"{line.before:.2f} → {line.after:.2f} ({line.clicks})" for line in table.itertuples()]


def sharing(model: DIN) -> DIN:
    """A copy of a model whose modules are its own; the tensors are the same."""
    tensors = [*model.parameters(), *model.buffers()]
    return copy.deepcopy(model, {id(tensor): tensor for tensor in tensors})


def _transformer(run: Run, dataset: Dataset) -> Fitted:
    """What a run embedded items by; fitted again where it was trained before runs kept it."""
    with suppress(RunError):
        return run.carried.strategy.transformer
    return embed(dataset.catalog, run.strategy)[1]


def _places(names: pd.Series) -> Iterator[tuple[str, np.ndarray]]:
    return iter(names.groupby(names, sort=False).indices.items())


def _sums(vectors: np.ndarray, items: np.ndarray, lengths: np.ndarray) -> np.ndarray:
    """Sums of the vectors of consecutive items, float32 [n, width], of as many as lengths says."""
    from scipy.sparse import csr_array

    bounds = np.append(0, np.cumsum(lengths))
    ones = np.ones(len(items), dtype=np.float32)
    return csr_array((ones, items, bounds), shape=(len(lengths), len(vectors))) @ vectors
