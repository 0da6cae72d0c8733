"""Whether a run's numbers are those of its predictions, its data and its weights."""

import json
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

from mmctr import parallel
from mmctr.content.fusion import available_strategies, embedding_hash
from mmctr.data.dataset import Dataset
from mmctr.model.config import DINConfig
from mmctr.runs.forms import PREDICTIONS, read_own_ids
from mmctr.runs.provenance import require_same, source_hash
from mmctr.runs.run import Run
from mmctr.runs.train import origin_of, train
from mmctr.training.config import TrainConfig
from mmctr.training.metrics import bootstrap_auc, evaluate, interval
from mmctr.training.trainer import predict_together

OTHER_COLUMN = "Column {} of predictions.parquet is not that of the valid split."
TOLERANCE = 1e-4  # of a probability: other machines, threads and precisions round otherwise


class Verdict(NamedTuple):
    """What of a run differs, and what could not be compared exactly; a sentence each."""

    differing: list[str]
    remarks: list[str]


def verify(run: Run, dataset: Dataset) -> Verdict:
    """Whether all is as the run says.

    Compares the data's fingerprint, config.json and the item embedding with what summary.json says
    of them, the rows of predictions.parquet with the valid split, the metrics with those of the
    predictions, and the predictions with new ones from the weights. Raises RunError for a dataset
    that has other items.
    """
    if parallel.share()[1] > 1:  # hashes take a while, and alone there is nothing to compare
        own = {"run": run.weights_hash(), "data": dataset.fingerprint, "code": source_hash()}
        parallel.require_alike(**own)
    run.require_fit(dataset)
    differing, remarks = _embedding(run, dataset)
    if json.loads(json.dumps(run.summary.get("config", run.config))) != run.config:
        differing.append("summary.json states other parameters than config.json.")
    return Verdict(differing + _numbers(run, dataset), remarks)


def _embedding(run: Run, dataset: Dataset) -> tuple[list[str], list[str]]:
    """Compare the strategy's item embedding with its hash: in the weights, and fitted again."""
    if (stated := run.summary.get("item_embedding_sha256")) is None:
        return [], []
    differing, remarks = [], []
    finetuned = run.config["model"].get("content") == "finetuned"
    if not finetuned and run.content_hash() != stated:
        differing.append("The weights hold another item embedding than summary.json states.")
    if finetuned and "origin" in run.config:
        return differing, remarks  # it began with vectors that another training had changed
    if run.strategy not in available_strategies(dataset.catalog):
        remarks.append(f"The data have no features to fit {run.strategy} again.")
    elif embedding_hash(run.item_embeddings(dataset.catalog)) != stated:
        if run.has_other_content(dataset.catalog):
            differing.append(f"{run.strategy} fits another item embedding to these data.")
        else:
            remarks.append(
                f"{run.strategy}, fitted again, gives the same item embedding but for rounding, as "
                "another processor or version does."
            )
    return differing, remarks


def _numbers(run: Run, dataset: Dataset) -> list[str]:
    """Compare fingerprint, rows, metrics and predictions."""
    rows, predictions, found = dataset.valid, run.predictions, []
    if (stated := run.summary["dataset"]["fingerprint"]) != dataset.fingerprint:
        found.append(f"The data's fingerprint is {dataset.fingerprint}, the run's {stated}.")
    for name in ("user", "target", "label"):
        if not np.array_equal(predictions[name].to_numpy(), getattr(rows, name)):
            # Nothing that follows would mean anything.
            return [*found, OTHER_COLUMN.format(name)]
    own = read_own_ids(run.folder / PREDICTIONS)
    for name, ids in dataset.ids(rows).items():
        if name in own and not np.array_equal(own[name].to_numpy(), ids):
            found.append(OTHER_COLUMN.format(name))
    probability = predictions["probability"].to_numpy()
    metrics = evaluate(rows, probability)
    low, high = interval(bootstrap_auc(rows.user, rows.label, probability)[:, 0])
    stated = dict(run.summary["metrics"])
    stated["auc_low"], stated["auc_high"] = stated.pop("auc_interval")
    for name, value in (metrics | {"auc_low": low, "auc_high": high}).items():
        if not np.isclose(stated[name], value, rtol=0, atol=1e-9, equal_nan=True):
            found.append(f"summary.json says {name} {stated[name]}, the predictions give {value}.")
    gap = np.abs(predict_together(run.model(in_shards=True), rows, "float32") - probability)
    if gap.max(initial=0) > TOLERANCE:
        found.append(
            f"The weights give other probabilities than predictions.parquet: up to {gap.max():.2g} "
            f"apart, in {(gap > TOLERANCE).sum():,} of {len(gap):,} rows."
        )
    return found


def rerun(run: Run, dataset: Dataset, runs: Path) -> tuple[Run, str]:
    """Train again from a run's config.json, below `runs`: the new run, and how it compares.

    On one machine, CPU and number of threads, weights are identical bit for bit. Raises RunError
    for other data than the run's, and where the run that it started from is not as it was.
    """
    require_same(run.summary["dataset"], dataset, run.folder)
    dataset = run.without_excluded(dataset)
    model = DINConfig.stated(run.config["model"])
    training = TrainConfig.of(**run.config["training"])
    origin = origin_of(run.config, run.folder)
    again = train(dataset, run.strategy, model, training, runs, origin=origin)
    before, after = (one.model().learned_state() for one in (run, again))
    if all(torch.equal(before[name], after[name]) for name in before):
        return again, "The weights are identical, bit for bit."
    first, second = (one.summary["metrics"]["auc"] for one in (run, again))
    gap = max(float((before[name] - after[name]).abs().max()) for name in before)
    return again, (
        f"The weights differ by up to {gap:.2g}; valid AUC {second:.6f}, before {first:.6f}."
    )
