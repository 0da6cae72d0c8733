"""Train a DIN on a dataset: Adam, early stopping on valid AUC, everything kept in a run folder."""

import copy
import time
from dataclasses import dataclass, field
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
from mmctr.data.dataset import Dataset, Impressions
from mmctr.errors import ConfigError, DataError
from mmctr.fusion import item_embeddings
from mmctr.model.din import DIN, Batch, DINConfig
from mmctr.training.batches import Batches
from mmctr.training.checkpoint import Run, save_run
from mmctr.training.metrics import auc, bootstrap_auc, evaluate, interval, logloss
from mmctr.training.prediction import predict


class TrainConfig(Config):
    """How a model is trained.

    embedding_l2, network_l2: Adam's L2 terms. validations: how often valid is scored within each
    epoch. patience: validations without a better AUC before training stops; half of it before the
    learning rate is cut to a third.
    """

    seed: int = Field(1, ge=0)
    epochs: PositiveInt = 3
    batch_size: int = Field(1024, ge=3)  # batches of at most 2 can leave a row alone
    learning_rate: PositiveFloat = 3e-3
    embedding_l2: NonNegativeFloat = 1e-3
    network_l2: NonNegativeFloat = 0.0
    validations: PositiveInt = 4
    patience: PositiveInt = 4
    max_gradient_norm: PositiveFloat = 10.0
    device: Literal["auto", "cpu", "cuda", "mps"] = "auto"


@dataclass
class Progress:
    """What training has seen so far: a record each validation, and the best weights."""

    plateau: ReduceLROnPlateau
    records: list[dict[str, float]] = field(default_factory=list)
    losses: list[Tensor] = field(default_factory=list)  # of the steps since the last validation
    best_auc: float = float("-inf")
    best_weights: dict[str, Tensor] = field(default_factory=dict)
    since_best: int = 0


def configs(**parameters: object) -> tuple[DINConfig, TrainConfig]:
    """Sort parameters into those of the model and of training; ConfigError names a bad one."""
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
) -> Run:
    """Train on the train split, choose on valid, and write a new run folder below `runs`.

    Raises ConfigError for a strategy that the data cannot serve, an absent device or training
    that diverges, DataError for a split in which all labels are equal.
    """
    _require_both_labels(dataset)
    device = find_device(train_config.device)
    started = time.perf_counter()
    embedding = item_embeddings(dataset.catalog, strategy)
    fused = time.perf_counter()
    torch.manual_seed(train_config.seed)
    model = DIN.for_catalog(model_config, dataset.catalog, embedding).to(device)
    records = fit(model, dataset, train_config)
    trained = time.perf_counter()
    rows = dataset.valid
    probability = predict(model, rows)
    metrics = evaluate(rows.user, rows.label, probability)
    metrics["auc_interval"] = interval(bootstrap_auc(rows.user, rows.label, probability)[:, 0])
    summary = {
        "metrics": metrics,
        "reference_auc": reference_aucs(dataset, rows),
        "best_epoch": max(records, key=lambda record: record["auc"])["epoch"],
        "seconds": {"fusion": fused - started, "training": trained - fused},
        "device": device.type,
    }
    config = {
        "strategy": strategy,
        "model": model_config.model_dump(),
        "training": train_config.model_dump(),
        "sizes": model.sizes,
    }
    return save_run(runs, dataset, model, config, summary, records, probability)


