"""What further fields cost in training: samples/s beside a dataset without any.

Usage: python -m benchmarks.fields [--before TREE] [--times 5]. TREE is a checkout of an earlier
build, which trains without fields. Every timing is a process of its own, and all take turns.
"""

import argparse
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from benchmarks import microlens_shape as shape
from benchmarks.speed import endless, speed
from mmctr.devices import tuned
from mmctr.model.config import DINConfig
from mmctr.model.din import DIN
from mmctr.training.batches import Batches
from mmctr.training.config import TrainConfig
from mmctr.training.optimizer import make_optimizer
from mmctr.training.trainer import update

ROWS, SECONDS = 100_000, 10.0
ITEM_VALUES, USER_VALUES, CONTEXT_VALUES = (5000, 16, 300), (60, 16), (10, 24, 7)  # eight fields
PLAIN, TIMES, FIELDS, BEFORE = "no fields", "levels by time", "8 fields", "build before"


def samples_per_second(system: str) -> float:
    """Training speed of the default model on data of the challenge's shape."""
    torch.manual_seed(1)
    catalog, rows, row_fields = shape.catalog(), shape.impressions(ROWS), ()
    random = np.random.default_rng(0)
    if system in (TIMES, FIELDS):
        rows = replace(rows, levels=random.integers(0, 11, (ROWS, 2)).astype(np.int8))
    if system == FIELDS:
        from mmctr.data.fields import Field

        def fields(owner: str, sizes: tuple[int, ...]) -> tuple[Field, ...]:
            words = [tuple(map(str, range(size))) for size in sizes]
            return tuple(Field(f"f{i}", owner, values) for i, values in enumerate(words))

        def codes(count: int, sizes: tuple[int, ...]) -> np.ndarray:
            return random.integers(0, np.array(sizes) + 1, (count, len(sizes))).astype(np.int32)

        row_fields = fields("user", USER_VALUES) + fields("context", CONTEXT_VALUES)
        rows = replace(rows, fields=codes(ROWS, USER_VALUES + CONTEXT_VALUES))
        own = codes(catalog.n_items + 1, ITEM_VALUES)
        catalog = replace(catalog, fields=fields("item", ITEM_VALUES), field_codes=own)
    further = [row_fields] if row_fields else []
    model = DIN.for_catalog(DINConfig(), catalog, shape.item_embedding(), *further)
    config, generator = TrainConfig(), torch.Generator().manual_seed(1)
    optimizer, batches = make_optimizer(model, config), Batches(rows, model)
    steps = endless(lambda _: batches.shuffled(config.batch_size, generator))

    def step() -> int:
        batch = next(steps)
        with tuned(model.device):
            update(model, optimizer, batch, config)
        return len(batch)

    return speed(step, SECONDS)


def main() -> None:
    """Time the systems in turn and print medians and ratios."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--before", type=Path)
    parser.add_argument("--times", type=int, default=5)
    parser.add_argument("--system", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.system:
        print(samples_per_second(given.system))
        return
    trees = {name: Path.cwd() for name in (PLAIN, TIMES, FIELDS)}
    trees |= {BEFORE: given.before.resolve()} if given.before else {}
    speeds: dict[str, list[float]] = {name: [] for name in trees}
    for _ in range(given.times):
        for name, tree in trees.items():
            # This file runs there too, with that tree's library.
            places = os.pathsep.join(map(str, (tree, Path.cwd())))
            command = [sys.executable, __file__, "--system", name]
            environment = os.environ | {"PYTHONPATH": places}
            done = subprocess.run(
                command, env=environment, cwd=tree, capture_output=True, text=True, check=True
            )
            speeds[name].append(float(done.stdout.split()[-1]))
            print(f"{name:<15} {speeds[name][-1]:>9,.0f} samples/s", flush=True)
    base = np.array(speeds[PLAIN])
    for name, values in speeds.items():
        ratio = np.median(np.array(values) / base)
        print(f"{name:<15} median {np.median(values):>9,.0f} samples/s, {ratio:.3f} of {PLAIN}")


if __name__ == "__main__":
    main()
