"""Train a DIN on a dataset: Adam, early stopping on valid AUC, everything kept in a run folder."""

import time
from collections import defaultdict
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from pydantic import Field, NonNegativeFloat, PositiveFloat, PositiveInt
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim.lr_scheduler import ReduceLROnPlateau
from tqdm.auto import tqdm

from mmctr.config import Config
from mmctr.content.strategies import embedding_hash, item_embeddings
from mmctr.data.dataset import Dataset, Impressions
from mmctr.data.importing.negatives import FreshNegatives
from mmctr.devices import autocast, find_device, peak_memory_mb, tuned
from mmctr.errors import ConfigError, DataError, RunError, first_line
from mmctr.model.din import DIN, Batch, DINConfig
from mmctr.runs.run import Run, State, UnfinishedRun, save_run
from mmctr.training import parallel
from mmctr.training.batches import Batches
from mmctr.training.metrics import auc, bootstrap_auc, evaluate, interval, logloss
from mmctr.training.optimizer import Adam, WeightAverage
from mmctr.training.prediction import predict

AVERAGE_EVERY = 4  # steps
# Parameters that differ from the default: "paper" has all modules of arXiv 2504.18961 and none of
# ours, "din" is the challenge's official baseline.
PRESETS: dict[str, dict[str, object]] = {
    "default": {},
    "paper": {
        "senet": True,
        "cross_layers": 2,
        "recency": False,
        "averaging": 0.0,
        "fresh_negatives": False,
    },
    "din": {
        "embedding_dim": 64,
        "content_dim": 128,
        "attention": "mlp",
        "heads": 1,
        "attention_hidden": (512, 256),
        "attention_dropout": 0.1,
        "levels_in_history": False,
        "senet": False,
        "bilinear": "off",
        "cross_layers": 0,
        "hidden": (1024, 512, 256),
        "dropout": 0.1,
        "learning_rate": 1e-3,
        "batch_size": 8192,
        "embedding_l2": 1e-6,
        "averaging": 0.0,
        "fresh_negatives": False,
    },
}
RESUMED = ("epoch", "step", "samples", "records", "best_auc", "since_best")  # of Progress
PARTS = ("data", "forward", "backward", "optimizer", "validation")


class TrainConfig(Config):
    """How a model is trained.

    embedding_l2, network_l2: Adam's L2 terms. validations: how often valid is scored within each
    epoch. patience: validations without a better AUC before training stops; half of it before the
    learning rate is cut to a third. averaging: share that a moving average of the weights keeps
    every 4 steps; valid is scored with the average, and a run keeps it; 0 takes the weights as they
    are. fresh_negatives: train negatives that mmctr data import drew, because the log does not know
    what else was shown, are drawn anew for every epoch after the first. row_updates: the tables of
    ids and of finetuned content change only in the rows that a batch names, which catalogs of
    millions of items need. precision: of matrix products; "auto" is "bfloat16" on CUDA and
    "float32" elsewhere.
    """

    seed: int = Field(1, ge=0)
    epochs: PositiveInt = 8
    batch_size: int = Field(1024, ge=3)  # batches of at most 2 can leave a row alone
    learning_rate: PositiveFloat = 3e-3
    embedding_l2: NonNegativeFloat = 1e-3
    network_l2: NonNegativeFloat = 0.0
    validations: PositiveInt = 4
    patience: PositiveInt = 4
    max_gradient_norm: PositiveFloat = 10.0
    averaging: float = Field(0.97, ge=0, lt=1)
    fresh_negatives: bool = True
    row_updates: bool = False
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    device: Literal["auto", "cpu", "cuda", "mps"] = "auto"


