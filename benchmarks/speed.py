"""Speed, memory and AUC of mmctr beside FuxiCTR's DIN, in one run on the same arrays.

Usage: python -m benchmarks.speed [--quick]; `make bench` installs FuxiCTR first. Prints a table and
writes benchmarks/last.json. Every system lives in a process of its own, one works at a time, and
all take turns within each round, so that whatever else the machine does meets all of them alike.
"""

import argparse
import os
import platform
import sys
import tempfile
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from datetime import datetime
from functools import partial
from importlib.metadata import version
from importlib.util import find_spec
from itertools import count, cycle, product
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tqdm.auto import tqdm

from benchmarks import microlens_shape as shape
from mmctr.content.fusion import item_embeddings
from mmctr.data.catalog import Catalog
from mmctr.data.dataset import Dataset
from mmctr.data.impressions import Impressions
from mmctr.devices import peak_memory_mb, tuned
from mmctr.errors import ConfigError, MMCTRError
from mmctr.files import write_json
from mmctr.model.config import DINConfig
from mmctr.model.din import DIN
from mmctr.training.batches import Batches
from mmctr.training.config import TrainConfig
from mmctr.training.metrics import auc, bootstrap_auc, interval
from mmctr.training.optimizer import make_optimizer
from mmctr.training.prediction import Scorer, predict
from mmctr.training.trainer import fit, update

RESULT = Path(__file__).with_name("last.json")
FUXICTR, SAME, DEFAULT = "FuxiCTR DIN", "mmctr, same DIN", "mmctr, default v4"
TASKS, ROUNDS = ("train", "predict"), 5
CANDIDATES, HISTORIES, WARM_UP = 1000, (9, 64), 20
DEMO_BATCH = 1024  # one epoch of the demo has too few batches of 8,192 to learn from


@dataclass(frozen=True)
class Plan:
    """How much is measured: batch is that of FuxiCTR and of the same DIN."""

    batch: int = 8192
    rows: int = 400_000
    seconds: float = 10.0  # of each timing, which takes one step at least
    requests: int = 200
    demo_items: int = 3000
    demo_users: int = 8000


QUICK = Plan(batch=1024, rows=100_000, seconds=0.4, demo_items=1000, demo_users=1000)


class System(ABC):
    """A model with its data, and what is measured of it."""

    @abstractmethod
    def train_step(self) -> int:
        """Cut the next batch and train on it; returns its rows."""

    @abstractmethod
    def predict_step(self) -> int:
        """Score the next part of the rows; returns how many they are."""

    @abstractmethod
    def one_epoch(self, dataset: Dataset, item_embedding: np.ndarray) -> np.ndarray:
        """Click probabilities of the valid split by a new model, trained for one epoch."""

    def train(self, seconds: float) -> float:
        """Training samples a second."""
        return speed(self.train_step, seconds)

    def predict(self, seconds: float) -> float:
        """Predicted samples a second."""
        return speed(self.predict_step, seconds)

    def cost(self) -> dict[str, float]:
        """Peak memory of this process so far, and the number of learned parameters."""
        learned = [weight.numel() for weight in self.model.parameters() if weight.requires_grad]
        memory = peak_memory_mb(torch.device("cpu"))
        return {"peak_memory_mb": round(memory), "parameters": sum(learned)}

    def quality(self, folder: Path) -> dict[str, Any]:
        """AUC after one epoch on a dataset, with its 95% interval over users."""
        dataset = Dataset.load(folder)
        probability = self.one_epoch(dataset, item_embeddings(dataset, "v4"))
        rows = dataset.valid
        draws = bootstrap_auc(rows.user, rows.label, probability)[:, 0]
        return {"auc": auc(rows.label, probability), "auc_interval": interval(draws)}


