"""What each part of the default is worth: the model trained with one thing changed at a time."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from tqdm.auto import tqdm

from mmctr.content.fusion import available_strategies
from mmctr.content.strategies import IDS, STRATEGIES
from mmctr.data.dataset import Dataset
from mmctr.data.impressions import Impressions
from mmctr.data.wording import kind_of
from mmctr.errors import ConfigError
from mmctr.evaluation.compare import LEVEL, differences_to, mean_auc
from mmctr.evaluation.verdict import Verdict
from mmctr.runs.run import Run, readable_runs
from mmctr.runs.train import train
from mmctr.training.config import configs

DEFAULT, STRATEGY = "default", "v4"
SHOWN = 4  # changes that a card names
RESAMPLES = 2000  # of the users: 2 / 2001, the smallest p-value, stays small for thirty changes
SHARED = ("epochs", "max_history", "rows")  # parameters of a report that its studies take over
FIELDS = {"item_fields": "item", "user_fields": "user", "context": "context"}  # whose they are
# Each switch, in the words of a figure, and its two settings.
SWITCHES = {
    "item fields": ("item_fields", False, True),
    "user fields": ("user_fields", False, True),
    "context": ("context", False, True),
    "recency": ("recency", False, True),
    "bilinear interaction": ("bilinear", "off", "all"),
    "SENet": ("senet", False, True),
    "cross network": ("cross_layers", 0, 1),
    "quadratic network": ("quadratic_layers", 0, 4),
    "cross-attention": ("cross_attention", 0, 4),
    "pairwise loss": ("pairwise", 0.0, 0.2),
    "similarity to the history": ("similarity", False, True),
    "semantic ids": ("semantic_ids", False, True),
    "levels in history": ("levels_in_history", False, True),
    "weight averaging": ("averaging", 0.0, 0.97),
    "fresh negatives": ("fresh_negatives", False, True),
    "identity dropout": ("identity_dropout", 0.0, 0.2),
}


def variations(dataset: Dataset) -> dict[str, dict[str, Any]]:
    """What is changed, by name: parameters of `configs`, and the strategy.

    Every switch is flipped once: "without" what the default has, "with" what it has not.
    """
    model, training = configs()
    default = model.model_dump() | training.model_dump()
    changes: dict[str, dict[str, Any]] = {DEFAULT: {}}
    owners = {field.owner for field in dataset.fields}
    nothing = {name for name, owner in FIELDS.items() if owner not in owners}
    nothing |= {"fresh_negatives"} if dataset.negative_sampling is None else set()
    for words, (name, off, on) in SWITCHES.items():
        if name in nothing:
            continue  # it would change nothing
        is_off = default[name] == off
        changes[f"{'with' if is_off else 'without'} {words}"] = {name: on if is_off else off}
    heads = {f"{n} head{'s' if n > 1 else ''}": {"heads": n} for n in (1, 2, 4, 8)}
    changes |= {name: change for name, change in heads.items() if change["heads"] != model.heads}
    changes["MLP attention, 1 head"] = {"attention": "mlp", "heads": 1}
    changes["ReLU attention, 1 head"] = {"attention": "relu", "heads": 1}
    # Products of fields cannot take those that are wider than the others.
    unequal = {"bilinear": "off", "senet": False}
    encoder = {"attention": "transformer", "heads": 1, "attention_hidden": (256,)}
    changes["Transformer encoder, no products"] = encoder | unequal
    changes["DNN after cross network"] = {"joined_hidden": (64, 32)}
    changes["content finetuned"] = {"content": "finetuned"}
    changes["content frozen, no products"] = {"content": "frozen"} | unequal
    available = [name for name in available_strategies(dataset.catalog) if name in STRATEGIES]
    for strategy in [*available, IDS]:
        if strategy != STRATEGY:
            changes[f"strategy {strategy}"] = {"strategy": strategy}
    return changes | {f"preset {name}": {"preset": name} for name in ("paper", "din")}


def ablate(
    dataset: Dataset,
    seeds: list[int],
    folder: Path,
    names: list[str] | None = None,
    **parameters: Any,
) -> dict[str, list[Run]]:
    """Train every variation, or those named and the default, with every seed below `folder`.

    parameters: of all of them. Runs that are there already are taken as they are, so that an
    ablation that broke off goes on. Raises ConfigError for an unknown variation.
    """
    changes = variations(dataset)
    if unknown := [name for name in names or [] if name not in changes]:
        raise ConfigError(
            f"Variation {unknown[0]!r} is unknown: choose of {', '.join(map(repr, changes))}."
        )
    chosen = [name for name in changes if name == DEFAULT or not names or name in names]
    return trained(dataset, {name: changes[name] for name in chosen}, seeds, folder, **parameters)


def trained(
    dataset: Dataset,
    changes: dict[str, dict[str, Any]],
    seeds: list[int],
    folder: Path,
    **parameters: Any,
) -> dict[str, list[Run]]:
    """The runs of some changes, by their names, with every seed below `folder`.

    changes: parameters of `configs`, and the strategy. parameters: of all of them. Runs that are
    there already are taken as they are.
    """
    there = {
        _key(run.strategy, run.config["model"], run.config["training"]): run
        for run in readable_runs(sorted(folder.glob("*")))
        if run.summary["dataset"]["fingerprint"] == dataset.fingerprint
    }
    found: dict[str, list[Run]] = {name: [] for name in changes}
    for name, seed in tqdm([(name, seed) for seed in seeds for name in changes], unit="run"):
        change = dict(changes[name])
        strategy = change.pop("strategy", STRATEGY)
        model, training = configs(**parameters | change | {"seed": seed})
        key = _key(strategy, model.model_dump(mode="json"), training.model_dump(mode="json"))
        found[name].append(there.get(key) or train(dataset, strategy, model, training, folder))
    return found


def ablation_table(found: dict[str, list[Run]], rows: Impressions) -> pd.DataFrame:
    """A line a variation in the order given, means over seeds, differences to the default.

    Columns: variation, AUC, parameters, seconds (of training), and those of differences_to but for
    p, which are NaN for the default.
    """
    lines = [
        {
            "variation": name,
            "AUC": mean_auc(runs),
            "parameters": runs[0].summary["parameters"],
            "seconds": np.mean([run.summary["seconds"]["training"] for run in runs]),
        }
        for name, runs in found.items()
    ]
    differences = differences_to(DEFAULT, found, rows, resamples=RESAMPLES)
    table = pd.DataFrame(lines).join(differences, on="variation")
    shown = ["variation", "AUC", "difference", "low", "high", "parameters", "seconds", "p_holm"]
    return table[shown]


def ablation_verdict(table: pd.DataFrame, dataset: Dataset) -> Verdict:
    """What matters, as a card; the table is that of ablation_table."""
    kind = kind_of(dataset.simulated)
    changed = table.iloc[1:]
    clear = changed["p_holm"] < LEVEL
    ordered = changed[clear].sort_values("difference", key=abs, ascending=False)
    better, worse = (
        [f"{line.variation} ({line.difference:+.4f})" for line in part.itertuples()]
        for part in (ordered[ordered["difference"] > 0], ordered[ordered["difference"] < 0])
    )
    facts = [("default", f"valid AUC {table['AUC'].iloc[0]:.4f}")]
    for name, lines in (("better", better), ("worse", worse)):
        more = f" and {len(lines) - SHOWN} more" if len(lines) > SHOWN else ""
        facts.append((name, f"{', '.join(lines[:SHOWN])}{more}" or "none by more than chance"))
    facts += [
        ("not shown to differ", f"{(~clear).sum()} of {len(changed)} changes"),
        ("data", f"{dataset.name} ({kind})"),
    ]
    headline = "No change is shown to be better than the default"
    if better:
        headline = f"Better than the default: {better[0]}"
    details = f"Worse by more than chance: {', '.join(worse)}." if len(worse) > SHOWN else ""
    return Verdict(headline, bool(better), facts, details)


def _key(strategy: str, model: dict[str, Any], training: dict[str, Any]) -> str:
    return repr((strategy, sorted(model.items()), sorted(training.items())))
