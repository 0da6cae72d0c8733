#!/usr/bin/env bash
# torch 2.15.0: RowwiseParallel shards the rows of an nn.Embedding over processes, but the gradient
# of its weight is the whole table, dense, in every one of them.
#
# Seen, two processes with gloo on CPUs, a table of 100,000 x 4 of which a batch names three rows:
# the weight has the placement Shard(dim=0) and 50,000 rows in each process, its gradient the
# placement Replicate() and 100,000 rows in each, although each of the three rows has one owner.
#
# Why one would guess otherwise: the style exists for tables that no device holds, the gradient of a
# row-sharded nn.Linear comes out as sharded as its weight (shown beside it), and so do Adam's
# moments. So tables with the size of a machine's memory fail in their first backward pass.
set -euo pipefail
place=$(mktemp -d)
trap 'rm -rf "$place"' EXIT
python3 -m venv "$place/venv"
"$place/venv/bin/pip" install --quiet torch==2.15.0 numpy
cat > "$place/look.py" <<'PYTHON'
import sys

import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor import Replicate, Shard
from torch.distributed.tensor.parallel import RowwiseParallel, parallelize_module

ROWS = 100_000


def look(rank, store):
    dist.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=2)
    mesh = init_device_mesh("cpu", (2,))
    seen = []
    for name, layer, given in (
        ("embedding", torch.nn.Embedding(ROWS, 4), torch.tensor([1, 5, ROWS - 1])),
        ("linear", torch.nn.Linear(ROWS, 4, bias=False), torch.ones(3, ROWS)),
    ):
        plan = {"0": RowwiseParallel(input_layouts=Replicate())}
        model = parallelize_module(torch.nn.Sequential(layer), mesh, plan)
        model(given).sum().backward()
        weight, gradient = model[0].weight, model[0].weight.grad
        for what, tensor in (("weight", weight), ("gradient", gradient)):
            here = tuple(tensor.to_local().shape)
            print(f"process {rank}, {name}, {what}: {tensor.placements[0]}, here {here}", flush=True)
            seen.append((tensor.placements[0], here))
    dist.destroy_process_group()
    half, whole = (ROWS // 2, 4), (ROWS, 4)
    sharded = (Shard(1), half[::-1])
    if seen != [(Shard(0), half), (Replicate(), whole), sharded, sharded]:
        sys.exit("This has changed.")


if __name__ == "__main__":
    mp.spawn(look, (sys.argv[1],), nprocs=2)
PYTHON
"$place/venv/bin/python" "$place/look.py" "$place/store" 2> "$place/errors" || {
    cat "$place/errors"
    exit 1
}
