"""A run: the folder that keeps a trained model, its parameters, its metrics and its predictions."""

import json
import os
import platform
import re
import shlex
import shutil
import subprocess
import tempfile
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from hashlib import sha256
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import pandas as pd
import torch
from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
)
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

import mmctr
from mmctr.content.strategies import available_strategies, embedding_hash, item_embeddings
from mmctr.data import schema
from mmctr.data.dataset import Catalog, Dataset
from mmctr.errors import ConfigError, DataError, MMCTRError, RunError, first_line
from mmctr.files import LOCK, alone, atomic_path, write_json
from mmctr.model.din import DIN
from mmctr.model.pretrained import CONFIG, WEIGHTS, Sizes, Whole
from mmctr.runs.card import run_card

SUMMARY = "summary.json"
HISTORY, PREDICTIONS = "metrics.jsonl", "predictions.parquet"
CHECKPOINT = "checkpoint.safetensors"  # of an unfinished run
State = tuple[dict[str, dict[str, torch.Tensor]], dict[str, Any]]  # tensors by group, and values
CONTENT_TOLERANCE = 1e-2  # share of the mean square by which the same embedding may differ

# JSON has no NaN: a measure that could not be taken is written as null.
Measure = Annotated[float, BeforeValidator(lambda value: np.nan if value is None else value)]


class _Group(BaseModel):
    """What the project itself reads of a JSON file; everything else is kept as it is."""

    model_config = ConfigDict(strict=True, extra="allow")


class _Training(_Group):
    seed: Whole


class _Config(_Group):
    strategy: str
    model: dict[str, Any]
    training: _Training
    sizes: Sizes


class _Metrics(_Group):
    auc: Measure
    logloss: Measure
    gauc: Measure
    auc_interval: Annotated[list[Measure], Field(min_length=2, max_length=2)]
    calibration_error: Measure = np.nan


class _Source(_Group):
    folder: str
    fingerprint: str
    name: str = ""
    simulated: bool = False
    rows: dict[str, Whole] = Field(default_factory=dict)


class _Seconds(_Group):
    fusion: Measure
    training: Measure


class _Cost(_Group):
    samples_per_s: Measure = np.nan
    peak_memory_mb: Measure = np.nan


class _Summary(_Group):
    metrics: _Metrics
    dataset: _Source
    parameters: Whole
    seconds: _Seconds
    cost: _Cost = _Cost()  # older runs have none
    reference_auc: dict[str, Measure] = Field(default_factory=dict)
    item_embedding_sha256: str | None = None  # nor this
    versions: dict[str, str | None] = Field(default_factory=dict)
    git: dict[str, Any] | None = None


class _Begun(_Group):
    strategy: str
    model: dict[str, Any]
    training: _Training
    dataset: _Source