class Stopwatch:
    """Adds up where the time of training goes: seconds by part; on a GPU without waiting for it."""

    def __init__(self, device: torch.device) -> None:
        self.on_gpu = device.type == "cuda"
        self.seconds: dict[str, float] = defaultdict(float)
        self.marks: list[tuple[str, torch.cuda.Event]] = []
        self.last = time.perf_counter()
        if self.on_gpu:
            self.lap("start")

    def lap(self, part: str) -> None:
        """The time since the last lap went into this part."""
        if self.on_gpu:
            event = torch.cuda.Event(enable_timing=True)
            event.record()
            self.marks.append((part, event))
        else:
            now = time.perf_counter()
            self.seconds[part] += now - self.last
            self.last = now

    def settle(self) -> None:
        """Wait for the GPU and add up its laps."""
        if self.on_gpu:
            torch.cuda.synchronize()
            for (_, before), (part, event) in pairwise(self.marks):
                self.seconds[part] += before.elapsed_time(event) / 1000
            del self.marks[:-1]


@dataclass
class Progress:
    """What training has seen so far: a record each validation, and the best weights.

    step: steps done of the epoch, which counts from 0. shuffling: the state of the generator that
    shuffles, before that epoch.
    """

    plateau: ReduceLROnPlateau
    average: WeightAverage
    stopwatch: Stopwatch
    epoch: int = 0
    step: int = 0
    shuffling: Tensor | None = None
    samples: int = 0
    records: list[dict[str, float]] = field(default_factory=list)
    losses: list[Tensor] = field(default_factory=list)  # of the steps since the last validation
    best_auc: float = float("-inf")
    best_weights: dict[str, Tensor] = field(default_factory=dict)
    since_best: int = 0
    seconds_before: float = 0.0  # of training, until it was stopped

    def state(self, model: DIN) -> State:
        """All that the next steps depend on, right after a validation."""
        optimizer, weights = self.plateau.optimizer, model.state_dict()
        groups = {
            "weights": {name: weights[name] for name in self.best_weights},
            "best": self.best_weights,
            "average": self.average.average,
            "random": {"shuffling": self.shuffling, "cpu": torch.get_rng_state()},
        }
        if model.device.type == "cuda":
            groups["random"]["cuda"] = torch.cuda.get_rng_state()
        for number, moments in optimizer.state_dict()["state"].items():
            groups[f"optimizer {number}"] = moments
        values = {name: getattr(self, name) for name in RESUMED}
        values |= {
            "updates": self.average.updates,
            "plateau": self.plateau.state_dict(),
            "rates": [group["lr"] for group in optimizer.param_groups],
            "seconds": dict(self.stopwatch.seconds),
        }
        return groups, values

    def restore(self, model: DIN, state: State) -> None:
        """Go back to a state, all random numbers included."""
        groups, values = state
        optimizer = self.plateau.optimizer
        model.load_state_dict(groups["weights"], strict=False)
        device = model.device
        self.best_weights = {name: value.to(device) for name, value in groups["best"].items()}
        for name, value in self.average.average.items():
            value.copy_(groups["average"][name])
        self.average.updates = values["updates"]
        self.plateau.load_state_dict(values["plateau"])
        for group, rate in zip(optimizer.param_groups, values["rates"], strict=True):
            group["lr"] = rate
        moments = {
            int(key.split()[1]): value
            for key, value in groups.items()
            if key.startswith("optimizer ")
        }
        optimizer.load_state_dict(optimizer.state_dict() | {"state": moments})
        for name in RESUMED:
            setattr(self, name, values[name])
        self.stopwatch.seconds.update(values["seconds"])
        self.seconds_before = sum(values["seconds"].values())
        self.shuffling = groups["random"]["shuffling"]
        torch.set_rng_state(groups["random"]["cpu"])
        if device.type == "cuda" and "cuda" in groups["random"]:
            torch.cuda.set_rng_state(groups["random"]["cuda"])

    def cost(self, device: torch.device) -> dict[str, object]:
        """Training speed without validation, seconds by part, and peak memory."""
        seconds = {part: round(self.stopwatch.seconds[part], 3) for part in PARTS}
        training = sum(seconds.values()) - seconds["validation"]
        return {
            "samples_per_s": round(self.samples / training, 1),
            "seconds": seconds,
            "peak_memory_mb": round(peak_memory_mb(device), 1),
        }