class FuxiCTR(System):
    """The official baseline."""

    def __init__(self, plan: Plan) -> None:
        # Imported here, so that no other system's memory holds FuxiCTR.
        from benchmarks import fuxictr_din

        self.din = fuxictr_din
        catalog, embedding = shape.catalog(), shape.item_embedding()
        self.model = self._new_model(catalog, embedding)
        self.padded = self.din.PaddedBatches(shape.impressions(plan.rows), catalog, embedding)
        self.batches = endless(partial(self.padded.shuffled, plan.batch))
        self.parts = parts(self.padded.rows, plan.batch)

    def train_step(self) -> int:
        batch = next(self.batches)
        self.model.train_step(batch)
        return len(batch["label"])

    def predict_step(self) -> int:
        part = replace(self.padded, rows=next(self.parts))
        return len(self.din.predict(self.model, part))

    def one_epoch(self, dataset: Dataset, item_embedding: np.ndarray) -> np.ndarray:
        catalog = dataset.catalog
        model = self._new_model(catalog, item_embedding)
        padded = self.din.PaddedBatches(dataset.train, catalog, item_embedding)
        steps = -(-len(dataset.train) // DEMO_BATCH)
        for batch in tqdm(padded.shuffled(DEMO_BATCH, seed=1), desc="train", total=steps):
            model.train_step(batch)
        return self.din.predict(model, replace(padded, rows=dataset.valid))

    def _new_model(self, catalog: Catalog, item_embedding: np.ndarray) -> torch.nn.Module:
        torch.manual_seed(1)
        return self.din.build(catalog, item_embedding.shape[1])


class MMCTR(System):
    """This library, with a configuration."""

    def __init__(self, plan: Plan, model_config: DINConfig, train_config: TrainConfig) -> None:
        self.model_config, self.train_config = model_config, train_config
        self.model = self._new_model(shape.catalog(), shape.item_embedding())
        self.optimizer = make_optimizer(self.model, train_config)
        rows, generator = shape.impressions(plan.rows), torch.Generator().manual_seed(1)
        batches = Batches(rows, self.model)
        self.batches = endless(lambda _: batches.shuffled(train_config.batch_size, generator))
        self.parts = parts(rows, 16_384)

    def train_step(self) -> int:
        batch = next(self.batches)
        with tuned(self.model.device):
            update(self.model, self.optimizer, batch, self.train_config)
        return len(batch)

    def predict_step(self) -> int:
        return len(predict(self.model, next(self.parts)))

    def one_epoch(self, dataset: Dataset, item_embedding: np.ndarray) -> np.ndarray:
        model = self._new_model(dataset.catalog, item_embedding)
        once = {"epochs": 1, "validations": 1, "batch_size": DEMO_BATCH}
        fit(model, dataset, self.train_config.model_copy(update=once))
        return predict(model, dataset.valid)

    def _new_model(self, catalog: Catalog, item_embedding: np.ndarray) -> DIN:
        torch.manual_seed(1)
        return DIN.for_catalog(self.model_config, catalog, item_embedding)


def speed(step: Callable[[], int], seconds: float) -> float:
    """Samples a second of a step that returns its samples, repeated for about some seconds.

    The first step is not timed: while the others had their turn, the system may have taken this
    process's memory away, which would cost most the one that uses most.
    """
    step()
    start, samples = time.perf_counter(), 0
    while time.perf_counter() - start < seconds:
        samples += step()
    return samples / (time.perf_counter() - start)


def endless(epoch: Callable[[int], Iterator[Any]]) -> Iterator[Any]:
    """The batches of one epoch after another."""
    for number in count():
        yield from epoch(number)


def parts(rows: Impressions, size: int) -> Iterator[Impressions]:
    """Whole parts of so many neighbouring rows, again and again."""
    starts = range(0, len(rows) - size + 1, size)
    return cycle([rows.select(slice(start, start + size)) for start in starts])


def latency(clicks: int, precision: str, compiled: bool, requests: int) -> dict[str, float]:
    """Milliseconds of scoring the candidates for one user with so many clicks, on one thread."""
    torch.set_num_threads(1)
    model = DIN.for_catalog(DINConfig(), shape.catalog(), shape.item_embedding()).eval()
    random, score = np.random.default_rng(0), Scorer(model, precision, compiled)
    users = [candidates(random, clicks) for _ in range(WARM_UP + requests)]
    times = [milliseconds(partial(score, *user)) for user in users]
    p50, p99 = np.percentile(times[WARM_UP:], [50, 99]).round(2)
    return {"p50_ms": float(p50), "p99_ms": float(p99)}


def candidates(random: np.random.Generator, clicks: int) -> tuple[np.ndarray, np.ndarray]:
    """The history of a user and items to score, all at random."""
    sizes = clicks, CANDIDATES
    return tuple(random.integers(1, shape.ITEMS + 1, size, dtype=np.int32) for size in sizes)


def milliseconds(call: Callable[[], object]) -> float:
    """How long a call takes."""
    start = time.perf_counter()
    call()
    return 1000 * (time.perf_counter() - start)


class Worker:
    """A system in a process of its own, which does one thing at a time, when it is told to."""

    def __init__(self, system: type[System], *arguments: object) -> None:
        # Not "spawn": Linux counts the memory of a process that starts another one as the other's.
        context = get_context("forkserver")
        self.process = ProcessPoolExecutor(1, context, _make, (system, *arguments))

    def __call__(self, task: str, *arguments: object) -> Any:
        """The result of a method of the system; MMCTRError if its process has died."""
        try:
            return self.process.submit(_do, task, *arguments).result()
        except BrokenProcessPool as error:
            raise MMCTRError(
                f"A process ended before it had done its {task!r}, most likely for want of memory: "
                "use a machine with more of it, or smaller batches with QUICK=1 (--quick)."
            ) from error


_systems: list[System] = []  # the one of this worker process


def _make(system: type[System], *arguments: object) -> None:
    _systems.append(system(*arguments))


def _do(task: str, *arguments: object) -> Any:
    return getattr(_systems[0], task)(*arguments)


def start_workers(plan: Plan) -> dict[str, Worker]:
    """The systems to compare, FuxiCTR's first."""
    from benchmarks import fuxictr_din as din

    same = din.TRAINING.model_copy(update={"batch_size": plan.batch})
    return {
        FUXICTR: Worker(FuxiCTR, plan),
        SAME: Worker(MMCTR, plan, din.MODEL, same),
        DEFAULT: Worker(MMCTR, plan, DINConfig(), TrainConfig()),
    }


def measure(plan: Plan) -> dict[str, Any]:
    """All that is measured, by system, and the latency."""
    # It draws covers, for which a machine that has PyTorch alone has nothing (benchmarks.gpu).
    from mmctr.data.demo import write_demo

    workers = start_workers(plan)
    speeds = {name: {task: [] for task in TASKS} for name in workers}
    for _, task, name in tqdm([*product(range(ROUNDS), TASKS, workers)], desc="speed"):
        speeds[name][task].append(workers[name](task, plan.seconds))
    systems = {
        name: compared(speeds[name], speeds[FUXICTR]) | worker("cost")
        for name, worker in workers.items()
    }
    with tempfile.TemporaryDirectory() as name:
        demo = Path(name) / "demo"
        write_demo(demo, items=plan.demo_items, users=plan.demo_users)
        for name, worker in workers.items():
            systems[name] |= worker("quality", demo)
    for worker in workers.values():
        worker.process.shutdown()
    return {"systems": systems, "latency": latencies(plan.requests)}


def latencies(requests: int) -> dict[str, dict[str, float]]:
    """`latency` by clicks, precision and compilation, each in a process of its own, as a server.

    Compiled only where there is a compiler.
    """
    context, found = get_context("forkserver"), {}
    ways = [("float32", False), ("bfloat16", False), ("bfloat16", True)]
    with ProcessPoolExecutor(1, context, max_tasks_per_child=1) as processes:
        for clicks, (precision, compiled) in product(HISTORIES, ways):
            task = processes.submit(latency, clicks, precision, compiled, requests)
            with suppress(ConfigError):
                name = f"{clicks} clicks, {precision}{', compiled' if compiled else ''}"
                found[name] = task.result()
    return found


def compared(own: dict[str, list[float]], base: dict[str, list[float]]) -> dict[str, Any]:
    """Medians over the rounds: of each speed, and of its ratio to the base's in the same round."""
    result: dict[str, Any] = {"rounds": own}
    for task in TASKS:
        result[f"{task}_samples_per_s"] = round(float(np.median(own[task])), 1)
        result[f"{task}_ratio"] = round(float(np.median(np.divide(own[task], base[task]))), 2)
    return result


def machine() -> dict[str, Any]:
    """Processor, cores, threads, and the versions that matter."""
    information = Path("/proc/cpuinfo")
    lines = information.read_text().splitlines() if information.exists() else []
    models = [line.split(":")[1].strip() for line in lines if line.startswith("model name")]
    return {
        "cpu": models[0] if models else platform.processor() or platform.machine(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "versions": {name: version(name) for name in ("torch", "fuxictr", "mmctr")},
    }


def report(result: dict[str, Any], plan: Plan) -> str:
    """The result as text."""
    about, versions = result["machine"], result["machine"]["versions"]
    header = ["", "training", "", "prediction", "", "peak memory", "parameters", "AUC, 1 epoch"]
    units = ["", "samples/s", "ratio", "samples/s", "ratio", "MB", "", "simulated demo"]
    lines = [
        f"{about['cpu']}, {about['cores']} cores, {about['threads']} threads; "
        + ", ".join(f"{name} {number}" for name, number in versions.items()),
        f"Generated data: {shape.ITEMS:,} items, {plan.rows:,} rows, on average 9 clicks to a "
        "history, the latest 64 read.",
        f"Training batches: {plan.batch:,} of {FUXICTR} and the same DIN"
        f"{' (quick: 8,192 in full)' if plan == QUICK else ''}, "
        f"{TrainConfig().batch_size:,} of the default.",
        f"Speeds and ratios are medians of {ROUNDS} rounds in which the systems take turns; "
        f"ratios are to {FUXICTR}.",
        "Peak memory is that of a system's whole process, Python and PyTorch included.",
        "",
        *table([header, units, *(cells(name, of) for name, of in result["systems"].items())]),
        "",
        f"AUC of valid after one epoch with batches of {DEMO_BATCH:,} and its 95% interval over "
        f"users, on SIMULATED demo data ({plan.demo_users:,} users).",
    ]
    for clicks, times in result["latency"].items():
        lines.append(
            f"{DEFAULT}: {CANDIDATES:,} candidates for a user with {clicks}, one thread: "
            f"p50 {times['p50_ms']:.1f} ms, p99 {times['p99_ms']:.1f} ms."
        )
    return "\n".join(lines)


def cells(name: str, of: dict[str, Any]) -> list[str]:
    """A system's row of the table."""
    low, high = of["auc_interval"]
    speeds = [(of[f"{task}_samples_per_s"], of[f"{task}_ratio"]) for task in TASKS]
    return [
        name,
        *(text for rate, ratio in speeds for text in (f"{rate:,.0f}", f"{ratio:.2f} x")),
        f"{of['peak_memory_mb']:,}",
        f"{of['parameters']:,}",
        f"{of['auc']:.4f} [{low:.4f}, {high:.4f}]",
    ]


def table(rows: list[list[str]]) -> list[str]:
    """Lines with the first column to the left and all others to the right."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "  ".join(
            cell.rjust(width) if place else cell.ljust(width)
            for place, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        for row in rows
    ]


def run(plan: Plan) -> str:
    """Measure, write the result as JSON and return it as text; MMCTRError without FuxiCTR."""
    if not find_spec("fuxictr"):
        raise MMCTRError(
            "fuxictr is not installed, to which this benchmark compares: run make bench, which "
            "installs it, or pip install 'mmctr[bench]'."
        )
    result = {
        "date": datetime.now().astimezone().isoformat(timespec="seconds"),
        "quick": plan == QUICK,
        "plan": asdict(plan),
        "machine": machine(),
        **measure(plan),
    }
    write_json(RESULT, result)
    return report(result, plan)


def main() -> None:
    """Run the benchmark from the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="a first look, within 3 minutes")
    plan = QUICK if parser.parse_args().quick else Plan()
    try:
        print(run(plan))
    except MMCTRError as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main()
