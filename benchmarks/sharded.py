"""Training with tables of items that processes share: memory of each, and seconds a step.

Usage: torchrun --nproc-per-node 2 -m benchmarks.sharded --items 50000000. Without torchrun one
process holds everything, to be compared with. Generated rows of the challenge's shape, the default
model without content, row updates: of each item 32 weights and as many of both of Adam's moments.
"""

import argparse
import sys
import time

import numpy as np
import torch

from benchmarks import microlens_shape as shape
from benchmarks.speed import table
from mmctr import parallel
from mmctr.devices import peak_memory_mb, tuned
from mmctr.model.config import DINConfig
from mmctr.model.din import DIN
from mmctr.model.sharded import Shard
from mmctr.training.batches import Batches
from mmctr.training.config import TrainConfig
from mmctr.training.optimizer import make_optimizer
from mmctr.training.trainer import update

ROWS, WARM_UP = 2**17, 3


def measure(items: int, steps: int) -> list[str]:
    """A row of the table: what this process holds, and its part of some steps."""
    torch.manual_seed(1)
    config, before = TrainConfig(row_updates=True), peak_memory_mb(torch.device("cpu"))
    sizes = {"n_items": items, "tags_per_item": 1, "n_tags": shape.TAGS, "content_width": None}
    model = DIN.of_sizes(DINConfig(), **sizes, shard=Shard.here(items))
    optimizer = make_optimizer(model, config)
    together = parallel.distribute(model, own=model.sharded)
    batches = Batches(shape.impressions(ROWS, items), model, parallel.share())
    generator = torch.Generator().manual_seed(1)
    stream = batches.shuffled(config.batch_size, generator)
    seconds = []
    with tuned(model.device):
        for _ in range(WARM_UP + steps):
            start = time.perf_counter()
            update(together, optimizer, next(stream), config)
            seconds.append(time.perf_counter() - start)
    weight = model.embedding.id.weight
    held = [weight, *(optimizer.state[weight][name] for name in ("exp_avg", "exp_avg_sq"))]
    return [
        f"{parallel.share()[0]} of {parallel.share()[1]}",
        f"{len(weight) - 1:,} of {items:,}",
        f"{sum(one.nbytes for one in held) / 1e9:.2f}",
        f"{before / 1e3:.2f}",
        f"{peak_memory_mb(model.device) / 1e3:.2f}",
        f"{1000 * np.median(seconds[WARM_UP:]):.0f}",
    ]


def main() -> None:
    """Run the benchmark from the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--items", type=int, default=50_000_000)
    parser.add_argument("--steps", type=int, default=50)
    words = parser.parse_args()
    with parallel.joined():
        rows = parallel.gathered(measure(words.items, words.steps))
        is_first = parallel.share()[0] == 0
    if is_first:
        heads = ["process", "its items", "tables, GB", "memory before, GB", "peak, GB", "ms a step"]
        print("\n".join(table([heads, *rows])))
    if len(rows) > 1:
        parallel.leave(0)


if __name__ == "__main__":
    sys.exit(main())