class _Record(_Group):
    epoch: Measure
    train_loss: Measure
    auc: Measure
    logloss: Measure
    learning_rate: Measure
    seconds: Measure


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
        config = _read_json(folder / CONFIG, _Config)
        return cls(folder, config, _read_json(folder / SUMMARY, _Summary))

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
        return _read_history(self.folder / HISTORY)

    @cached_property
    def predictions(self) -> pd.DataFrame:
        """The valid split in the order of its file: user, target, label, probability."""
        table = _read_predictions(self.folder / PREDICTIONS)
        wanted = self.summary["dataset"].get("rows", {}).get("valid", len(table))
        if len(table) != wanted:
            raise RunError(
                f"{self.folder / PREDICTIONS} has {len(table)} rows, expected {wanted} as in "
                f"{SUMMARY}: train the model again."
            )
        return table

    def model(self) -> DIN:
        """The trained model, on the CPU and ready to predict.

        Its card says what the run knows. Raises RunError unless the weights are those of the
        configuration; no memory is taken for it before their shapes are known to fit.
        """
        sizes = {name: self.config["sizes"][name] for name in Sizes.model_fields}
        model = DIN.load(self.folder, self.config["model"], sizes)
        model.card = run_card(self.config, self.summary)
        return model

    def require_fit(self, dataset: Dataset) -> None:
        """Raise RunError unless the dataset has the very items that the run was trained on.

        Their number, tags and content are compared; rows may be others, as for new predictions.
        """
        catalog, sizes = dataset.catalog, self.config["sizes"]
        own = f"choose the run's own dataset, {self.summary['dataset']['folder']}."
        found = {"n_items": catalog.n_items, "tags_per_item": catalog.tags.shape[1]}
        for name, value in found.items():
            if value != sizes[name]:
                raise RunError(
                    f"{self.folder} was trained with {name} = {sizes[name]}, but {dataset.folder} "
                    f"has {value}: {own}"
                )
        other = None
        if not np.array_equal(self._tensor("embedding.item_tags"), catalog.tags):
            other = "tags"
        elif self.summary["dataset"]["fingerprint"] != dataset.fingerprint:
            other = "content" if self.has_other_content(catalog) else None
        if other:
            raise RunError(
                f"{self.folder} was trained on items with other {other} than those of "
                f"{dataset.folder}: {own}"
            )

    def has_other_content(self, catalog: Catalog) -> bool:
        """Whether the run's strategy makes other item embeddings of a catalog than the run has.

        Embeddings that training changed, and those that the catalog has no features for, pass.
        """
        finetuned = self.config["model"].get("content") == "finetuned"
        if finetuned or self.strategy not in available_strategies(catalog):
            return False
        try:
            made = item_embeddings(catalog, self.strategy)
        except (ConfigError, DataError):  # features are narrower than they were
            return True
        kept = self._tensor("embedding.content")
        if made.shape != kept.shape:
            return True
        # Another machine may turn components of equal variance: products of rows stay the same.
        scale = np.square(kept).sum(axis=1).mean()
        return any(
            not np.allclose(
                (made[shift:] * made[: len(made) - shift]).sum(axis=1),
                (kept[shift:] * kept[: len(kept) - shift]).sum(axis=1),
                rtol=0,
                atol=CONTENT_TOLERANCE * scale,
            )
            for shift in (0, 1)
        )

    def content_hash(self) -> str:
        """`embedding_hash` of the item embedding that the weights hold."""
        return embedding_hash(self._tensor("embedding.content"))

    def _tensor(self, name: str) -> np.ndarray:
        """One array of the weights; the others are not read."""
        try:
            with safe_open(self.folder / WEIGHTS, "np") as file:
                return file.get_tensor(name)
        except (SafetensorError, OSError) as error:
            raise RunError(
                f"{self.folder}: {WEIGHTS} has no readable {name} ({first_line(error)}): train "
                "the model again."
            ) from error


