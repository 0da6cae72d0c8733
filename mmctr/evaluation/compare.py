"""Runs side by side: tables over strategies and seeds, paired differences, the answer in words."""

import numpy as np
import pandas as pd
from pandas.io.formats.style import Styler

from mmctr.data.dataset import Dataset
from mmctr.data.impressions import Impressions
from mmctr.runs.run import Run
from mmctr.training.metrics import auc, bootstrap_auc, interval

RESAMPLES = 1000  # of the users: the smallest p-value is 2 / 1001
TIMES = ["training (s)", "fusion (s)"]
LEVEL = 0.05  # a corrected p-value below it counts as more than chance
QUALITY = ["strategy", "seeds", "AUC", "seed spread", "logloss", "GAUC"]
COST = ["strategy", *TIMES, "samples/s", "peak memory (MB)", "parameters", "embedding (MB)"]


def run_table(runs: list[Run]) -> pd.DataFrame:
    """A line a run: strategy, seed, auc, low, high (its 95% interval), seconds (fusion, training),
    and what `strategy_table` takes means of."""
    lines = []
    for run in runs:
        metrics, seconds = run.summary["metrics"], run.summary["seconds"]
        low, high = metrics["auc_interval"]
        cost = run.summary.get("cost", {})  # older runs have none
        width = run.config["sizes"]["content_width"] or 0
        lines.append(
            {
                "strategy": run.strategy,
                "seed": run.seed,
                "auc": metrics["auc"],
                "low": low,
                "high": high,
                "seconds": seconds["fusion"] + seconds["training"],
                "logloss": metrics["logloss"],
                "GAUC": metrics["gauc"],
                "training (s)": round(seconds["training"], 1),
                "fusion (s)": round(seconds["fusion"], 1),
                "samples/s": cost.get("samples_per_s", np.nan),
                "peak memory (MB)": cost.get("peak_memory_mb", np.nan),
                "parameters": run.summary["parameters"],
                "embedding (MB)": width * 4 * run.config["sizes"]["n_items"] / 1e6,
            }
        )
    return pd.DataFrame(lines)


def strategy_table(runs: list[Run]) -> pd.DataFrame:
    """A line a strategy, means over its seeds, the best valid AUC first; NaN: not measured.

    The seed spread is the highest AUC of a strategy's seeds minus the lowest.
    """
    of_strategy = run_table(runs).rename(columns={"auc": "AUC"}).groupby("strategy")
    means = of_strategy.mean().astype({"parameters": int}).assign(seeds=of_strategy.size())
    spread = of_strategy["AUC"].max() - of_strategy["AUC"].min()
    means["seed spread"] = spread.where(means["seeds"] > 1)
    return means[[*QUALITY[1:], *COST[1:]]].sort_values("AUC", ascending=False).reset_index()


def styled(means: pd.DataFrame) -> Styler:
    """The strategy table, or columns of it, as a page shows it; a dash: not measured."""
    formats = dict.fromkeys(QUALITY[2:], "{:.4f}")
    formats |= dict.fromkeys([*TIMES, "embedding (MB)"], "{:,.1f}")
    formats |= dict.fromkeys(["samples/s", "peak memory (MB)", "parameters"], "{:,.0f}")
    formats = {name: text for name, text in formats.items() if name in means}
    return means.style.hide().format(formats, na_rep="–", escape="html")


def probabilities(runs: list[Run]) -> dict[str, np.ndarray]:
    """The predicted probabilities of each strategy's runs, float64 [runs, n]."""
    return {
        strategy: np.stack([run.predictions["probability"] for run in found]).astype(np.float64)
        for strategy, found in by_strategy(runs).items()
    }


def paired_differences(runs: list[Run], rows: Impressions) -> pd.DataFrame:
    """`differences_to` the best strategy, a line for each of the others: column strategy."""
    found, names = by_strategy(runs), strategy_table(runs)["strategy"]
    best_first = {name: found[name] for name in names}
    table = differences_to(names[0], best_first, rows, resamples=RESAMPLES)
    return table.rename_axis("strategy").reset_index()


def differences_to(
    baseline: str, systems: dict[str, list[Run]], rows: Impressions, *, resamples: int
) -> pd.DataFrame:
    """AUC of each other system minus the baseline's, with its 95% interval and p-values, by name.

    systems: the runs of each by name, the baseline's too; their AUC is the mean of their runs'.
    Columns: difference, low, high, p, p_holm. Users are resampled, each draw is the same for all
    runs. p is two-sided; p_holm is corrected for the number of other systems.
    """
    scores = {
        name: np.stack([run.predictions["probability"] for run in of_one])
        for name, of_one in systems.items()
    }
    return paired(baseline, scores, rows.user, rows.label, resamples=resamples)