def configs(preset: str = "default", **parameters: object) -> tuple[DINConfig, TrainConfig]:
    """A preset's configurations with some parameters changed; None leaves one as it is.

    Raises ConfigError for an unknown preset and names a bad parameter.
    """
    if preset not in PRESETS:
        raise ConfigError(f"Preset {preset!r} is unknown: choose one of {', '.join(PRESETS)}.")
    given = {name: value for name, value in parameters.items() if value is not None}
    parameters = PRESETS[preset] | given
    unknown = [
        name
        for name in parameters
        if name not in DINConfig.model_fields and name not in TrainConfig.model_fields
    ]
    if unknown:
        known = ", ".join([*DINConfig.model_fields, *TrainConfig.model_fields])
        raise ConfigError(f"Parameter {unknown[0]!r} is unknown: choose one of {known}.")
    model = {name: value for name, value in parameters.items() if name in DINConfig.model_fields}
    training = {name: value for name, value in parameters.items() if name not in model}
    return DINConfig.of(**model), TrainConfig.of(**training)


def train(
    dataset: Dataset,
    strategy: str,
    model_config: DINConfig,
    train_config: TrainConfig,
    runs: Path,
) -> Run | None:
    """Train on the train split, choose on valid, and write a new run folder below `runs`.

    Until then a folder that ends in -unfinished keeps the state of each validation for `resume`;
    an interruption from the keyboard becomes a RunError that says so. A training that was begun
    exactly like this and killed is gone on with: it ends as a new one would.
    Raises ConfigError for a strategy that the data cannot serve, an absent device or training
    that diverges, DataError for a split in which all labels are equal. Under torchrun all processes
    train together; the first one writes the run, and the others return None. Nothing is kept there
    until the run is finished.
    """
    return _train(dataset, strategy, model_config, train_config, runs, None)


def resume(folder: Path, dataset: Dataset) -> Run:
    """Go on with an unfinished run: the finished one, beside it, is as if nothing had happened.

    On one machine, CPU and number of threads it is identical bit for bit. Raises RunError for a
    folder that is damaged or no unfinished run, for other data, and under torchrun.
    """
    if parallel.share()[1] > 1:
        raise RunError(f"{folder} cannot be resumed under torchrun: use mmctr train --resume.")
    unfinished = UnfinishedRun.load(folder)
    unfinished.require_same(dataset)
    model, training = (unfinished.config[name] for name in ("model", "training"))
    configurations = DINConfig.of(**model), TrainConfig.of(**training)
    strategy, runs = unfinished.config["strategy"], unfinished.folder.parent
    return _train(dataset, strategy, *configurations, runs, unfinished)


def _train(
    dataset: Dataset,
    strategy: str,
    model_config: DINConfig,
    train_config: TrainConfig,
    runs: Path,
    unfinished: UnfinishedRun | None,
) -> Run | None:
    require_both_labels(dataset)
    device = find_device(train_config.device)
    started = time.perf_counter()
    embedding = item_embeddings(dataset.catalog, strategy)
    fused = time.perf_counter()
    torch.manual_seed(train_config.seed)
    model = DIN.for_catalog(model_config, dataset.catalog, embedding).to(device)
    # The processes share weights, but each drops out on its own.
    torch.manual_seed(train_config.seed + 1_000_003 * parallel.share()[0])
    config = {
        "strategy": strategy,
        "model": model_config.model_dump(),
        "training": train_config.model_dump(),
        "sizes": model.sizes,
    }
    if unfinished is None and parallel.share()[1] == 1:
        unfinished = UnfinishedRun.begin(runs, dataset, config)
    with nullcontext() if unfinished is None else unfinished.in_training():
        progress = fit(model, dataset, train_config, unfinished=unfinished)
        training = time.perf_counter() - fused + progress.seconds_before
        rows = dataset.valid
        probability = predict_together(model, rows, train_config.precision)
        if parallel.share()[0] > 0:
            return None
        metrics = evaluate(rows.user, rows.label, probability)
        metrics["auc_interval"] = interval(bootstrap_auc(rows.user, rows.label, probability)[:, 0])
        summary = {
            "metrics": metrics,
            "reference_auc": reference_aucs(dataset, rows),
            "item_embedding_sha256": embedding_hash(embedding),
            "best_epoch": max(progress.records, key=lambda record: record["auc"])["epoch"],
            "seconds": {"fusion": fused - started, "training": training},
            "cost": progress.cost(device),
            "device": device.type,
            "processes": parallel.share()[1],
        }
        return save_run(runs, dataset, model, config, summary, progress.records, probability)


