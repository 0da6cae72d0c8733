"""Train a DIN: Adam, early stopping on valid AUC. A model and its records; nothing is saved."""

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor, nn
from torch.optim.lr_scheduler import ReduceLROnPlateau
from tqdm.auto import tqdm

from mmctr import parallel
from mmctr.data.dataset import Dataset
from mmctr.data.impressions import Impressions
from mmctr.devices import autocast, tuned
from mmctr.errors import ConfigError, DataError, RunError, first_line
from mmctr.model.batch import Batch
from mmctr.model.din import DIN
from mmctr.training.batches import Batches
from mmctr.training.config import TrainConfig
from mmctr.training.loss import batch_loss
from mmctr.training.metrics import auc, logloss
from mmctr.training.negatives import FreshNegatives
from mmctr.training.optimizer import Adam, WeightAverage, make_optimizer
from mmctr.training.prediction import predict
from mmctr.training.progress import Checkpoint, Progress, Stopwatch

AVERAGE_EVERY = 4  # steps


def fit(
    model: DIN,
    dataset: Dataset,
    config: TrainConfig,
    on_validation: Callable[[dict[str, float]], None] = lambda record: None,
    unfinished: Checkpoint | None = None,
) -> Progress:
    """Train a model in place; it ends with the weights of the best valid AUC.

    unfinished: goes on from the state that it has, if any, and keeps that of each validation.
    Progress.records has an entry for each validation: epoch, train_loss, auc, logloss,
    learning_rate, seconds; on_validation is called with each as soon as it is known.
    """
    number, processes = parallel.share()
    if config.row_shards > 1 and config.row_shards % processes:
        raise ConfigError(
            f"Parameter 'row_shards' is {config.row_shards}, expected 1 or a multiple of the "
            f"{processes} processes, of which each reads its own: choose another."
        )
    batches = Batches(dataset.train, model, (number, processes), config.row_shards)
    draws = config.fresh_negatives and dataset.negative_sampling is not None
    fresh = FreshNegatives(dataset) if draws and config.epochs > 1 else None
    steps = batches.count(config.batch_size)
    if config.row_shards > max(most := len(batches) // steps, 1):
        raise ConfigError(
            f"Parameter 'row_shards' is {config.row_shards}, expected at most {most}, so that "
            f"each has a row for every one of {steps} batches: choose fewer."
        )
    parts = range(1, config.validations + 1)
    validate_after = {round(steps * part / config.validations) for part in parts}
    optimizer = make_optimizer(model, config)
    # The rate is cut halfway to giving up, so that a cut has time to help.
    plateau = ReduceLROnPlateau(optimizer, mode="max", factor=1 / 3, patience=config.patience // 2)
    average = WeightAverage(model, config.averaging, config.row_updates)
    progress = Progress(plateau, average, Stopwatch(model.device))
    generator = torch.Generator().manual_seed(config.seed)
    together = parallel.distribute(model, own=model.sharded)
    state = None if unfinished is None else unfinished.saved()
    if state is not None:
        try:
            progress.restore(model, state)
        except (KeyError, TypeError, ValueError, RuntimeError) as error:
            raise RunError(
                f"{unfinished.folder} has a state that does not fit its parameters "
                f"({first_line(error)}): delete it and train again."
            ) from error
        generator.set_state(progress.shuffling)
    bar = tqdm(
        total=config.epochs * len(batches),
        initial=progress.samples,
        desc="train",
        unit=" samples",
        unit_scale=True,
        **({"disable": True} if number > 0 else {}),  # a False would overrule TQDM_DISABLE
    )
    with tuned(model.device), bar:
        for epoch in range(progress.epoch, config.epochs):
            if fresh and epoch > 0:
                target = fresh.targets(np.random.default_rng((config.seed, epoch)))
                batches.show(target, fresh.levels(target))
            first = progress.step if epoch == progress.epoch else 0
            progress.epoch, progress.shuffling = epoch, generator.get_state()
            shuffled = batches.shuffled(config.batch_size, generator, first)
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
                if step not in validate_after:
                    continue
                with average.in_place():
                    now = epoch + step / steps
                    record = _validate(model, dataset.valid, progress, now, config)
                mean_loss, score = record["train_loss"], record["auc"]
                bar.set_postfix(loss=f"{mean_loss:.4f}", valid_auc=f"{score:.4f}")
                on_validation(record)
                if progress.since_best >= config.patience:
                    bar.total = bar.n  # what was not needed is not missing
                    bar.set_description(
                        f"train, stopped early after {now:.1f} of {config.epochs} epochs, "
                        f"best at {progress.best_epoch:.1f}"
                    )
                    model.load_state_dict(progress.best_weights, strict=False)
                    return progress
                if unfinished is not None:
                    unfinished.save(progress.state(model))
                    progress.stopwatch.lap("validation")
    model.load_state_dict(progress.best_weights, strict=False)
    return progress


def predict_together(model: DIN, rows: Impressions, precision: str) -> np.ndarray:
    """Click probabilities of all rows, float32 [n], of which each process computes its part."""
    number, processes = parallel.share()
    first, stop = len(rows) * number // processes, len(rows) * (number + 1) // processes
    part = predict(model, rows.select(slice(first, stop)), precision=precision)
    model.embedding.answer_others()
    return np.concatenate(parallel.gathered(part))


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
    loss = batch_loss(logits.float(), batch.label, config)
    lap("forward")
    loss.backward()
    lap("backward")
    optimizer.clip(model.parameters(), config.max_gradient_norm)
    optimizer.step()
    lap("optimizer")
    return loss.detach()


def _validate(
    model: DIN, rows: Impressions, progress: Progress, epoch: float, config: TrainConfig
) -> dict[str, float]:
    """Score the valid split, keep the weights if they are the best yet; the record of it."""
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
    return record


def require_both_labels(dataset: Dataset) -> None:
    """Raise DataError unless train and valid have both clicks and non-clicks."""
    for name in ("train", "valid"):
        label = dataset.split(name).label
        if len(np.unique(label)) < 2:
            raise DataError(
                f"{dataset.folder}, split {name}: found only labels {label[0]:g}, expected both 0 "
                "and 1: training needs clicks and non-clicks."
            )


def require_drawn(dataset: Dataset, click_rate: float | None) -> None:
    """Raise ConfigError for a click rate that is to correct data whose negatives were not drawn."""
    if click_rate is not None and dataset.negatives_from != "sampled":
        raise ConfigError(
            f"Parameter 'click_rate' is {click_rate:g}, but no negatives of {dataset.folder} were "
            f"drawn (they are: {dataset.negatives_from}), so that its share of clicks is its own: "
            "leave click_rate out."
        )
