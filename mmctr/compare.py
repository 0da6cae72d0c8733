"""Runs side by side: tables over strategies and seeds, paired differences, the answer in words."""

import numpy as np
import pandas as pd
from pandas.io.formats.style import Styler

from mmctr.data.dataset import Dataset, Impressions
from mmctr.training.checkpoint import Run
from mmctr.training.metrics import bootstrap_auc, interval


def run_table(runs: list[Run]) -> pd.DataFrame:
    """A line a run: strategy, seed, auc, low, high (95% interval), seconds (fusion, training)."""
    lines = []
    for run in runs:
        metrics, seconds = run.summary["metrics"], run.summary["seconds"]
        spent = seconds["fusion"] + seconds["training"]
        lines.append((run.strategy, run.seed, metrics["auc"], *metrics["auc_interval"], spent))
    return pd.DataFrame(lines, columns=["strategy", "seed", "auc", "low", "high", "seconds"])


def strategy_table(runs: list[Run]) -> pd.DataFrame:
    """A line a strategy, means over its seeds, the best valid AUC first; NaN: not measured."""
    lines = []
    for run in runs:
        metrics, seconds = run.summary["metrics"], run.summary["seconds"]
        cost = run.summary.get("cost", {})  # older runs have none
        width = run.config["sizes"]["content_width"] or 0
        lines.append(
            {
                "strategy": run.strategy,
                "AUC": metrics["auc"],
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
    table = pd.DataFrame(lines)
    seeds = table.groupby("strategy").size().rename("seeds")
    means = table.groupby("strategy").mean().astype({"parameters": int})
    means.insert(0, "seeds", seeds)
    return means.sort_values("AUC", ascending=False).reset_index()


def styled(means: pd.DataFrame) -> Styler:
    """The strategy table as a page shows it; a dash where no run has measured the cost."""
    formats = dict.fromkeys(["AUC", "logloss", "GAUC"], "{:.4f}")
    formats |= dict.fromkeys(["training (s)", "fusion (s)", "embedding (MB)"], "{:,.1f}")
    formats |= dict.fromkeys(["samples/s", "peak memory (MB)", "parameters"], "{:,.0f}")
    # Titles may take two lines, or else the columns are wider than a page.
    titles = [{"selector": "th", "props": "white-space: normal"}]
    return means.style.hide().format(formats, na_rep="–").set_table_styles(titles)


def mean_probabilities(runs: list[Run]) -> dict[str, np.ndarray]:
    """The predicted probabilities of each strategy, averaged over its seeds, float64 [n]."""
    by_strategy: dict[str, list[np.ndarray]] = {}
    for run in runs:
        probability = run.predictions["probability"].to_numpy(np.float64)
        by_strategy.setdefault(run.strategy, []).append(probability)
    return {strategy: np.mean(parts, axis=0) for strategy, parts in by_strategy.items()}


def paired_differences(runs: list[Run], rows: Impressions) -> pd.DataFrame:
    """AUC of each strategy minus that of the best, with its 95% interval.

    Columns: strategy, difference, low, high; the best is left out. Users are resampled, each
    draw is the same for all runs, and a strategy's AUC is the mean of its seeds'.
    """
    scores = np.stack([run.predictions["probability"].to_numpy() for run in runs])
    samples = bootstrap_auc(rows.user, rows.label, scores)
    names = np.array([run.strategy for run in runs])
    auc = strategy_table(runs).set_index("strategy")["AUC"]
    of_strategy = {name: samples[:, names == name].mean(axis=1) for name in auc.index}
    best, *others = auc.index
    lines = [
        (name, auc[name] - auc[best], *interval(of_strategy[name] - of_strategy[best]))
        for name in others
    ]
    return pd.DataFrame(lines, columns=["strategy", "difference", "low", "high"])


def verdict(means: pd.DataFrame, differences: pd.DataFrame, dataset: Dataset) -> str:
    """The answer in words: which strategy is best, by how much, is it significant, on what."""
    best = means.iloc[0]
    kind = "simulated, so this says nothing about real clicks" if dataset.simulated else "real"
    answer = (
        f"On {dataset.name} ({kind}) {best['strategy']} has the highest valid AUC, "
        f"{best['AUC']:.4f} as a mean over {best['seeds']} seed{'s' if best['seeds'] > 1 else ''}."
    )
    for line in differences.itertuples():
        apart = "more than chance" if line.high < 0 else "which could be chance"
        answer += (
            f" {line.strategy} is {-line.difference:z.4f} lower "
            f"(95% interval {-line.high:z.4f} to {-line.low:z.4f}), {apart}."
        )
    return answer