def paired(
    baseline: str,
    systems: dict[str, np.ndarray],
    user: np.ndarray,
    label: np.ndarray,
    *,
    resamples: int,
) -> pd.DataFrame:
    """`differences_to` of any scores of rows, by system: those of its runs, [runs, n]."""
    samples = bootstrap_auc(user, label, np.concatenate([*systems.values()]), resamples=resamples)
    names = np.repeat(list(systems), [len(scores) for scores in systems.values()])
    means = {
        name: np.mean([auc(label, score) for score in scores]) for name, scores in systems.items()
    }
    found = {}
    for name in [name for name in systems if name != baseline]:
        draws = samples[:, names == name].mean(axis=1) - samples[:, names == baseline].mean(axis=1)
        found[name] = (means[name] - means[baseline], *interval(draws), p_value(draws))
    columns = ["difference", "low", "high", "p"]
    table = pd.DataFrame.from_dict(found, orient="index", columns=columns)
    return table.assign(p_holm=holm(table["p"].to_numpy(np.float64)))


def by_strategy(runs: list[Run]) -> dict[str, list[Run]]:
    """Runs by their strategy, each in the order given."""
    names = dict.fromkeys(run.strategy for run in runs)
    return {name: [run for run in runs if run.strategy == name] for name in names}


def mean_auc(runs: list[Run]) -> float:
    """The mean valid AUC of some runs."""
    return float(np.mean([run.summary["metrics"]["auc"] for run in runs]))


def p_value(draws: np.ndarray) -> float:
    """Two-sided p-value of bootstrap draws of a difference [resamples] against zero.

    Twice the share of draws on the rarer side of zero, counting one more draw than were made, so
    that it is never 0 (Davison and Hinkley, 1997, section 4.2).
    """
    draws = draws[~np.isnan(draws)]
    rarer = min((draws <= 0).sum(), (draws >= 0).sum())
    return float(min(1.0, 2 * (1 + rarer) / (1 + len(draws))))


def holm(p: np.ndarray) -> np.ndarray:
    """P-values [tests] corrected for their number (Holm, 1979), in the order given."""
    order = np.argsort(p)
    corrected = np.empty(len(p))
    factors = len(p) - np.arange(len(p))
    corrected[order] = np.minimum(1, np.maximum.accumulate(factors * p[order]))
    return corrected


def verdict(
    means: pd.DataFrame,
    differences: pd.DataFrame,
    dataset: Dataset,
    references: dict[str, float] | None = None,
) -> str:
    """The answer in words: which strategy is best, by how much, is it significant, at what cost.

    Tables as of strategy_table and paired_differences; references: AUC of other rankings by name.
    """
    best, cheapest = means.iloc[0], means.loc[means[TIMES].sum(axis=1).idxmin()]
    name = best["strategy"]
    kind = "simulated, so this says nothing about real clicks" if dataset.simulated else "real"
    seeds = f"the mean of {best['seeds']} seeds" if best["seeds"] > 1 else "with one seed"
    words = (
        f"On {dataset.name} ({kind}) {name} has the highest valid AUC, {best['AUC']:.4f}, {seeds}"
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
    words += f" A run of {name} takes {best[TIMES].sum():,.1f} s of fusion and training"
    if cheapest["strategy"] != name:
        words += f", one of {cheapest['strategy']}, the quickest, {cheapest[TIMES].sum():,.1f} s"
    return words + "."


def _leads(differences: pd.DataFrame) -> str:
    """The lead of the best over each of the others, in words."""
    leads = [
        f"{line.strategy} (by {-line.difference:z.4f}, 95% interval {-line.high:z.4f} to "
        f"{-line.low:z.4f}, corrected p = {line.p_holm:.3f})"
        for line in differences.itertuples()
    ]
    return listed(leads)


def setting(runs: list[Run], dataset: Dataset) -> str:
    """What was compared, in words: data, split, seeds, and whether all runs were trained alike."""
    rows, words = dataset.valid, dataset.wording
    seeds = sorted({run.seed for run in runs})
    given = [run.config["model"] | run.config["training"] | {"seed": None} for run in runs]
    names = set().union(*given)
    differing = sorted(name for name in names if len({str(one.get(name)) for one in given}) > 1)
    alike = (
        f"Beware: the runs also differ in {listed(differing)}."
        if differing
        else "All runs share every parameter but strategy and seed."
    )
    return (
        f"Scored on the valid split of {dataset.name}: {len(rows):,} {words.rows} of "
        f"{len(np.unique(rows.user)):,} users and {dataset.catalog.n_items:,} items; trained on "
        f"{len(dataset.train):,} {words.rows} with seed{'s' if len(seeds) > 1 else ''} "
        f"{listed(list(map(str, seeds)))}, up to {given[0]['epochs']} "
        f"epoch{'s' if given[0]['epochs'] > 1 else ''}. {alike}"
    )


def listed(words: list[str]) -> str:
    """Words as an enumeration: "a, b and c"."""
    return " and ".join([", ".join(words[:-1]), words[-1]]) if len(words) > 1 else "".join(words)