@dataclass(frozen=True)
class UnfinishedRun:
    """The folder of a run in training: its parameters, and the state after its last validation."""

    folder: Path
    config: dict[str, Any]

    @classmethod
    def begin(cls, runs: Path, dataset: Dataset, config: dict[str, Any]) -> "UnfinishedRun":
        """Its folder below `runs`: one left by a training begun exactly like this, or a new one.

        Exactly means the same parameters, data, library, versions and machine, so that going on
        ends as training again would. Raises RunError if a new one cannot be written.
        """
        config = config | {"dataset": describe(dataset), "source": _source_hash(), **provenance()}
        config = json.loads(json.dumps(config))  # as it is read back
        for folder in sorted(runs.glob("*-unfinished*")):
            with suppress(MMCTRError):
                left = cls.load(folder)
                # Without a lock and a state it is one that is just being begun.
                was_killed = (folder / LOCK).exists()
                if left.config == config and (left.saved() or was_killed) and left.is_free():
                    return left
        name = f"{_name(dataset, config)}-unfinished"
        with _new_folder(runs, name) as temporary:
            write_json(temporary / CONFIG, config)
            return cls(_move_to_free_name(temporary, runs / name), config)

    @classmethod
    def load(cls, folder: Path | str) -> "UnfinishedRun":
        """Read its parameters; RunError if the folder is missing, damaged or a finished run."""
        folder = Path(folder)
        if not (folder / CONFIG).is_file() or (folder / SUMMARY).is_file():
            raise RunError(
                f"{folder} is not an unfinished run: choose a folder that mmctr train has left "
                "below runs, with a name that ends in -unfinished."
            )
        return cls(folder, _read_json(folder / CONFIG, _Begun))

    def is_free(self) -> bool:
        """Whether no process trains it just now."""
        try:
            with alone(self.folder):
                return True
        except MMCTRError:
            return False

    def require_same(self, dataset: Dataset) -> None:
        """Raise RunError unless the dataset is the very one that training began with."""
        stated = self.config["dataset"]
        if stated["fingerprint"] != dataset.fingerprint:
            raise RunError(
                f"{self.folder} was trained on data with fingerprint {stated['fingerprint']}, but "
                f"{dataset.folder} has {dataset.fingerprint}: choose the run's own dataset, "
                f"{stated['folder']}."
            )

    def save(self, state: State) -> None:
        """Put this state in place of the last one, whole or not at all."""
        groups, values = state
        tensors = {
            f"{group}/{name}": tensor.contiguous()
            for group, named in groups.items()
            for name, tensor in named.items()
        }
        # One file, so that tensors and values are always of the same step.
        with atomic_path(self.folder / CHECKPOINT) as temporary:
            save_file(tensors, temporary, {"values": json.dumps(values)})

    def saved(self) -> State | None:
        """The last state; None if training was stopped before its first validation."""
        path = self.folder / CHECKPOINT
        if not path.is_file():
            return None
        groups: dict[str, dict[str, torch.Tensor]] = defaultdict(dict)
        try:
            with safe_open(path, "pt") as file:
                for key in file.keys():  # noqa: SIM118, the file is no mapping
                    group, _, name = key.partition("/")
                    # A copy is aligned as torch wants it, the file's own memory is not.
                    groups[group][name] = file.get_tensor(key).clone()
                return groups, json.loads(file.metadata()["values"])
        except (SafetensorError, OSError, ValueError, KeyError, TypeError) as error:
            raise RunError(
                f"{path} is damaged ({first_line(error)}): delete its folder and train again."
            ) from error

    @contextmanager
    def in_training(self) -> Iterator[None]:
        """Keep the folder for a block that trains and writes the run; delete it at its end.

        An interruption from the keyboard becomes a RunError that says how to go on. Raises
        MMCTRError if another process trains it.
        """
        self.load(self.folder)
        with alone(self.folder, "being trained by"):
            self.load(self.folder)  # another process may have finished it just before
            try:
                yield
            except KeyboardInterrupt:
                raise RunError(
                    f"Training was stopped and {self.folder} keeps it as of its last validation: "
                    f"go on with mmctr train --resume {shlex.quote(str(self.folder))}."
                ) from None
            except ConfigError:  # it has diverged, and would again
                shutil.rmtree(self.folder, ignore_errors=True)
                raise
            shutil.rmtree(self.folder, ignore_errors=True)


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
    name = _name(dataset, config)
    summary = {
        "date": datetime.now().astimezone().isoformat(timespec="seconds"),
        "dataset": describe(dataset),
        "config": config,
        "parameters": sum(weight.numel() for weight in model.parameters() if weight.requires_grad),
        **summary,
        **provenance(),
    }
    rows = dataset.valid
    predictions = pd.DataFrame(
        {"user": rows.user, "target": rows.target, "label": rows.label, "probability": probability}
    )
    with _new_folder(runs, name) as temporary:
        model.save_weights(temporary / WEIGHTS)
        predictions.to_parquet(temporary / PREDICTIONS, index=False)
        pd.DataFrame(records).to_json(temporary / HISTORY, orient="records", lines=True)
        write_json(temporary / CONFIG, config)
        write_json(temporary / SUMMARY, summary)
        os.sync()
        return Run.load(_move_to_free_name(temporary, runs / name))


