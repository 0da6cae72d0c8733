"""Quality on real clicks: mmctr beside FuxiCTR's DIN and simple systems, on the very same rows.

Usage: python -m benchmarks.quality DATASET --out FOLDER [--seeds 1,2,3] [--max-history 64]
[--systems "FuxiCTR DIN,mmctr default"] [--test]. DATASET is a folder that mmctr data import has
written. Every system and seed is kept in FOLDER as it is finished, so that a broken run goes on
with the next; of a system stopped between two epochs, what it had reached is shown as unfinished.
Only mmctr's default draws the train negatives of an imported log anew in later epochs; "mmctr
fixed negatives" learns from those in the file, as all others do. Everything is chosen on valid;
--test scores the test split too, for the final table.
"""

import argparse
import json
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from tqdm.auto import tqdm

from mmctr.content.fusion import item_embeddings
from mmctr.data.dataset import Dataset
from mmctr.data.impressions import Impressions
from mmctr.devices import tuned
from mmctr.errors import ConfigError, MMCTRError
from mmctr.evaluation.new_items import WARM, newness, unit_vectors
from mmctr.files import atomic_path, write_json
from mmctr.model.config import DINConfig
from mmctr.model.din import DIN
from mmctr.training.batches import Batches
from mmctr.training.config import TrainConfig, configs
from mmctr.training.metrics import auc, bootstrap_auc, evaluate, interval
from mmctr.training.optimizer import make_optimizer
from mmctr.training.prediction import predict
from mmctr.training.trainer import fit, update

if TYPE_CHECKING:
    from benchmarks.fuxictr_din import FuxiDIN

STRATEGY, RESAMPLES = "v4", 500
REFERENCE = "FuxiCTR DIN"
EPOCHS, PATIENCE = 30, 2  # of FuxiCTR, in epochs
SEARCHED = {"batch_size": 1024, "embedding_l2": 1e-4}


@dataclass(frozen=True)
class Task:
    """What every system gets: the same rows, item embedding and number of latest clicks."""

    dataset: Dataset
    item_embedding: np.ndarray
    max_history: int
    seed: int


@dataclass(frozen=True)
class Outcome:
    """Scores of valid and test, float32 [n], and valid AUC over the seconds of training."""

    valid: np.ndarray
    test: np.ndarray
    curve: list[tuple[float, float]]  # seconds so far (mmctr's with validation), AUC


System = Callable[[Task], Iterator[Outcome]]


def popularity(task: Task) -> Iterator[Outcome]:
    """Train clicks of the target."""
    clicks = task.dataset.train_clicks().astype(np.float32)
    yield _untimed(lambda rows: clicks[rows.target], task)


def logistic_regression(task: Task) -> Iterator[Outcome]:
    """Popularity, and cosine similarities of the target to the history, by text and by image."""
    catalog, clicks = task.dataset.catalog, task.dataset.train_clicks()
    media = [unit_vectors(x) for x in (catalog.text_features, catalog.image_features)]

    def features(rows: Impressions) -> np.ndarray:
        columns = [np.log1p(clicks[rows.target])]
        for vectors in media:
            found = np.zeros((len(rows), 3))
            for row, (start, end) in enumerate(
                zip(rows.history_start, rows.history_end, strict=True)
            ):
                items = rows.history_items[max(start, end - task.max_history) : end]
                if len(items):
                    cosine = vectors[items] @ vectors[rows.target[row]]
                    found[row] = cosine.mean(), cosine.max(), cosine[-1]
            columns.extend(found.T)
        return np.column_stack(columns)

    train = task.dataset.train
    model = make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000))
    model.fit(features(train), train.label)
    yield _untimed(lambda rows: model.predict_proba(features(rows))[:, 1], task)


def fuxictr(**settings: Any) -> System:
    """FuxiCTR's DIN, with the settings of the official baseline where none are given."""

    def run(task: Task) -> Iterator[Outcome]:
        from benchmarks import fuxictr_din as din

        original, _, config = _original(task, settings)
        padded = partial(
            din.PaddedBatches,
            catalog=task.dataset.catalog,
            item_embedding=task.item_embedding,
            max_len=task.max_history,
        )

        def epoch(seed: int) -> None:
            for part in padded(task.dataset.train).shuffled(config.batch_size, seed):
                original.train_step(part)

        def score(rows: Impressions) -> np.ndarray:
            return din.predict(original, padded(rows))

        yield from _until_flat(task, epoch, score, original)

    return run


