"""The challenge's systems side by side: the same rows, item embedding and history for all."""

import time
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from mmctr.content.fusion import available_strategies, item_embeddings
from mmctr.content.strategies import IDS
from mmctr.data.dataset import Dataset
from mmctr.data.impressions import Impressions
from mmctr.data.part import part_of_train
from mmctr.data.wording import kind_of
from mmctr.devices import find_device
from mmctr.errors import ConfigError
from mmctr.evaluation.ablation import DEFAULT, STRATEGY, trained
from mmctr.evaluation.compare import LEVEL, listed, paired
from mmctr.evaluation.new_items import newness
from mmctr.evaluation.verdict import Verdict
from mmctr.model.din import DIN
from mmctr.runs.run import Run
from mmctr.training.batches import Batches
from mmctr.training.config import configs
from mmctr.training.metrics import auc, evaluate
from mmctr.training.optimizer import make_optimizer
from mmctr.training.prediction import predict
from mmctr.training.trainer import update

LARGE = ("momo", "qin", "mmctrers")
SMALL = tuple(f"{name}-small" for name in LARGE)  # a quarter of the widths
ASKED_FOR = ("momo-inverted", "momo-inverted-small")  # singly: as the code of momo has its mask
SYSTEMS = (DEFAULT, "paper", "din", "vq", *LARGE, *SMALL, *ASKED_FOR)  # presets
CODES = {"vq": "v6"}  # the strategy of systems that read codes
RESAMPLES = 2000  # of the users
STEPS, ROWS = 2, 512  # of training that are timed of each system, after one step that is not
COLUMNS = ["system", "valid AUC", "test AUC", "parameters", "source"]
PUBLISHED = pd.DataFrame(
    [
        ("din", 0.8655, None, None, "the official baseline's README"),
        ("paper", 0.9306, None, None, "arXiv 2504.18961, strategy V4"),
        ("qin", 0.9701, 0.9798, 31.2e6, "arXiv 2504.17699 and its log"),
        ("momo", 0.9766, 0.9839, None, "arXiv 2505.03543"),
        ("vq", 0.9844, None, None, "its log, semantic ids instead of the dense vector"),
        ("a later entry", 0.9850, 0.9883, None, "the leaderboard, a DIN with levels in histories"),
        ("mmctrers", 0.9862, None, None, "its log"),
    ],
    columns=COLUMNS,
)
NOT_COMPARABLE = (
    "These were measured on MicroLens_1M_x1, each with item features, a seed and search trials of "
    "its own, and those of valid on the rows that chose when to stop: beside the other table they "
    "say what was published, not which system is better."
)


def default_strategy(dataset: Dataset) -> str:
    """The item embedding of all systems where none is asked for: v4 or what else there is."""
    return next(
        (s for s in (STRATEGY, "v1", "v2") if s in available_strategies(dataset.catalog)), IDS
    )


def compete(
    dataset: Dataset,
    seeds: list[int],
    folder: Path,
    strategy: str,
    names: list[str] | None = None,
    **parameters: Any,
) -> dict[str, list[Run]]:
    """Train the default and the other systems, or those named, with every seed below `folder`.

    strategy: of all but those that read codes, which are made of the same features. parameters: of
    all of them, beyond what their presets say. Runs that are there already are taken as they are.
    Raises ConfigError for an unknown system.
    """
    chosen = {
        name: {"preset": name, "strategy": CODES.get(name, strategy)} for name in systems(names)
    }
    return trained(dataset, chosen, seeds, folder, **parameters)


def systems(names: list[str] | None = None) -> list[str]:
    """The default and the systems named; if none is, all whose size suits this machine.

    Those are as published with a GPU and small without. Raises ConfigError for an unknown one.
    """
    if unknown := [name for name in names or [] if name not in SYSTEMS]:
        raise ConfigError(f"System {unknown[0]!r} is unknown: choose of {', '.join(SYSTEMS)}.")
    unsuited = SMALL if find_device("auto").type == "cuda" else LARGE
    wanted = names or [name for name in SYSTEMS if name not in (*unsuited, *ASKED_FOR)]
    return [name for name in SYSTEMS if name == DEFAULT or name in wanted]


def estimate(
    dataset: Dataset,
    strategy: str,
    names: list[str] | None = None,
    **parameters: Any,
) -> pd.DataFrame:
    """How long a training takes here at most, from a few steps of each: system, seconds.

    For all epochs; most trainings are stopped earlier.
    """
    dense = None if strategy == IDS else item_embeddings(dataset, strategy)
    codes = np.random.default_rng(0).integers(256, size=(dataset.catalog.n_items + 1, 3))
    lines = []
    for name in systems(names):
        config, training = configs(name, **parameters)
        embedding = codes.astype(np.int32) if name in CODES else dense
        model = DIN.for_dataset(config, dataset, embedding).to(find_device(training.device))
        batches = Batches(part_of_train(dataset, training.rows).train, model)
        optimizer = make_optimizer(model.train(), training)
        size = min(training.batch_size, ROWS, len(batches))
        random = np.random.default_rng(0)
        for step in range(STEPS + 1):
            if step == 1:
                started = _now(model)
            index = torch.from_numpy(random.permutation(len(batches))[:size]).to(model.device)
            update(model, optimizer, batches.of(index), training)
        of_row = (_now(model) - started) / (STEPS * size)
        # Prediction is about a third of a training step.
        rows = len(batches) + training.validations * len(dataset.valid) / 3
        lines.append((name, training.epochs * rows * of_row))
    return pd.DataFrame(lines, columns=["system", "seconds"])


