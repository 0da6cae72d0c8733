"""Train a model on a dataset and keep everything in a run folder."""

import time
from contextlib import nullcontext
from pathlib import Path

import torch

from mmctr import parallel
from mmctr.content.fusion import embedding_hash, item_embeddings
from mmctr.data.dataset import Dataset
from mmctr.data.fields import as_json
from mmctr.devices import find_device
from mmctr.errors import RunError
from mmctr.model.config import DINConfig
from mmctr.model.din import DIN
from mmctr.runs.run import Run
from mmctr.runs.unfinished import UnfinishedRun
from mmctr.runs.writing import save_run
from mmctr.training.config import TrainConfig
from mmctr.training.metrics import bootstrap_auc, evaluate, interval, reference_aucs
from mmctr.training.trainer import fit, predict_together, require_both_labels, require_drawn


def train(
    dataset: Dataset,
    strategy: str,
    model_config: DINConfig,
    train_config: TrainConfig,
    runs: Path,
    unfinished: UnfinishedRun | None = None,
) -> Run | None:
    """Train on the train split, choose on valid, and write a new run folder below `runs`.

    Until then a folder that ends in -unfinished keeps the state of each validation for `resume`;
    an interruption from the keyboard becomes a RunError that says so. A training that was begun
    exactly like this and killed, or `unfinished`, is gone on with: it ends as a new one would.
    Raises ConfigError for a strategy that the data cannot serve, an absent device or training
    that diverges, DataError for a split in which all labels are equal. Under torchrun all processes
    train together; the first one writes the run, and the others return None. Nothing is kept there
    until the run is finished.
    """
    require_both_labels(dataset)
    require_drawn(dataset, train_config.click_rate)
    device = find_device(train_config.device)
    started = time.perf_counter()
    embedding = item_embeddings(dataset.catalog, strategy)
    fused = time.perf_counter()
    torch.manual_seed(train_config.seed)
    model = DIN.for_dataset(model_config, dataset, embedding).to(device)
    # The processes share weights, but each drops out on its own.
    torch.manual_seed(train_config.seed + 1_000_003 * parallel.share()[0])
    config = {
        "strategy": strategy,
        "model": model_config.model_dump(),
        "training": train_config.model_dump(),
        "sizes": model.sizes,
    }
    if dataset.fields:
        config["fields"] = as_json(dataset.fields)
    if unfinished is None and parallel.share()[1] == 1:
        unfinished = UnfinishedRun.begin(runs, dataset, config)
    with nullcontext() if unfinished is None else unfinished.in_training():
        progress = fit(model, dataset, train_config, unfinished=unfinished)
        training = time.perf_counter() - fused + progress.seconds_before
        rows = dataset.valid
        probability = predict_together(model, rows, train_config.precision)
        if parallel.share()[0] > 0:
            return None
        metrics = evaluate(rows, probability)
        metrics["auc_interval"] = interval(bootstrap_auc(rows.user, rows.label, probability)[:, 0])
        summary = {
            "metrics": metrics,
            "reference_auc": reference_aucs(dataset, rows),
            "click_rate": {
                "train": float(dataset.train.label.mean()),
                "known": train_config.click_rate,
            },
            "item_embedding_sha256": embedding_hash(embedding),
            "best_epoch": max(progress.records, key=lambda record: record["auc"])["epoch"],
            "seconds": {"fusion": fused - started, "training": training},
            "cost": progress.cost(device),
            "device": device.type,
            "processes": parallel.share()[1],
        }
        return save_run(runs, dataset, model, config, summary, progress.records, probability)


def resume(folder: Path, dataset: Dataset) -> Run:
    """Go on with an unfinished run: the finished one, beside it, is as if nothing had happened.

    On one machine, CPU and number of threads it is identical bit for bit. Raises RunError for a
    folder that is damaged or no unfinished run, for other data, and under torchrun.
    """
    if parallel.share()[1] > 1:
        raise RunError(f"{folder} cannot be resumed under torchrun: use mmctr train --resume.")
    unfinished = UnfinishedRun.load(folder)
    unfinished.require_same(dataset)
    begun = unfinished.config
    model, training = DINConfig.of(**begun["model"]), TrainConfig.of(**begun["training"])
    return train(dataset, begun["strategy"], model, training, unfinished.folder.parent, unfinished)