def fuxictr_by_mmctr(**settings: Any) -> System:
    """That DIN from the same initial weights, on the same batches, computed by mmctr.

    For long histories, where an epoch of FuxiCTR takes a quarter of an hour.
    """

    def run(task: Task) -> Iterator[Outcome]:
        from benchmarks import fuxictr_din as din

        original, model_config, config = _original(task, settings)
        model = DIN.for_dataset(model_config, task.dataset, task.item_embedding)
        din.copy_weights(original, model)
        original.optimizer = make_optimizer(model, config)
        batches = Batches(task.dataset.train, model)

        def epoch(seed: int) -> None:
            for index in din.shuffled(len(batches), config.batch_size, seed):
                update(model, original.optimizer, batches.of(torch.from_numpy(index)), config)

        with tuned(model.device):
            yield from _until_flat(task, epoch, lambda rows: predict(model, rows), original)

    return run


def mmctr_model(*, content: bool = True, **parameters: Any) -> System:
    """mmctr with a preset or other parameters; without content it knows ids, tags and levels."""

    def run(task: Task) -> Iterator[Outcome]:
        model_config, config = configs(
            **{"max_history": task.max_history, "seed": task.seed} | parameters
        )
        torch.manual_seed(task.seed)
        embedding = task.item_embedding if content else None
        model = DIN.for_dataset(model_config, task.dataset, embedding)
        records = fit(model, task.dataset, config).records
        curve = [(record["seconds"], record["auc"]) for record in records]
        scores = (predict(model, rows) for rows in (task.dataset.valid, task.dataset.split("test")))
        yield Outcome(*scores, curve)

    return run


SYSTEMS: dict[str, System] = {
    "popularity": popularity,
    "logistic regression": logistic_regression,
    REFERENCE: fuxictr(),
    "FuxiCTR DIN searched": fuxictr(**SEARCHED),
    "FuxiCTR DIN by mmctr": fuxictr_by_mmctr(),
    "FuxiCTR DIN searched by mmctr": fuxictr_by_mmctr(**SEARCHED),
    "mmctr as that DIN": mmctr_model(preset="din", epochs=EPOCHS, validations=1, patience=PATIENCE),
    "mmctr paper": mmctr_model(preset="paper"),
    "mmctr fixed negatives": mmctr_model(fresh_negatives=False),
    "mmctr ids": mmctr_model(content=False),
    "mmctr default": mmctr_model(),
}
ONE_SEED = ("popularity", "logistic regression")


def measure(name: str, task: Task, folder: Path) -> None:
    """Run a system and keep its scores and learning curve, those reached so far too."""
    started = time.perf_counter()
    for outcome in SYSTEMS[name](task):
        _keep(outcome, name, task, folder, seconds=time.perf_counter() - started, finished=False)
    _keep(outcome, name, task, folder, seconds=time.perf_counter() - started, finished=True)


def summary(dataset: Dataset, folder: Path, seeds: list[int], split: str) -> pd.DataFrame:
    """A line a system that has been measured: means over seeds, and the AUC's lead over FuxiCTR.

    The lead's 95% interval resamples users; the draws are the same for all systems and seeds. cold:
    AUC among the targets with fewer than 5 train clicks.
    """
    rows = dataset.split(split)
    names, scores, curves, unfinished = [], [], {}, set()
    for name, seed in ((name, seed) for name in SYSTEMS for seed in seeds):
        if facts := _facts(folder, name, seed):
            names.append(name)
            scores.append(np.load(_file(folder, name, seed, f".{split}.npy")))
            curves.setdefault(name, []).append(facts["curve"])
            unfinished |= set() if facts["finished"] else {name}
    names = np.array(names)
    draws = bootstrap_auc(rows.user, rows.label, np.stack(scores), resamples=RESAMPLES)
    # Clicks are no probabilities: they have an order, and no logloss.
    metrics = pd.DataFrame([evaluate(rows, score / max(1, score.max())) for score in scores])
    cold = np.asarray(newness(dataset.train_clicks()[rows.target]) != WARM)
    metrics["cold"] = [auc(rows.label[cold], score[cold]) for score in scores]
    mean, lines = metrics.groupby(names).mean(), []
    for name in dict.fromkeys(names):
        shown = f"{name} (unfinished)" if name in unfinished else name
        line = {"system": shown, "seeds": int((names == name).sum())}
        line |= {"AUC": mean["auc"][name], "GAUC": mean["gauc"][name], "cold": mean["cold"][name]}
        line["logloss"] = np.nan if name == "popularity" else mean["logloss"][name]
        if REFERENCE in curves:
            lead = draws[:, names == name].mean(1) - draws[:, names == REFERENCE].mean(1)
            line["lead"] = mean["auc"][name] - mean["auc"][REFERENCE]
            line["from"], line["to"] = interval(lead)
            target = np.mean([best(curve)[1] for curve in curves[REFERENCE]])
            line["s to FuxiCTR's best"] = _mean_time(curves[name], target)
        line["s to best"] = np.mean([best(curve)[0] if curve else np.nan for curve in curves[name]])
        lines.append(line)
    return pd.DataFrame(lines)