def estimate_in_words(table: pd.DataFrame, seeds: int) -> str:
    """How long all trainings take at most, in a sentence; the table is that of estimate."""
    each = [f"{line.system} {_duration(line.seconds)}" for line in table.itertuples()]
    total = _duration(seeds * table["seconds"].sum())
    return (
        f"Training takes up to {total} on this machine, for all epochs of {seeds * len(table)} "
        f"runs (a seed of each: {listed(each)}); most stop earlier, and runs that are there are "
        "taken as they are."
    )


def judged(dataset: Dataset) -> tuple[str, Impressions]:
    """The split that systems are compared on: test where its labels are known, else valid."""
    test = dataset.splits.get("test")
    known = test is not None and test.label is not None and len(np.unique(test.label)) == 2
    return ("test", test) if known else ("valid", dataset.valid)


def scores_of(found: dict[str, list[Run]], split: str, rows: Impressions) -> dict[str, np.ndarray]:
    """The probabilities of each system's runs, float32 [runs, n], of the rows of a split."""
    return {
        name: np.stack(
            [
                run.predictions["probability"].to_numpy()
                if split == "valid"
                else predict(run.model(), rows, precision=run.config["training"]["precision"])
                for run in runs
            ]
        )
        for name, runs in found.items()
    }


def challenge_table(
    found: dict[str, list[Run]],
    scores: dict[str, np.ndarray],
    rows: Impressions,
    train_clicks: np.ndarray,
) -> pd.DataFrame:
    """A line a system, means over its runs; NaN where a group has not both labels.

    train_clicks: int [n_items + 1], by which targets are new, cold or warm; the AUC of each is
    within its group. Columns: system, AUC, GAUC, logloss, new, cold, warm, calibration error,
    parameters, samples/s, seconds to its best, and those of differences to the default: difference,
    low, high, p_holm.
    """
    group = newness(train_clicks[rows.target])
    lines = []
    for name, runs in found.items():
        metrics = pd.DataFrame([evaluate(rows, score) for score in scores[name]]).mean()
        within = {
            kind: np.mean([auc(rows.label[own], score[own]) for score in scores[name]])
            for kind, own in ((kind, group == kind) for kind in group.cat.categories)
        }
        lines.append(
            {
                "system": name,
                "AUC": metrics["auc"],
                "GAUC": metrics["gauc"],
                "logloss": metrics["logloss"],
                **within,
                "calibration error": metrics["calibration_error"],
                "parameters": runs[0].summary["parameters"],
                "samples/s": np.mean([run.summary["cost"]["samples_per_s"] for run in runs]),
                "seconds to its best": np.mean([seconds_to_best(run) for run in runs]),
            }
        )
    differences = paired(DEFAULT, scores, rows.user, rows.label, resamples=RESAMPLES)
    return pd.DataFrame(lines).join(differences.drop(columns="p"), on="system")


def seconds_to_best(run: Run) -> float:
    """Seconds of training until the validation whose weights were kept."""
    return float(run.history.loc[run.history["auc"].idxmax(), "seconds"])


def challenge_verdict(table: pd.DataFrame, dataset: Dataset, split: str) -> Verdict:
    """Which system is ahead, as a card; the table is that of challenge_table."""
    kind = kind_of(dataset.simulated)
    best, own, others = table.loc[table["AUC"].idxmax()], table.iloc[0], table.iloc[1:]
    clear = others["p_holm"] < LEVEL
    ahead, behind, close = (
        [f"{line.system} ({-line.difference:+z.4f})" for line in part.itertuples()]
        for part in (
            others[clear & (others["difference"] < 0)],
            others[clear & (others["difference"] > 0)],
            others[~clear],
        )
    )
    facts = [("highest AUC", f"{best['system']}, {best['AUC']:.4f}")]
    facts += [("default", f"AUC {own['AUC']:.4f}")] * (best["system"] != own["system"])
    for name, systems in (
        ("ahead of", ahead),
        ("behind", behind),
        ("could be chance", close),
    ):
        facts += [(name, listed(systems))] if systems else []
    facts += [
        ("cost", f"{best['system']} is at its best after {best['seconds to its best']:,.0f} s"),
        ("data", f"{split} of {dataset.name} ({kind})"),
    ]
    if others.empty:
        headline = "Only the default was trained"
    elif behind:
        headline = f"The default is behind {behind[0]}"
    elif close:
        headline = f"The default is not shown to differ from {close[0]}"
    else:
        headline = "The default is ahead of every other system"
    return Verdict(headline, bool(behind) or not close, facts, "")


def _now(model: DIN) -> float:
    if model.device.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter()


def _duration(seconds: float) -> str:
    for unit, length in (("hours", 3600), ("minutes", 60)):
        if seconds >= 2 * length:
            return f"{seconds / length:.0f} {unit}"
    return f"{seconds:.0f} seconds"
