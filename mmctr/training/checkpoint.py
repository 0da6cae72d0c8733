"""A run: the folder that keeps a trained model, its parameters, its metrics and its predictions."""

import json
import platform
import re
import shutil
import subprocess
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

import mmctr
from mmctr.data.dataset import Dataset
from mmctr.errors import MMCTRError, RunError
from mmctr.files import write_json
from mmctr.model.din import DIN, DINConfig

CONFIG, SUMMARY, WEIGHTS = "config.json", "summary.json", "model.safetensors"
HISTORY, PREDICTIONS = "metrics.jsonl", "predictions.parquet"
CONFIG_KEYS = ("strategy", "model", "training", "sizes")
SUMMARY_KEYS = ("metrics", "dataset", "parameters", "seconds")


@dataclass(frozen=True)
class Run:
    """A finished run, read from its folder."""

    folder: Path
    config: dict[str, Any]
    summary: dict[str, Any]

    @classmethod
    def load(cls, folder: Path | str) -> "Run":
        """Read a run folder; RunError if it is missing, unfinished or damaged."""
        folder = Path(folder)
        missing = [
            name
            for name in (CONFIG, SUMMARY, WEIGHTS, HISTORY, PREDICTIONS)
            if not (folder / name).is_file()
        ]
        if missing:
            raise RunError(
                f"{folder} is not a finished run, {missing[0]} is missing: choose a folder that "
                "mmctr train has written."
            )
        config = _read_json(folder / CONFIG, CONFIG_KEYS)
        return cls(folder, config, _read_json(folder / SUMMARY, SUMMARY_KEYS))

    @property
    def name(self) -> str:
        """The run's id."""
        return self.folder.name

    @property
    def strategy(self) -> str:
        """The strategy that made the item embeddings."""
        return self.config["strategy"]

    @property
    def seed(self) -> int:
        """The seed of training."""
        return self.config["training"]["seed"]

    @cached_property
    def history(self) -> pd.DataFrame:
        """A row each validation: epoch, train_loss, auc, logloss, learning_rate, seconds."""
        return _read_table(self.folder / HISTORY, lambda path: pd.read_json(path, lines=True))

    @cached_property
    def predictions(self) -> pd.DataFrame:
        """The valid split in the order of its file: user, target, label, probability."""
        return _read_table(self.folder / PREDICTIONS, pd.read_parquet)

    def model(self) -> DIN:
        """The trained model, on the CPU and ready to predict."""
        try:
            model = DIN.of_sizes(DINConfig.of(**self.config["model"]), **self.config["sizes"])
            model.load_state_dict(load_file(self.folder / WEIGHTS))
        except (SafetensorError, KeyError, TypeError, RuntimeError, MMCTRError) as error:
            raise RunError(
                f"{self.folder}: {WEIGHTS} does not fit {CONFIG} "
                f"({str(error).splitlines()[0]}): train the model again."
            ) from error
        return model.eval()

    def require_fit(self, dataset: Dataset) -> None:
        """Raise RunError unless the dataset has the very items that the run was trained on."""
        catalog, sizes = dataset.catalog, self.config["sizes"]
        found = {"n_items": catalog.n_items, "tags_per_item": catalog.tags.shape[1]}
        for name, value in found.items():
            if value != sizes[name]:
                raise RunError(
                    f"{self.folder} was trained with {name} = {sizes[name]}, but {dataset.folder} "
                    f"has {value}: choose the run's own dataset, "
                    f"{self.summary['dataset']['folder']}."
                )
        if not np.array_equal(self.model().embedding.item_tags, catalog.tags):
            raise RunError(
                f"{self.folder} was trained on items with other tags than those of "
                f"{dataset.folder}: choose the run's own dataset, "
                f"{self.summary['dataset']['folder']}."
            )