def best(curve: list[tuple[float, float]]) -> tuple[float, float]:
    """The point of the highest AUC of a learning curve."""
    return max(curve, key=lambda point: point[1])


def main() -> None:
    """Run the benchmark from the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("dataset", type=Path, help="folder that mmctr data import has written")
    parser.add_argument("--out", type=Path, required=True, help="folder that keeps the results")
    parser.add_argument("--seeds", default="1,2,3", help="by comma")
    parser.add_argument("--max-history", type=int, default=64, help="latest clicks that are read")
    parser.add_argument("--systems", default=",".join(SYSTEMS), help="by comma")
    parser.add_argument("--test", action="store_true", help="score the test split, at the very end")
    arguments = parser.parse_args()
    seeds = [int(seed) for seed in arguments.seeds.split(",")]
    try:
        dataset = Dataset.load(arguments.dataset)
        embedding = item_embeddings(dataset, STRATEGY)
        arguments.out.mkdir(parents=True, exist_ok=True)
        systems = arguments.systems.split(",")
        if unknown := [name for name in systems if name not in SYSTEMS]:
            raise ConfigError(
                f"System {unknown[0]!r} is unknown: choose of {', '.join(map(repr, SYSTEMS))}."
            )
        for name in systems:
            for seed in seeds[:1] if name in ONE_SEED else seeds:
                if not _facts(arguments.out, name, seed).get("finished"):
                    task = Task(dataset, embedding, arguments.max_history, seed)
                    measure(name, task, arguments.out)
        table = summary(dataset, arguments.out, seeds, "test" if arguments.test else "valid")
    except MMCTRError as error:
        sys.exit(str(error))
    print(table.to_string(index=False, float_format="{:.4f}".format, na_rep="-"))


def _until_flat(
    task: Task,
    epoch: Callable[[int], None],
    score: Callable[[Impressions], np.ndarray],
    model: "FuxiDIN",
) -> Iterator[Outcome]:
    """Train as FuxiCTR does, until valid AUC stops rising; the best so far after each epoch.

    epoch: trains on all rows in the order of a seed; model: decays the learning rate.
    """
    valid, best, since_best, spent, curve = task.dataset.valid, (-1.0, None, None), 0, 0.0, []
    bar = tqdm(range(EPOCHS), unit="epoch", desc="FuxiCTR's DIN")
    for number in bar:
        started = time.perf_counter()
        epoch(1000 * task.seed + number)
        spent += time.perf_counter() - started
        found = score(valid)
        curve.append((spent, auc(valid.label, found)))
        bar.set_postfix(valid_auc=f"{curve[-1][1]:.4f}")
        if curve[-1][1] > best[0]:
            best, since_best = (curve[-1][1], found, score(task.dataset.split("test"))), 0
        else:
            since_best += 1
            model.lr_decay()  # as FuxiCTR's own training does at a plateau
        yield Outcome(best[1], best[2], curve)
        if since_best == PATIENCE:
            break


def _original(task: Task, settings: dict[str, Any]) -> tuple["FuxiDIN", DINConfig, TrainConfig]:
    """FuxiCTR's DIN with its first weights, and what it is made and trained with."""
    from benchmarks.fuxictr_din import build

    torch.manual_seed(task.seed)
    config, training = configs("din", **{"max_history": task.max_history} | settings)
    width = task.item_embedding.shape[1]
    return build(task.dataset.catalog, width, config, training), config, training


def _keep(outcome: Outcome, name: str, task: Task, folder: Path, **facts: Any) -> None:
    scores = {"valid": outcome.valid, "test": outcome.test}
    for split, score in scores.items():
        path = _file(folder, name, task.seed, f".{split}.npy")
        with atomic_path(path) as temporary, temporary.open("wb") as file:
            np.save(file, score.astype(np.float32))
    facts = {"curve": outcome.curve, "threads": torch.get_num_threads()} | facts
    write_json(_file(folder, name, task.seed, ".json"), facts)


def _facts(folder: Path, name: str, seed: int) -> dict[str, Any]:
    path = _file(folder, name, seed, ".json")
    return json.loads(path.read_text()) if path.exists() else {}


def _untimed(score: Callable[[Impressions], np.ndarray], task: Task) -> Outcome:
    return Outcome(score(task.dataset.valid), score(task.dataset.split("test")), [])


def _file(folder: Path, name: str, seed: int, suffix: str) -> Path:
    return folder / f"{name.replace(' ', '-')}-seed{seed}{suffix}"


def _mean_time(curves: list[list[tuple[float, float]]], target: float) -> float:
    """Mean seconds until an AUC is reached; NaN if some curve never does."""
    times = [next((spent for spent, score in curve if score >= target), np.nan) for curve in curves]
    return float(np.mean(times))


if __name__ == "__main__":
    main()
