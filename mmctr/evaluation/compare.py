"""Runs side by side: tables over strategies and seeds, and paired differences.

Runs that differ in nothing but their seed are one system. It is called by its strategy, and by what
else it has that not all runs beside it have: `v4` and `v4 heads=2`.
"""

import json

import numpy as np
import pandas as pd
from pandas.io.formats.style import Styler

from mmctr.config import as_pairs
from mmctr.data.dataset import Dataset
from mmctr.data.impressions import Impressions
from mmctr.runs.run import Run
from mmctr.training.metrics import auc, bootstrap_auc, interval

RESAMPLES = 1000  # of the users: the smallest p-value is 2 / 1001
TIMES = ["training (s)", "fusion (s)"]
LEVEL = 0.05  # a corrected p-value below it counts as more than chance
QUALITY = ["strategy", "seeds", "AUC", "seed spread", "logloss", "GAUC"]
DIFFERENCE = ["difference", "low", "high", "p", "p_holm"]
COST = ["strategy", *TIMES, "samples/s", "peak memory (MB)", "parameters", "embedding (MB)"]


def names_of(runs: list[Run]) -> list[str]:
    """What the system of each run is called beside the others, in the order given."""
    changed = [as_pairs(run.changes) for run in runs]
    shared = set.intersection(*map(set, changed)) if runs else set()
    named: dict[str, str] = {}
    for run, pairs in zip(runs, changed, strict=True):
        named.setdefault(
            _key(run), " ".join([run.strategy, *(p for p in pairs if p not in shared)])
        )
    alike = pd.Series(named)
    number = alike.groupby(alike).cumcount() + 1
    names = alike.where(number == 1, alike + " (" + number.astype(str) + ")")
    return [names[_key(run)] for run in runs]


def systems_of(runs: list[Run], by: str = "strategy") -> dict[str, list[Run]]:
    """Runs by the name of their system, each in the order given; by "run": each on its own."""
    names = [run.address for run in runs] if by == "run" else names_of(runs)
    found: dict[str, list[Run]] = {name: [] for name in names}
    for name, run in zip(names, runs, strict=True):
        found[name].append(run)
    return found