def save_run(
    runs: Path,
    dataset: Dataset,
    model: DIN,
    config: dict[str, Any],
    summary: dict[str, Any],
    records: list[dict[str, float]],
    probability: np.ndarray,
) -> Run:
    """Write a new run folder below `runs`; it appears whole or not at all.

    `summary` is completed by what is known of the data, the software and the machine.
    """
    now = datetime.now().astimezone()
    strategy = re.sub(r"[^\w.-]", "-", config["strategy"])  # a column may have any name
    name = f"{dataset.name}-{strategy}-seed{config['training']['seed']}-{now:%Y%m%d-%H%M%S}"
    summary = {
        "date": now.isoformat(timespec="seconds"),
        "dataset": describe(dataset),
        "parameters": sum(weight.numel() for weight in model.parameters() if weight.requires_grad),
        **summary,
        **provenance(),
    }
    rows = dataset.valid
    predictions = pd.DataFrame(
        {"user": rows.user, "target": rows.target, "label": rows.label, "probability": probability}
    )
    temporary = None
    try:
        runs.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(dir=runs, prefix=f".{name}."))
        weights = {key: value.contiguous() for key, value in model.state_dict().items()}
        save_file(weights, temporary / WEIGHTS)
        predictions.to_parquet(temporary / PREDICTIONS, index=False)
        pd.DataFrame(records).to_json(temporary / HISTORY, orient="records", lines=True)
        write_json(temporary / CONFIG, config)
        write_json(temporary / SUMMARY, summary)
        temporary.chmod(0o755)
        return Run.load(_move_to_free_name(temporary, runs / name))
    except OSError as error:
        raise RunError(
            f"{runs / name} could not be written ({error.strerror or error}): "
            "free some space or choose a folder that you may write to."
        ) from error
    finally:
        if temporary is not None:
            shutil.rmtree(temporary, ignore_errors=True)


def describe(dataset: Dataset) -> dict[str, Any]:
    """What identifies a dataset: name, folder, fingerprint, sizes, and whether it is simulated."""
    return {
        "name": dataset.name,
        "folder": str(dataset.folder),
        "fingerprint": dataset.fingerprint,
        "simulated": dataset.simulated,
        "items": dataset.catalog.n_items,
        "rows": {name: len(rows) for name, rows in dataset.splits.items()},
    }


def provenance() -> dict[str, Any]:
    """Versions, git commit and hardware behind a result."""
    packages = ("torch", "numpy", "pandas", "scikit-learn")
    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else None
    return {
        "versions": {
            "mmctr": mmctr.__version__,
            "python": platform.python_version(),
            **{name: _version(name) for name in packages},
        },
        "git": _git_commit(),
        "hardware": {
            "machine": platform.machine(),
            "system": platform.system(),
            "threads": torch.get_num_threads(),
            "gpu": gpu,
        },
    }


def _move_to_free_name(folder: Path, wanted: Path) -> Path:
    """Rename to the wanted name, or the first free one of wanted-2, wanted-3 and so on."""
    number = 1
    while True:
        target = wanted if number == 1 else wanted.with_name(f"{wanted.name}-{number}")
        try:
            # An occupied name makes rename fail, so that two runs can never share a folder.
            return folder.rename(target)
        except OSError:
            if not target.exists():
                raise
            number += 1


def _read_json(path: Path, keys: tuple[str, ...]) -> dict[str, Any]:
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise RunError(f"{path} is damaged ({error}): train the model again.") from error
    if not isinstance(value, dict):
        raise RunError(f"{path} holds no JSON object: train the model again.")
    missing = [key for key in keys if key not in value]
    if missing:
        raise RunError(f"{path} has no {missing[0]!r}: train the model again.")
    return value


def _read_table(path: Path, read: Callable[[Path], pd.DataFrame]) -> pd.DataFrame:
    try:
        return read(path)
    except (OSError, ValueError) as error:
        reason = str(error).splitlines()[0]
        raise RunError(f"{path} is damaged ({reason}): train the model again.") from error


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _git_commit() -> dict[str, Any] | None:
    """The commit of the source tree and whether it has uncommitted changes; None outside git."""
    root = Path(mmctr.__file__).parent.parent

    def git(*words: str) -> str:
        command = ["git", "-C", str(root), *words]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()

    try:
        return {
            "commit": git("rev-parse", "HEAD"),
            "dirty": bool(git("status", "--porcelain", "--untracked-files=no")),
        }
    except (OSError, subprocess.CalledProcessError):
        return None
