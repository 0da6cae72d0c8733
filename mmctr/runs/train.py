"""Train a model on a dataset and keep everything in a run folder."""

import time
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch

from mmctr import parallel
from mmctr.content.fitted import fit as fit_strategy
from mmctr.content.fusion import embedding_hash
from mmctr.data.dataset import Dataset
from mmctr.data.fields import as_json
from mmctr.data.part import part_of_train
from mmctr.devices import find_device
from mmctr.errors import ConfigError, RunError
from mmctr.model.config import DINConfig
from mmctr.model.din import DIN
from mmctr.model.pretrained import WEIGHTS
from mmctr.model.sharded import Shard
from mmctr.runs import carried, grown
from mmctr.runs.forms import exclusion_in
from mmctr.runs.provenance import source_hash
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
    origin: Run | None = None,
) -> Run | None:
    """Train on the train split, choose on valid, and write a new run folder below `runs`.

    origin: the run whose weights it starts from, of the same strategy and parameters of the model;
    its strategy is not fitted again, so that its weights keep their meaning.
    Until then a folder that ends in -unfinished keeps the state of each validation for `resume`;
    an interruption from the keyboard becomes a RunError that says so. A training that was begun
    exactly like this and killed, or `unfinished`, is gone on with: it ends as a new one would.
    Raises ConfigError for a strategy that the data cannot serve, an absent device or training
    that diverges, DataError for a split in which all labels are equal. Under torchrun all processes
    train together, or raise MMCTRError if their data or code differ; the first one writes the run,
    and the others return None. What `dataset` has excluded is kept with the run, which leaves it
    out of whatever it scores.
    """
    if origin is not None and train_config.shard_items and parallel.share()[1] > 1:
        raise ConfigError(
            "Parameter 'shard_items' is true, but a training that starts from a run (--from) reads "
            "that run's whole tables in every process: set shard_items=false."
        )
    if parallel.share()[1] > 1:  # hashes take a while, and alone there is nothing to compare
        parallel.require_alike(data=dataset.fingerprint, code=source_hash())
    learned = part_of_train(dataset, train_config.rows)
    require_both_labels(learned)
    require_drawn(dataset, train_config.click_rate)
    device = find_device(train_config.device)
    started = time.perf_counter()
    if origin is None:
        embedding, fitted = fit_strategy(learned, strategy)
    else:
        (embedding, drift), fitted = grown.joined(origin, dataset), origin.carried.strategy
    carried.require_kept(dataset, fitted)
    fused = time.perf_counter()
    torch.manual_seed(train_config.seed)
    trained = None if origin is None else origin.model()
    shard = Shard.here(dataset.catalog.n_items) if train_config.shard_items else None
    model = DIN.for_dataset(model_config, learned, embedding, trained, shard)
    embedding_sha256 = embedding_hash(embedding)
    del embedding  # of which the model may hold a share alone
    if trained is not None:
        grown.take_weights(model, trained, drift)
    model = model.to(device)
    # The processes share weights, but each drops out on its own.
    number, processes = parallel.share()
    torch.manual_seed(train_config.seed + 1_000_003 * number)
    config = {
        "strategy": strategy,
        "model": model_config.model_dump(),
        "training": train_config.model_dump(),
        "sizes": model.sizes,
    }
    if dataset.fields:
        config["fields"] = as_json(dataset.fields)
    if dataset.exclusion is not None:
        config["excluded"] = dataset.exclusion.as_json()
    if origin is not None:
        stated = {"name": origin.name, "folder": str(origin.folder.resolve())}
        config["origin"] = stated | {"weights_sha256": origin.weights_hash()}
    if unfinished is None:
        begun = config | ({"processes": processes} if processes > 1 else {})
        unfinished = parallel.of_first(lambda: UnfinishedRun.begin(runs, dataset, begun))
    with nullcontext() if number > 0 else unfinished.in_training():
        progress = fit(model, learned, train_config, unfinished=unfinished)
        training = time.perf_counter() - fused + progress.seconds_before
        rows = dataset.valid
        probability = predict_together(model, rows, train_config.precision)
        if number > 0:
            model.save_weights(None)
            return None
        metrics = evaluate(rows, probability)
        metrics["auc_interval"] = interval(bootstrap_auc(rows.user, rows.label, probability)[:, 0])
        summary = {
            "metrics": metrics,
            "reference_auc": reference_aucs(dataset, rows),
            "learned_from": {"rows": len(learned.train), "of": len(dataset.train)},
            "click_rate": {
                "train": float(learned.train.label.mean()),
                "known": train_config.click_rate,
            },
            "item_embedding_sha256": embedding_sha256,
            "best_epoch": progress.best_epoch,
            "seconds": {"fusion": fused - started, "training": training},
            "cost": progress.cost(device),
            "device": device.type,
            "processes": processes,
        }
        return save_run(
            runs, dataset, model, config, summary, progress.records, probability, fitted
        )


def train_from(origin: Run, dataset: Dataset, train_config: TrainConfig, runs: Path) -> Run | None:
    """Like `train`, from the weights of a run, with its strategy and its model's parameters.

    dataset: its catalog may have grown; read by Dataset.load(folder, origin.fields). Rows of new
    items and tags begin as those of a new model do. Raises RunError for data that the run cannot
    serve.
    """
    dataset = origin.without_excluded(dataset)
    model = DINConfig.stated(origin.config["model"])
    return train(dataset, origin.strategy, model, train_config, runs, origin=origin)


def resume(folder: Path, dataset: Dataset) -> Run | None:
    """Go on with an unfinished run: the finished one, beside it, is as if nothing had happened.

    On one machine, CPU and number of threads it is identical bit for bit. Raises RunError for a
    folder that is damaged or no unfinished run, for other data or another number of processes.
    """
    unfinished = parallel.of_first(lambda: UnfinishedRun.load(folder))
    unfinished.require_same(dataset)
    begun = unfinished.config
    if (excluded := exclusion_in(begun, unfinished.folder)) is not None:
        dataset = excluded.of(dataset)
    model, training = DINConfig.stated(begun["model"]), TrainConfig.of(**begun["training"])
    origin = origin_of(begun, unfinished.folder)
    runs = unfinished.folder.parent
    return train(dataset, begun["strategy"], model, training, runs, unfinished, origin)


def origin_of(config: dict[str, Any], folder: Path) -> Run | None:
    """The run that one with this configuration, in this folder, started from; None if from none.

    Raises RunError if it is neither where it was nor beside the folder, or has other weights.
    """
    if (stated := config.get("origin")) is None:
        return None
    for place in (Path(stated["folder"]), folder.parent / stated["name"]):
        if (place / WEIGHTS).is_file():
            found = Run.load(place)
            if found.weights_hash() == stated["weights_sha256"]:
                return found
    raise RunError(
        f"{folder} was started from {stated['folder']}, which is not there with the weights that "
        "it had: put that run beside it, or train anew."
    )