def fit(
    model: DIN,
    dataset: Dataset,
    config: TrainConfig,
    on_validation: Callable[[dict[str, float]], None] | None = None,
    unfinished: UnfinishedRun | None = None,
) -> Progress:
    """Train a model in place; it ends with the weights of the best valid AUC.

    unfinished: goes on from the state that it has, if any, and keeps that of each validation.
    Progress.records has an entry for each validation: epoch, train_loss, auc, logloss,
    learning_rate, seconds; on_validation is called with each as soon as it is known.
    """
    batches = Batches(dataset.train, model)
    draws = config.fresh_negatives and dataset.negative_sampling is not None
    fresh = FreshNegatives(dataset) if draws and config.epochs > 1 else None
    steps = batches.count(config.batch_size)
    parts = range(1, config.validations + 1)
    validate_after = {round(steps * part / config.validations) for part in parts}
    optimizer = make_optimizer(model, config)
    # The rate is cut halfway to giving up, so that a cut has time to help.
    plateau = ReduceLROnPlateau(optimizer, mode="max", factor=1 / 3, patience=config.patience // 2)
    average = WeightAverage(model, config.averaging)
    progress = Progress(plateau, average, Stopwatch(model.device))
    generator = torch.Generator().manual_seed(config.seed)
    number, processes = parallel.share()
    together = parallel.distribute(model)
    if unfinished is not None and (state := unfinished.saved()) is not None:
        try:
            progress.restore(model, state)
        except (KeyError, TypeError, ValueError, RuntimeError) as error:
            raise RunError(
                f"{unfinished.folder} has a state that does not fit its parameters "
                f"({first_line(error)}): delete it and train again."
            ) from error
        generator.set_state(progress.shuffling)
    rows = config.epochs * len(batches)
    bar = tqdm(
        total=rows,
        initial=progress.samples,
        desc="train",
        unit=" samples",
        unit_scale=True,
        disable=number > 0,
    )
    with tuned(model.device), bar:
        for epoch in range(progress.epoch, config.epochs):
            if fresh and epoch > 0:
                batches.show(fresh.targets(np.random.default_rng((config.seed, epoch))))
            first = progress.step if epoch == progress.epoch else 0
            progress.epoch, progress.shuffling = epoch, generator.get_state()
            shuffled = batches.shuffled(config.batch_size, generator, (number, processes), first)
            for step, batch in enumerate(shuffled, start=first + 1):
                progress.step = step
                progress.stopwatch.lap("data")
                loss = update(together, optimizer, batch, config, progress.stopwatch.lap)
                progress.losses.append(loss)
                if step % AVERAGE_EVERY == 0:
                    average.update()
                done = epoch * len(batches) + round(len(batches) * step / steps)
                bar.update(done - progress.samples)
                progress.samples = done
                if step in validate_after:
                    with average.in_place():
                        _validate(model, dataset.valid, progress, epoch + step / steps, config)
                    mean_loss, score = (
                        progress.records[-1][name] for name in ("train_loss", "auc")
                    )
                    bar.set_postfix(loss=f"{mean_loss:.4f}", valid_auc=f"{score:.4f}")
                    if on_validation is not None:
                        on_validation(progress.records[-1])
                if progress.since_best >= config.patience:
                    model.load_state_dict(progress.best_weights, strict=False)
                    return progress
                if step in validate_after and unfinished is not None:
                    unfinished.save(progress.state(model))
                    progress.stopwatch.lap("validation")
    model.load_state_dict(progress.best_weights, strict=False)
    return progress


def predict_together(model: DIN, rows: Impressions, precision: str) -> np.ndarray:
    """Click probabilities of all rows, float32 [n], of which each process computes its part."""
    number, processes = parallel.share()
    first, stop = len(rows) * number // processes, len(rows) * (number + 1) // processes
    part = predict(model, rows.select(slice(first, stop)), precision=precision)
    return parallel.concatenated(part)


def make_optimizer(model: DIN, config: TrainConfig) -> Adam:
    """Adam with an L2 term for the embedding tables and one for the network."""
    model.embedding.sparse_gradients(config.row_updates)
    tables, network = [], []
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            is_table = name.startswith("embedding.") and "projection" not in name
            (tables if is_table else network).append(parameter)
    groups = [
        {"params": tables, "weight_decay": config.embedding_l2},
        {"params": network, "weight_decay": config.network_l2},
    ]
    return Adam(groups, lr=config.learning_rate, fused=True)


def update(
    model: nn.Module,
    optimizer: Adam,
    batch: Batch,
    config: TrainConfig,
    lap: Callable[[str], None] = lambda part: None,
) -> Tensor:
    """One step of training on this process's part of a batch; returns the whole batch's loss.

    lap is called with the name of each part of the step at its end.
    """
    optimizer.zero_grad(set_to_none=True)
    with autocast(batch.label.device, config.precision):
        logits = model(batch)
    losses = F.binary_cross_entropy_with_logits(logits.float(), batch.label, reduction="sum")
    # Parts of a batch may differ by a row, and gradients are averaged over processes.
    loss = losses / len(batch)
    if (processes := parallel.share()[1]) > 1:
        loss = losses * processes / parallel.total(losses.new_tensor(len(batch)))
    lap("forward")
    loss.backward()
    lap("backward")
    nn.utils.clip_grad_norm_(model.parameters(), config.max_gradient_norm)
    optimizer.step()
    lap("optimizer")
    return loss.detach()


def reference_aucs(dataset: Dataset, rows: Impressions) -> dict[str, float]:
    """AUC of popularity alone (train clicks of the target) and, if simulated, the oracle AUC."""
    systems = {"popularity": dataset.train_clicks()[rows.target]} | rows.oracle
    return {name: auc(rows.label, score) for name, score in systems.items()}


def _validate(
    model: DIN, rows: Impressions, progress: Progress, epoch: float, config: TrainConfig
) -> None:
    """Score the valid split, keep the weights if they are the best yet."""
    probability = predict_together(model, rows, config.precision)
    rate = progress.plateau.optimizer.param_groups[0]["lr"]
    if not np.isfinite(probability).all():
        raise ConfigError(
            f"Parameter 'learning_rate' is {rate:g}, and training has diverged by epoch "
            f"{epoch:.2f} (predictions are not numbers): choose a smaller one."
        )
    loss = parallel.total(torch.stack(progress.losses).mean()) / parallel.share()[1]
    progress.losses.clear()
    progress.stopwatch.lap("validation")
    progress.stopwatch.settle()
    record = {
        "epoch": round(epoch, 4),
        "train_loss": float(loss),
        "auc": auc(rows.label, probability),
        "logloss": logloss(rows.label, probability),
        "learning_rate": rate,
        "seconds": round(sum(progress.stopwatch.seconds.values()), 3),
    }
    progress.records.append(record)
    progress.plateau.step(record["auc"])
    if record["auc"] > progress.best_auc:
        progress.best_auc, progress.since_best = record["auc"], 0
        progress.best_weights = model.learned_state()
    else:
        progress.since_best += 1


def require_both_labels(dataset: Dataset) -> None:
    """Raise DataError unless train and valid have both clicks and non-clicks."""
    for name in ("train", "valid"):
        label = dataset.split(name).label
        if len(np.unique(label)) < 2:
            raise DataError(
                f"{dataset.folder}, split {name}: found only labels {label[0]:g}, expected both 0 "
                "and 1: training needs clicks and non-clicks."
            )
