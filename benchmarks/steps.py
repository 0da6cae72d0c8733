"""What each step of the way costs by the number of clicks, rows or items that it takes.

`python -m benchmarks.scaling --steps` measures and draws it, docs/scale.md tells it. A generated
log (benchmarks.importing) is imported, its dataset is loaded, trained on, predicted and aligned
(v5); erroneous entries are looked for in a generated catalog (benchmarks.errors), whose covers were
read before. Seconds are those of the processor, all cores together, so that other work on the
machine hardly counts; those of the clock stand beside them. An epoch and a prediction are measured
on a part of the rows, drawn from all of them, and multiplied: what grows is what a row costs.
"""

import re
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from threading import Event, Thread

import numpy as np
import torch

from benchmarks import importing
from benchmarks import microlens_shape as shape
from mmctr.content.fusion import embed
from mmctr.data.dataset import Dataset
from mmctr.data.impressions import Impressions
from mmctr.devices import peak_memory_mb, tuned
from mmctr.model.config import DINConfig
from mmctr.model.din import DIN
from mmctr.training.batches import Batches
from mmctr.training.config import TrainConfig
from mmctr.training.optimizer import make_optimizer
from mmctr.training.prediction import predict
from mmctr.training.trainer import update

CLICKS, LARGE_CLICKS = (1_000_000, 3_000_000, 10_000_000), 100_000_000
CATALOGS, LARGE_CATALOGS = (10_000, 30_000, 100_000), (300_000, 1_000_000)
BATCHES, WARM_UP, PREDICTED = 60, 3, 200_000
WIDTH = 128  # of features of text, and of the image


@dataclass(frozen=True)
class Cost:
    """What one process measured: how much there was, seconds of processors and clock, and GB.

    own_gb: the most that it held itself, without files that are mapped, which the system may take
    back; None of an import, which is measured from outside.
    """

    size: int
    seconds: float
    clock: float
    memory_gb: float
    own_gb: float | None = None


@dataclass
class Watch:
    """Seconds of the processor and of the clock that some work took, and its own peak memory."""

    processor: float = 0.0
    clock: float = 0.0
    own_gb: float = 0.0

    @contextmanager
    def running(self) -> Iterator[None]:
        """Count what a block takes."""
        ended = Event()
        looking = Thread(target=self._look, args=[ended])
        processor, clock = time.process_time(), time.perf_counter()
        looking.start()
        try:
            yield
            self.processor = time.process_time() - processor
            self.clock = time.perf_counter() - clock
        finally:
            ended.set()
            looking.join()

    def _look(self, ended: Event) -> None:
        is_last = False
        while not is_last:
            is_last = ended.wait(0.05)
            status = Path("/proc/self/status").read_text()
            now = int(re.search(r"RssAnon:\s*(\d+) kB", status)[1]) * 1024 / 1e9
            self.own_gb = max(self.own_gb, now)

    def cost(self, size: int, times: float = 1) -> Cost:
        """Of so much, by what was measured of a part."""
        memory = peak_memory_mb(torch.device("cpu")) / 1000
        return Cost(size, times * self.processor, times * self.clock, memory, self.own_gb)


def load(folder: Path) -> Cost:
    """The first load: reading, validating and writing the cache."""
    watch = Watch()
    with watch.running():
        rows = sum(map(len, Dataset.load(folder).splits.values()))
    return watch.cost(rows)


def epoch(folder: Path) -> Cost:
    """An epoch of training by BATCHES batches of it."""
    rows, model = _of(folder)
    config, batches, watch = TrainConfig(), Batches(rows, model), Watch()
    optimizer = make_optimizer(model, config)
    shuffled = batches.shuffled(config.batch_size, torch.Generator().manual_seed(1))
    samples = 0
    with tuned(model.device):
        for batch in islice(shuffled, WARM_UP):
            update(model, optimizer, batch, config)
        with watch.running():
            for batch in islice(shuffled, BATCHES):
                update(model, optimizer, batch, config)
                samples += len(batch.target)
    return watch.cost(len(rows), len(rows) / samples)


def prediction(folder: Path) -> Cost:
    """Prediction of as many rows as train has, by PREDICTED of them in runs from all of it."""
    rows, model = _of(folder)
    runs = np.linspace(0, len(rows) - 1000, PREDICTED // 1000).astype(np.int64)
    some, watch = rows.select((runs[:, None] + np.arange(1000)).flatten()), Watch()
    predict(model, rows.select(slice(10_000)))
    with watch.running():
        predict(model, some)
    return watch.cost(len(rows), len(rows) / len(some))


def alignment(folder: Path) -> Cost:
    """Fitting v5 to all clicks of train, on random features."""
    dataset, watch = Dataset.load(folder), Watch()
    text, image = (shape.item_embedding(dataset.catalog.n_items, WIDTH, seed) for seed in (0, 1))
    catalog = replace(dataset.catalog, text_features=text, image_features=image)
    clicks = dataset.clicks
    with watch.running():
        embed(catalog, "v5", clicks=clicks)
    return watch.cost(len(clicks))


def errors(items: int) -> Cost:
    """Looking for every kind of error in a catalog whose covers were read before."""
    from benchmarks.errors import evidence_of
    from mmctr.content.errors import KINDS

    evidence, users = evidence_of(items)
    watch = Watch()
    with watch.running():
        for kind in KINDS:
            kind.score(users if kind.what == "user" else evidence)
    return watch.cost(items)


def _of(folder: Path) -> tuple[Impressions, DIN]:
    """The rows of train and a model with random item embeddings."""
    torch.manual_seed(1)
    dataset = Dataset.load(folder)
    embedding = shape.item_embedding(dataset.catalog.n_items)
    return dataset.train, DIN.for_dataset(DINConfig(), dataset, embedding)


STEPS: dict[str, Callable[[Path], Cost]] = {
    "first load, rows": load,
    "training an epoch, rows": epoch,
    "prediction, rows": prediction,
    "fitting v5, clicks": alignment,
}
IMPORT, ERRORS = "import, clicks", "erroneous entries, items"
NAMES = (IMPORT, *STEPS, ERRORS)


def measured(
    alone: Callable[..., Cost], part: int = 1, large: bool = False
) -> Iterator[tuple[str, Cost]]:
    """The name of a step and what it cost, one after another; sizes are divided by `part`.

    alone: calls a function in a new process.
    """
    for count in (*CATALOGS, *LARGE_CATALOGS) if large else CATALOGS:
        yield ERRORS, alone(errors, count // part)
    for count in (*CLICKS, LARGE_CLICKS) if large else CLICKS:
        with tempfile.TemporaryDirectory() as name:
            place = Path(name)
            log, items = place / "log.parquet", place / "items.parquet"
            importing.write_log(log, count // part)
            importing.write_items(items)
            told = importing.imported(importing.HERE, log, items, place / "dataset", [])
            log.unlink()
            yield IMPORT, Cost(count // part, *told)
            for step, function in STEPS.items():
                yield step, alone(function, place / "dataset")