def fit(model: DIN, dataset: Dataset, config: TrainConfig) -> list[dict[str, float]]:
    """Train a model in place; it ends with the weights of the best valid AUC.

    Returns a record for each validation: epoch, train_loss, auc, logloss, learning_rate, seconds.
    """
    batches = Batches(dataset.train, model)
    steps = batches.count(config.batch_size)
    parts = range(1, config.validations + 1)
    validate_after = {round(steps * part / config.validations) for part in parts}
    optimizer = _optimizer(model, config)
    # The rate is cut halfway to giving up, so that a cut has time to help.
    progress = Progress(
        ReduceLROnPlateau(optimizer, mode="max", factor=1 / 3, patience=config.patience // 2)
    )
    generator = torch.Generator().manual_seed(config.seed)
    total = config.epochs * len(batches)
    with tqdm(total=total, desc="train", unit=" samples", unit_scale=True) as bar:
        for epoch in range(config.epochs):
            for step, batch in enumerate(batches.shuffled(config.batch_size, generator), start=1):
                loss = _update(model, optimizer, batch, config.max_gradient_norm)
                progress.losses.append(loss)
                bar.update(len(batch))
                if step in validate_after:
                    _validate(model, dataset.valid, progress, epoch + step / steps, bar)
                if progress.since_best >= config.patience:
                    model.load_state_dict(progress.best_weights)
                    return progress.records
    model.load_state_dict(progress.best_weights)
    return progress.records


def find_device(name: str) -> torch.device:
    """The device of that name; "auto" takes a GPU if there is one. ConfigError if it is absent."""
    there = {"cpu": True, "cuda": torch.cuda.is_available(), "mps": torch.mps.is_available()}
    if name == "auto":
        return torch.device("cuda" if there["cuda"] else "cpu")
    if not there[name]:
        raise ConfigError(
            f"Parameter 'device' is {name!r}, which this machine does not have: choose one of "
            f"{', '.join(repr(known) for known, found in there.items() if found)}."
        )
    return torch.device(name)


def reference_aucs(dataset: Dataset, rows: Impressions) -> dict[str, float]:
    """AUC of popularity alone (train clicks of the target) and, if simulated, the oracle AUC."""
    systems = {"popularity": dataset.train_clicks()[rows.target]} | rows.oracle
    return {name: auc(rows.label, score) for name, score in systems.items()}


def _optimizer(model: DIN, config: TrainConfig) -> torch.optim.Adam:
    tables, network = [], []
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            is_table = name.startswith("embedding.") and "projection" not in name
            (tables if is_table else network).append(parameter)
    groups = [
        {"params": tables, "weight_decay": config.embedding_l2},
        {"params": network, "weight_decay": config.network_l2},
    ]
    return torch.optim.Adam(groups, lr=config.learning_rate, fused=True)


def _update(model: DIN, optimizer: torch.optim.Adam, batch: Batch, max_norm: float) -> Tensor:
    optimizer.zero_grad(set_to_none=True)
    loss = F.binary_cross_entropy_with_logits(model(batch), batch.label)
    loss.backward()
    nn.utils.clip_grad_norm_(model.parameters(), max_norm)
    optimizer.step()
    return loss.detach()


def _validate(model: DIN, rows: Impressions, progress: Progress, epoch: float, bar: tqdm) -> None:
    """Score the valid split, keep the weights if they are the best yet."""
    probability = predict(model, rows)
    rate = progress.plateau.optimizer.param_groups[0]["lr"]
    if not np.isfinite(probability).all():
        raise ConfigError(
            f"Parameter 'learning_rate' is {rate:g}, and training has diverged by epoch "
            f"{epoch:.2f} (predictions are not numbers): choose a smaller one."
        )
    record = {
        "epoch": round(epoch, 4),
        "train_loss": float(torch.stack(progress.losses).mean()),
        "auc": auc(rows.label, probability),
        "logloss": logloss(rows.label, probability),
        "learning_rate": rate,
        "seconds": round(bar.format_dict["elapsed"], 3),
    }
    progress.losses.clear()
    progress.records.append(record)
    progress.plateau.step(record["auc"])
    bar.set_postfix(loss=f"{record['train_loss']:.4f}", valid_auc=f"{record['auc']:.4f}")
    if record["auc"] > progress.best_auc:
        progress.best_auc, progress.since_best = record["auc"], 0
        progress.best_weights = copy.deepcopy(model.state_dict())
    else:
        progress.since_best += 1


def _require_both_labels(dataset: Dataset) -> None:
    for name in ("train", "valid"):
        label = dataset.split(name).label
        if len(np.unique(label)) < 2:
            raise DataError(
                f"{dataset.folder}, split {name}: found only labels {label[0]:g}, expected both 0 "
                "and 1: training needs clicks and non-clicks."
            )