def run_table(runs: list[Run]) -> pd.DataFrame:
    """A line a run: run (its address), strategy (the name of its system), seed, auc, low, high (its
    95% interval), seconds (fusion, training), and what `strategy_table` takes means of."""
    lines = []
    for run, name in zip(runs, names_of(runs), strict=True):
        metrics, seconds = run.summary["metrics"], run.summary["seconds"]
        low, high = metrics["auc_interval"]
        cost = run.summary.get("cost", {})  # older runs have none
        width = run.config["sizes"]["content_width"] or 0
        lines.append(
            {
                "run": run.address,
                "strategy": name,
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


def strategy_table(runs: list[Run], by: str = "strategy") -> pd.DataFrame:
    """A line a system, means over its seeds, the best valid AUC first; NaN: not measured.

    by: as of systems_of, the name of the first column. The seed spread is the highest AUC of a
    system's seeds minus the lowest.
    """
    of_system = run_table(runs).rename(columns={"auc": "AUC"}).groupby(by)
    means = of_system.mean(numeric_only=True).astype({"parameters": int})
    means["seeds"] = of_system.size()
    spread = of_system["AUC"].max() - of_system["AUC"].min()
    means["seed spread"] = spread.where(means["seeds"] > 1)
    return means[[*QUALITY[1:], *COST[1:]]].sort_values("AUC", ascending=False).reset_index()


def styled(means: pd.DataFrame) -> Styler:
    """The strategy table, or columns of it, as a page shows it; a dash: not measured."""
    formats = dict.fromkeys(QUALITY[2:], "{:.4f}")
    formats |= dict.fromkeys([*TIMES, "embedding (MB)"], "{:,.1f}")
    formats |= dict.fromkeys(["samples/s", "peak memory (MB)", "parameters"], "{:,.0f}")
    formats = {name: text for name, text in formats.items() if name in means}
    return means.style.hide().format(formats, na_rep="–", escape="html")


def probabilities(runs: list[Run], by: str = "strategy") -> dict[str, np.ndarray]:
    """The predicted probabilities of each system's runs, float64 [runs, n]."""
    return {
        name: np.stack([run.predictions["probability"] for run in found]).astype(np.float64)
        for name, found in systems_of(runs, by).items()
    }


def paired_differences(
    runs: list[Run], rows: Impressions | pd.DataFrame, by: str = "strategy"
) -> pd.DataFrame:
    """`differences_to` the best system, a line for each of the others, named in the column `by`.

    rows: those of valid, or the predictions of one of the runs.
    """
    found, names = systems_of(runs, by), strategy_table(runs, by)[by]
    best_first = {name: found[name] for name in names}
    table = differences_to(names[0], best_first, rows, resamples=RESAMPLES)
    return table.rename_axis(by).reset_index()


def comparison(runs: list[Run], by: str = "strategy") -> pd.DataFrame:
    """`strategy_table` and `paired_differences` in one: a line a system, the best first.

    Columns: by, seeds, AUC, difference, low, high, p, p_holm (NaN for the best), parameters,
    more_parameters (than the best has).
    """
    means = strategy_table(runs, by)[[by, "seeds", "AUC", "parameters"]]
    table = means.merge(paired_differences(runs, runs[0].predictions, by), on=by, how="left")
    table["more_parameters"] = table["parameters"] - table["parameters"][0]
    return table[[by, "seeds", "AUC", *DIFFERENCE, "parameters", "more_parameters"]]


def differing(runs: list[Run], by: str = "strategy") -> pd.DataFrame:
    """What differs in the configurations of systems: a line a parameter, a column a system."""
    systems = systems_of(runs, by)
    table = pd.DataFrame(
        {
            name: dict(pair.split("=", 1) for pair in as_pairs(found[0].configuration))
            | ({"seed": str(found[0].seed)} if by == "run" else {})
            for name, found in systems.items()
        }
    ).fillna("none")
    return table[table.nunique(axis=1) > 1].rename_axis("parameter").reset_index()


def disagreements(
    runs: list[Run], dataset: Dataset, by: str = "strategy", count: int = 10
) -> pd.DataFrame:
    """The valid rows whose probabilities, averaged over seeds, differ most between systems.

    Columns: user, item (own ids), title, label, target (int), and one of each system; rows on which
    all agree are left out.
    """
    scores = {name: found.mean(axis=0) for name, found in probabilities(runs, by).items()}
    apart = np.ptp(np.stack([*scores.values()]), axis=0)
    rows = np.argsort(-apart, kind="stable")[:count]
    rows = rows[apart[rows] > 0]
    valid, target = dataset.valid, dataset.valid.target[rows]
    known = {
        "user": dataset.user_names(valid.user[rows]),
        "item": dataset.catalog.ids[target],
        "title": np.asarray(dataset.catalog.titles)[target],
        "label": valid.label[rows].astype(int),
        "target": target,
    }
    own = pd.DataFrame({name: score[rows] for name, score in scores.items()})
    return pd.concat([pd.DataFrame(known), own], axis=1)


def differences_to(
    baseline: str,
    systems: dict[str, list[Run]],
    rows: Impressions | pd.DataFrame,
    *,
    resamples: int,
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
    user, label = np.asarray(rows.user), np.asarray(rows.label)
    return paired(baseline, scores, user, label, resamples=resamples)


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


def _key(run: Run) -> str:
    """The same for runs that differ in nothing but their seed."""
    # Erroneous entries of the same kinds may be others, and so may the weights of a name.
    besides = run.config.get("excluded"), run.config.get("origin")
    return json.dumps([run.configuration, besides], sort_keys=True)


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


def first_looks(runs: list[Run]) -> list[str]:
    """How much of train runs learned from, where it was a part, in words; each once."""
    return list(dict.fromkeys(run.first_look for run in runs if run.first_look))


def setting(runs: list[Run], dataset: Dataset) -> str:
    """What was compared, in words: data, split, seeds, and whether all runs were trained alike."""
    rows, words = dataset.valid, dataset.wording
    seeds = sorted({run.seed for run in runs})
    differs = [name for name in differing(runs)["parameter"] if name != "strategy"]
    trained_on = listed(first_looks(runs)) or f"{len(dataset.train):,} {words.rows}"
    epochs = max(run.configuration["epochs"] for run in runs)
    alike = (
        f"Beware: the runs also differ in {listed(sorted(differs))}."
        if differs
        else "All runs share every parameter but strategy and seed."
    )
    return (
        f"Scored on the valid split of {dataset.name}: {len(rows):,} {words.rows} of "
        f"{len(np.unique(rows.user)):,} users and {dataset.catalog.n_items:,} items; trained on "
        f"{trained_on}, with seed{'s' if len(seeds) > 1 else ''} "
        f"{listed(list(map(str, seeds)))}, up to {epochs} epoch{'s' if epochs > 1 else ''}. {alike}"
    )


def listed(words: list[str]) -> str:
    """Words as an enumeration: "a, b and c"."""
    return " and ".join([", ".join(words[:-1]), words[-1]]) if len(words) > 1 else "".join(words)
