"""A finished run is written whole or not at all, and never over another one."""

import os
import re
from datetime import datetime
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from mmctr.content.fitted import FittedStrategy
from mmctr.data.dataset import Dataset
from mmctr.errors import RunError
from mmctr.files import temporary_folder, write_json, writing
from mmctr.model.din import DIN
from mmctr.model.pretrained import CONFIG, WEIGHTS
from mmctr.runs import carried
from mmctr.runs.forms import HISTORY, PREDICTIONS, SUMMARY
from mmctr.runs.provenance import describe, provenance
from mmctr.runs.run import Run


def save_run(
    runs: Path,
    dataset: Dataset,
    model: DIN,
    config: dict[str, Any],
    summary: dict[str, Any],
    records: list[dict[str, float]],
    probability: np.ndarray,
    strategy: FittedStrategy | None = None,
) -> Run:
    """Write a new run folder below `runs`; it appears whole or not at all.

    `summary` is completed by what is known of the data, the software and the machine. strategy: as
    it was fitted, without which the run serves no other catalog; None for "ids".
    """
    folder = run_folder(runs, dataset, config)
    summary = {
        "date": datetime.now().astimezone().isoformat(timespec="seconds"),
        "dataset": describe(dataset),
        "config": config,
        "parameters": _parameters(model),
        **summary,
        **provenance(),
    }
    rows = dataset.valid
    numbers = {"user": rows.user, "target": rows.target, "label": rows.label}
    predictions = pd.DataFrame(numbers | {"probability": probability} | dataset.ids(rows))
    with writing(folder, kind=RunError), temporary_folder(folder) as temporary:
        model.save_weights(temporary / WEIGHTS)
        predictions.to_parquet(temporary / PREDICTIONS, index=False, compression="zstd")
        pd.DataFrame(records).to_json(temporary / HISTORY, orient="records", lines=True)
        carried.write(temporary, dataset, strategy)
        write_json(temporary / CONFIG, config)
        write_json(temporary / SUMMARY, summary)
        os.sync()
        return Run.load(move_to_free_name(temporary, folder))


def _parameters(model: DIN) -> int:
    """How many numbers training changes, in all processes together."""
    sizes = {name: one.numel() for name, one in model.named_parameters() if one.requires_grad}
    for name in sizes.keys() & model.sharded:
        sizes[name] = sizes[name] // len(model.embedding.shard) * (model.n_items + 1)
    return sum(sizes.values())


def run_folder(runs: Path, dataset: Dataset, config: dict[str, Any]) -> Path:
    """The folder below `runs` for a run that is written now, unless its name is taken."""
    strategy = re.sub(r"[^\w.-]", "-", config["strategy"])  # a column may have any name
    seed, now = config["training"]["seed"], datetime.now()
    return runs / f"{dataset.name}-{strategy}-seed{seed}-{now:%Y%m%d-%H%M%S}"


def move_to_free_name(folder: Path, wanted: Path) -> Path:
    """Rename to the wanted name, or the first free one of wanted-2, wanted-3 and so on."""
    for number in count(1):
        target = wanted if number == 1 else wanted.with_name(f"{wanted.name}-{number}")
        try:
            # An occupied name makes rename fail, so that two runs can never share a folder.
            return folder.rename(target)
        except OSError:
            if not target.exists():
                raise
