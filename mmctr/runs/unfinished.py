"""A run in training: the folder that keeps its last state, to go on from."""

import json
import shlex
import shutil
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from mmctr import parallel
from mmctr.data.dataset import Dataset
from mmctr.data.fields import Field
from mmctr.errors import ConfigError, MMCTRError, RunError, first_line
from mmctr.files import LOCK, alone, atomic_path, temporary_folder, write_json, writing
from mmctr.model.pretrained import CONFIG
from mmctr.runs.forms import SUMMARY, BegunForm, fields_in, read_json
from mmctr.runs.provenance import describe, provenance, require_same, source_hash
from mmctr.runs.writing import move_to_free_name, run_folder
from mmctr.training.progress import State

CHECKPOINT = "checkpoint.safetensors"  # of an unfinished run
OWN_CHECKPOINT = "checkpoint-{}-{}.safetensors"  # of a process, after so many samples


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
        config = config | {"dataset": describe(dataset), "source": source_hash(), **provenance()}
        config = json.loads(json.dumps(config))  # as it is read back
        for folder in sorted(runs.glob("*-unfinished*")):
            with suppress(MMCTRError):
                left = cls.load(folder)
                # Without a lock and a state it is one that is just being begun; or of several
                # processes, which end in an error when another one was killed.
                was_killed = (folder / LOCK).exists() or left.processes > 1
                if left.config == config and (left._state() or was_killed) and left.is_free():
                    return left
        folder = run_folder(runs, dataset, config)
        folder = folder.with_name(f"{folder.name}-unfinished")
        with writing(folder, kind=RunError), temporary_folder(folder) as temporary:
            write_json(temporary / CONFIG, config)
            return cls(move_to_free_name(temporary, folder), config)

    @classmethod
    def load(cls, folder: Path | str) -> "UnfinishedRun":
        """Read its parameters; RunError if the folder is missing, damaged or a finished run."""
        folder = Path(folder)
        if not (folder / CONFIG).is_file() or (folder / SUMMARY).is_file():
            raise RunError(
                f"{folder} is not an unfinished run: choose a folder that mmctr train has left "
                "below runs, with a name that ends in -unfinished."
            )
        return cls(folder, read_json(folder / CONFIG, BegunForm))

    @property
    def fields(self) -> tuple[Field, ...]:
        """The fields that it reads, with their vocabularies, for Dataset.load."""
        return fields_in(self.config, self.folder / CONFIG)

    @property
    def processes(self) -> int:
        """How many torchrun began it with; 1 without torchrun."""
        return self.config.get("processes", 1)

    @property
    def in_shards(self) -> bool:
        """Whether every process keeps a state of its own, with its share of the items' tables."""
        return self.processes > 1 and self.config["training"].get("shard_items", False)

    @property
    def going_on(self) -> str:
        """The command that resumes it."""
        by = f"torchrun --nproc-per-node {self.processes} -m " if self.processes > 1 else ""
        return f"{by}mmctr train --resume {shlex.quote(str(self.folder))}"

    def is_free(self) -> bool:
        """Whether no process trains it just now."""
        with suppress(MMCTRError), alone(self.folder):
            return True
        return False

    def require_same(self, dataset: Dataset) -> None:
        """Raise RunError for other data or another number of processes than it began with."""
        require_same(self.config["dataset"], dataset, self.folder)
        if self.processes != (found := parallel.share()[1]):
            raise RunError(
                f"{self.folder} was begun by {self.processes} processes, found {found}: go on with "
                f"{self.going_on}."
            )

    def save(self, state: State) -> None:
        """Put this state in place of the last one, whole or not at all; all processes call it."""
        number = parallel.share()[0]
        if not self.in_shards:
            if number == 0:
                _write(self.folder / CHECKPOINT, state)
            return
        before = self._own_states()
        _write(self.folder / OWN_CHECKPOINT.format(number, state[1]["samples"]), state)
        parallel.wait_for_all()  # until then the last states that all of them have are those before
        for path in before.values():
            path.unlink()

    def saved(self) -> State | None:
        """The last state; None if training was stopped before its first validation.

        All processes call it; the first one's holds for all, unless each has kept its own.
        """
        if not self.in_shards:
            return parallel.of_first(self._state)
        own = self._own_states()
        common = set.intersection(*map(set, parallel.gathered(list(own))))
        return self._state(own[max(common)]) if common else None

    def _own_states(self) -> dict[int, Path]:
        """The files of this process's states, by how many samples it had seen."""
        found = self.folder.glob(OWN_CHECKPOINT.format(parallel.share()[0], "*"))
        return {int(path.stem.split("-")[-1]): path for path in found}

    def _state(self, path: Path | None = None) -> State | None:
        """The state in a file, None without it: of the first process, if no other is named."""
        path = path or self.folder / CHECKPOINT
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
                    f"go on with {self.going_on}."
                ) from None
            except ConfigError:  # it has diverged, and would again
                shutil.rmtree(self.folder, ignore_errors=True)
                raise
            shutil.rmtree(self.folder, ignore_errors=True)


def _write(path: Path, state: State) -> None:
    """Write a state, whole or not at all."""
    groups, values = state
    tensors = {
        f"{group}/{name}": tensor.contiguous()
        for group, named in groups.items()
        for name, tensor in named.items()
    }
    # One file, so that tensors and values are always of the same step.
    with atomic_path(path) as temporary:
        save_file(tensors, temporary, {"values": json.dumps(values)})
