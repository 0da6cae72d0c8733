"""What training has seen so far: a state to go on from, and where the time went."""

import time
from collections import defaultdict
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.optim.lr_scheduler import ReduceLROnPlateau

from mmctr import parallel
from mmctr.devices import peak_memory_mb
from mmctr.model.din import DIN
from mmctr.training.optimizer import WeightAverage

RESUMED = ("epoch", "step", "samples", "records", "best_auc", "since_best")  # of Progress
State = tuple[dict[str, dict[str, Tensor]], dict[str, Any]]  # tensors by group, and values
PARTS = ("data", "forward", "backward", "optimizer", "validation")


class Checkpoint(Protocol):
    """Where training keeps its last state, to be gone on with: the folder of an unfinished run."""

    folder: Path

    def saved(self) -> State | None:
        """The last state, if there is one; all processes call it."""

    def save(self, state: State) -> None:
        """Put this state in its place; all processes call it."""


class Stopwatch:
    """Adds up where the time of training goes: seconds by part; on a GPU without waiting for it."""

    def __init__(self, device: torch.device) -> None:
        self.on_gpu = device.type == "cuda"
        self.seconds: dict[str, float] = defaultdict(float)
        self.marks: list[tuple[str, Any]] = []  # when each lap ended: seconds, or an event
        self.lap("start")

    def lap(self, part: str) -> None:
        """The time since the last lap went into this part."""
        now = torch.cuda.Event(enable_timing=True) if self.on_gpu else time.perf_counter()
        if self.on_gpu:
            now.record()
        self.marks.append((part, now))

    def settle(self) -> None:
        """Add up the laps; on a GPU wait until they are over."""
        if self.on_gpu:
            torch.cuda.synchronize()
        for (_, before), (part, now) in pairwise(self.marks):
            self.seconds[part] += before.elapsed_time(now) / 1000 if self.on_gpu else now - before
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

    @property
    def best_epoch(self) -> float:
        """When the best weights were reached, in epochs."""
        return max(self.records, key=lambda record: record["auc"])["epoch"]

    def state(self, model: DIN) -> State:
        """All that the next steps depend on, right after a validation; all processes call it."""
        optimizer, weights = self.plateau.optimizer, model.state_dict()
        random = {"cpu": torch.get_rng_state()}
        if model.device.type == "cuda":
            random["cuda"] = torch.cuda.get_rng_state()
        # Each process draws its own; all else is alike in all of them.
        groups = {
            "weights": {name: weights[name] for name in self.best_weights},
            "best": self.best_weights,
            "average": self.average.average,
            "shuffling": {"state": self.shuffling},
            **{f"random {rank}": own for rank, own in enumerate(parallel.gathered(random))},
        }
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
        self.shuffling = groups["shuffling"]["state"]
        random = groups[f"random {parallel.share()[0]}"]
        torch.set_rng_state(random["cpu"])
        if device.type == "cuda" and "cuda" in random:
            torch.cuda.set_rng_state(random["cuda"])

    def cost(self, device: torch.device) -> dict[str, object]:
        """Training speed without validation, seconds by part, and peak memory."""
        self.stopwatch.settle()
        seconds = {part: round(self.stopwatch.seconds[part], 3) for part in PARTS}
        training = sum(seconds.values()) - seconds["validation"]
        return {
            "samples_per_s": round(self.samples / training, 1),
            "seconds": seconds,
            "peak_memory_mb": round(peak_memory_mb(device), 1),
        }