def _name(dataset: Dataset, config: dict[str, Any]) -> str:
    strategy = re.sub(r"[^\w.-]", "-", config["strategy"])  # a column may have any name
    seed, now = config["training"]["seed"], datetime.now()
    return f"{dataset.name}-{strategy}-seed{seed}-{now:%Y%m%d-%H%M%S}"


@contextmanager
def _new_folder(runs: Path, name: str) -> Iterator[Path]:
    """Yield a temporary folder below `runs`, to be moved to its name; RunError if it cannot be."""
    temporary = None
    try:
        runs.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(dir=runs, prefix=f".{name}."))
        temporary.chmod(0o755)
        yield temporary
    except (OSError, SafetensorError) as error:
        reason = getattr(error, "strerror", None) or first_line(error)
        raise RunError(
            f"{runs / name} could not be written ({reason}): "
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
            "processor": _processor(),
            "cores": os.cpu_count(),
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


def _read_json(path: Path, form: type[_Group]) -> dict[str, Any]:
    """A JSON object with at least what `form` asks for, null read back as NaN where it was one."""
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise RunError(f"{path} is damaged ({error}): train the model again.") from error
    if not isinstance(value, dict):
        raise RunError(f"{path} holds no JSON object: train the model again.")
    missing = [name for name, field in form.model_fields.items() if field.is_required()]
    missing = [name for name in missing if name not in value]
    if missing:
        raise RunError(f"{path} has no {missing[0]!r}: train the model again.")
    return _checked(value, form, f"{path}")


def _checked(value: dict[str, Any], form: type[_Group], where: str) -> dict[str, Any]:
    try:
        return form(**value).model_dump(exclude_unset=True)
    except ValidationError as error:
        problem = error.errors()[0]
        place = ".".join(map(str, problem["loc"]))
        raise RunError(
            f"{where}, {place}: found {problem['input']!r:.60} ({problem['msg']}): train the model "
            "again."
        ) from None


def _read_history(path: Path) -> pd.DataFrame:
    try:
        lines = [line for line in path.read_text(encoding="utf-8").split("\n") if line.strip()]
        values = [dict(json.loads(line)) for line in lines]
    except (OSError, ValueError, TypeError, RecursionError) as error:
        raise RunError(
            f"{path} is damaged ({first_line(error)}): train the model again."
        ) from error
    if not values:
        raise RunError(f"{path} has no lines: train the model again.")
    where = (f"{path}, line {number}" for number in range(1, len(values) + 1))
    return pd.DataFrame(
        [_checked(value, _Record, place) for value, place in zip(values, where, strict=True)]
    )


def _read_predictions(path: Path) -> pd.DataFrame:
    try:
        columns = schema.read_columns(path, list(schema.PREDICTION_COLUMNS))
        table = columns.to_pandas()
        wrong = np.flatnonzero(~table["probability"].between(0, 1) | table.isna().any(axis=1))
        if len(wrong):
            row = table.iloc[wrong[0]].to_dict()
            raise DataError(f"row {wrong[0]}: found {row}, expected a probability from 0 to 1")
        return table
    except DataError as error:
        raise RunError(f"{path} is damaged ({error}): train the model again.") from error


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _processor() -> str | None:
    """The processor's name, where the system tells it."""
    try:
        facts = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    except OSError:
        return platform.processor() or None
    names = [line.split(":", 1)[1].strip() for line in facts.split("\n") if "model name" in line]
    return names[0] if names else None


def _source_hash() -> str:
    """A hash of the library's code, which a commit with changes does not tell."""
    root = Path(mmctr.__file__).parent
    digest = sha256()
    for path in sorted(root.rglob("*.py")):
        digest.update(f"{path.relative_to(root)}\0".encode() + path.read_bytes())
    return digest.hexdigest()


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
