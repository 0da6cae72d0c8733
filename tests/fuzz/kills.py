"""Trainings that are killed at a random moment, or run at once: none may lose or change a thing."""

import contextlib
import os
import shutil
import signal
import tempfile
import time
from functools import cache
from pathlib import Path

import numpy as np
import torch

from mmctr.data.dataset import Dataset
from mmctr.data.demo import write_demo
from mmctr.errors import MMCTRError
from mmctr.runs.run import Run
from mmctr.runs.train import train
from mmctr.runs.unfinished import UnfinishedRun
from mmctr.training.config import configs
from tests.forks import PROCESSES

SMALL = {"epochs": 3, "hidden": (16,), "embedding_dim": 8, "heads": 2, "batch_size": 64}
FILES = ("config.json", "model.safetensors", "predictions.parquet")


def training(data: Path, runs: Path) -> None:
    """What each process does: load the data and train, as `mmctr train` does."""
    torch.set_num_threads(1)
    with Path(os.devnull).open("w") as nowhere, contextlib.redirect_stderr(nowhere):
        train(Dataset.load(data), "v1", *configs(**SMALL), runs)


@cache
def base() -> tuple[Path, Run, float]:
    """A small dataset, the run of a training that nobody disturbed, and how long it took."""
    place = Path(tempfile.mkdtemp())
    data = write_demo(place / "data", seed=1, items=300, users=240)
    started(data, place / "warm").join()
    began = time.perf_counter()
    started(data, place / "runs").join()
    seconds = time.perf_counter() - began
    (folder,) = (place / "runs").iterdir()
    return data, Run.load(folder), seconds


def started(data: Path, runs: Path) -> PROCESSES.Process:
    """A process that trains."""
    process = PROCESSES.Process(target=training, args=(data, runs))
    process.start()
    return process


def killed(seed: int) -> int:
    """Train with one to three kills at random moments; how many of them hit a training."""
    data, whole, seconds = base()
    rng, hits = np.random.default_rng(seed), 0
    with tempfile.TemporaryDirectory() as place:
        runs = Path(place) / "runs"
        earlier = shutil.copytree(whole.folder, runs / "earlier")
        for _ in range(rng.integers(1, 4)):
            process = started(data, runs)
            process.join(rng.uniform(0, seconds))
            process.kill()
            process.join()
            hits += process.exitcode == -signal.SIGKILL
            require_same(Run.load(earlier), whole)
        process = started(data, runs)
        process.join()
        require_all_same(runs, process.exitcode, at_least=2)
    return hits


def at_once(seed: int) -> int:
    """Start two or three trainings within a moment, in one folder; how many there were."""
    data, _, seconds = base()
    rng = np.random.default_rng(seed)
    with tempfile.TemporaryDirectory() as place:
        runs, processes = Path(place) / "runs", []
        for _ in range(rng.integers(2, 4)):
            processes.append(started(data, runs))
            time.sleep(rng.choice([0, rng.uniform(0, seconds)]))
        for process in processes:
            process.join()
        status = max(abs(process.exitcode) for process in processes)
        require_all_same(runs, status, at_least=len(processes))
    return len(processes)


def require_all_same(runs: Path, status: int, at_least: int) -> None:
    """Every folder is a run like the undisturbed one, and nothing unfinished is left."""
    assert status == 0, f"a training ended with {status}"
    folders = [folder for folder in runs.iterdir() if not folder.name.startswith(".")]
    for folder in folders:
        require_same(Run.load(folder), base()[1])
    assert len(folders) >= at_least, folders
    for folder in folders:
        with contextlib.suppress(MMCTRError):
            raise AssertionError(f"{UnfinishedRun.load(folder).folder} is left")


def require_same(run: Run, whole: Run) -> None:
    """The very same weights, predictions and metrics."""
    for name in FILES:
        assert (run.folder / name).read_bytes() == (whole.folder / name).read_bytes(), name
    assert run.summary["metrics"] == whole.summary["metrics"]
    curves = [one.history.drop(columns="seconds") for one in (run, whole)]
    assert curves[0].equals(curves[1])
