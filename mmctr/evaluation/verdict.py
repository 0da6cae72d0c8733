"""Who is ahead, in ten seconds: a headline, a few facts, and all numbers for those who ask."""

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import pandas as pd

from mmctr.content import strategies
from mmctr.data.wording import kind_of, stated
from mmctr.evaluation.compare import (
    LEVEL,
    TIMES,
    comparison,
    first_looks,
    listed,
    strategy_table,
    systems_of,
)
from mmctr.runs.run import Run

REFERENCES = {"popularity": "popularity", "oracle": "the oracle, which no model can beat,"}


@dataclass(frozen=True)
class Verdict:
    """An answer as a card.

    clear: whether the headline is more than chance. facts: each with its name, in order, which
    files of JSON with sorted names would not keep of a dictionary.
    """

    headline: str
    clear: bool
    facts: list[tuple[str, str]]
    details: str

    def as_dict(self) -> dict[str, Any]:
        """What a page, or a notebook's output, keeps of it."""
        return asdict(self)

    def __str__(self) -> str:
        width = max((len(name) for name, _ in self.facts), default=0)
        facts = [f"  {name.ljust(width)}  {words}" for name, words in self.facts]
        return "\n".join([self.headline, *facts])


def verdict(runs: list[Run], more: str = "", table: pd.DataFrame | None = None) -> Verdict:
    """Which system of some comparable runs is best, by how much, and at what cost.

    more: sentences that join the details. table: compare.comparison of the runs, if it is at hand.
    """
    means = strategy_table(runs)
    table = comparison(runs) if table is None else table
    differences = table.iloc[1:]
    best, data = table["strategy"][0], runs[0].summary["dataset"]
    systems, valid = systems_of(runs), runs[0].predictions
    headline, clear, facts = f"{best} reaches a valid AUC of {table['AUC'][0]:.4f}", False, {}
    if len(table) > 1:
        next_best = differences.iloc[0]
        clear = bool(next_best["p_holm"] < LEVEL)
        name = next_best["strategy"]
        if clear:
            headline = f"{best} ranks clicks best: valid AUC {table['AUC'][0]:.4f}"
        else:
            headline = f"{best} is ahead of {name}, but that could be chance"
        chance = "more than chance" if clear else "could be chance"
        facts["lead"] = (
            f"{-next_best['difference']:+z.4f} AUC over {name} (95% interval "
            f"{-next_best['high']:+z.4f} to {-next_best['low']:+z.4f}): {chance}"
        )
    strategy, references = systems[best][0].strategy, runs[0].summary["reference_auc"]
    facts["strategy"] = f"{strategy}, {strategies.in_words(strategy)}"
    beside = [f"{REFERENCES.get(name, name)} {auc:.4f}" for name, auc in references.items()]
    facts["beside it"] = f"AUC of {listed(['guessing 0.5', *beside])}"
    facts["cost"] = cost_in_words(systems[best])
    seeds = sorted({run.seed for run in runs})
    words = stated(data)
    facts["data"] = (
        f"{data['name']} ({kind_of(data['simulated'])}): {len(valid):,} valid {words.rows} of "
        f"{valid['user'].nunique():,} users, seed{'s' if len(seeds) > 1 else ''} "
        f"{listed([*map(str, seeds)])}"
    )
    if looks := first_looks(runs):
        facts["trained on"] = "; ".join(looks)
    facts["negatives"] = words.negatives.removeprefix("Negatives: ").rstrip(".")
    told = in_words(means, differences, data, references)
    return Verdict(headline, clear, [*facts.items()], f"{told} {more}".strip())


def cost_in_words(runs: list[Run]) -> str:
    """What training cost: epochs, seconds an epoch with their spread, and rows a second."""
    speeds = [run.summary["cost"]["samples_per_s"] for run in runs if "cost" in run.summary]
    return epochs_in_words(runs) + (f", {np.mean(speeds):,.0f} rows a second" if speeds else "")


def epochs_in_words(runs: list[Run]) -> str:
    """Epochs of training and the seconds of one: means over runs, lowest and highest."""
    epochs = np.array([run.history["epoch"].max() for run in runs])
    seconds = np.array([run.summary["seconds"]["training"] for run in runs]) / epochs
    spread = f" ({seconds.min():,.3g} to {seconds.max():,.3g})" if len(runs) > 1 else ""
    several = "" if epochs.mean() == 1 else "s"
    return f"{epochs.mean():.3g} epoch{several} of {seconds.mean():,.3g} s{spread}"


def in_words(
    means: pd.DataFrame,
    differences: pd.DataFrame,
    data: dict[str, Any],
    references: dict[str, float] | None = None,
) -> str:
    """All of it in sentences: by how much the best leads each of the others, and at what cost.

    Tables as of strategy_table and paired_differences; data: as a run states them; references: AUC
    of other rankings by name.
    """
    best, cheapest = means.iloc[0], means.loc[means[TIMES].sum(axis=1).idxmin()]
    name = best["strategy"]
    seeds = f"the mean of {best['seeds']} seeds" if best["seeds"] > 1 else "with one seed"
    words = (
        f"On {data['name']} ({kind_of(data['simulated'])}) {name} has the highest valid AUC, "
        f"{best['AUC']:.4f}, {seeds}"
    )
    beside = [f"{other} {value:.4f}" for other, value in (references or {}).items()]
    words += f"; beside it: {listed(beside)}." if beside else "."
    clear = differences["p_holm"] < LEVEL
    if clear.any():
        words += f" It is better by more than chance than {_leads(differences[clear])}."
    if not clear.all():
        close = differences[~clear]
        words += f" Its lead could be chance over {_leads(close)}: it is not shown to be better."
    if means["seeds"].max() > 1:
        words += f" Seeds of one strategy differ by up to {means['seed spread'].max():.4f}."
    else:
        words += " How much another seed would change is not known."
    words += f" A run of {name} takes {best[TIMES].sum():,.0f} s of fusion and training"
    if cheapest["strategy"] != name:
        words += f", one of {cheapest['strategy']}, the quickest, {cheapest[TIMES].sum():,.0f} s"
    return words + "."


def _leads(differences: pd.DataFrame) -> str:
    """The lead of the best over each of the others, in words."""
    leads = [
        f"{line.strategy} (by {-line.difference:z.4f}, 95% interval {-line.high:z.4f} to "
        f"{-line.low:z.4f}, corrected p = {line.p_holm:.3f})"
        for line in differences.itertuples()
    ]
    return listed(leads)
