"""An epoch on a GPU, beside what its card can do and beside FuxiCTR's DIN: about five minutes.

Usage: python -m benchmarks.gpu [--tiny]. Prints a table and writes benchmarks/last-gpu.json. --tiny
tries the script itself, with a thousandth of the rows, on the CPU where there is no GPU.

An epoch of generated data of the challenge's shape: 3.6 million rows, 9 clicks to a history,
batches of 8,192, valid scored four times, the copy of the data to the card included. FLOP are those
of a step's matrix products; bytes are what its operations read and write, as if no cache held
anything between them, so that they may come to more than the memory has. The card's own rates are
those of a large copy and of large products, measured in the same call. Where FuxiCTR is installed
(make bench installs it) its DIN trains for some seconds, from which its epoch is reckoned.
"""

import argparse
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map
from torch.utils.flop_counter import FlopCounterMode

from benchmarks import microlens_shape as shape
from benchmarks.speed import endless, speed, table
from mmctr.data.catalog import Catalog
from mmctr.data.dataset import Dataset
from mmctr.devices import find_device, peak_memory_mb, tuned
from mmctr.errors import MMCTRError
from mmctr.files import write_json
from mmctr.model.config import DINConfig
from mmctr.model.din import DIN
from mmctr.training.batches import Batches
from mmctr.training.config import TrainConfig, configs
from mmctr.training.optimizer import make_optimizer
from mmctr.training.trainer import fit, update

RESULT = Path(__file__).with_name("last-gpu.json")
# Of a table that these read or change only the rows that they name move.
ROWS_ONLY = ("index", "gather", "scatter", "embedding", "_embedding_bag")


@dataclass(frozen=True)
class Plan:
    """How much is measured."""

    rows: int = 3_600_000
    valid_rows: int = 10_000
    items: int = shape.ITEMS
    batch: int = 8192
    seconds: float = 20.0  # of training the DINs that do not train for an epoch
    copied: int = 1 << 30  # bytes of the copy that tells the memory's rate
    side: int = 8192  # of the matrices whose product tells the rate of arithmetic


TINY = Plan(3600, 200, 500, batch=256, seconds=0.2, copied=1 << 20, side=128)


class Traffic(TorchDispatchMode):
    """Counts the bytes that operations read and write, views aside."""

    def __init__(self) -> None:
        super().__init__()
        self.bytes = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        """Do what was asked for, and count it."""
        result = func(*args, **(kwargs or {}))
        self.bytes += moved(func, args, kwargs or {}, result)
        return result


def moved(func: torch._ops.OpOverload, args: tuple, kwargs: dict[str, Any], result: object) -> int:
    """Bytes that an operation reads and writes: all it is given, all it makes, all it changes."""
    names = [argument.name for argument in func._schema.arguments]
    given = dict(zip(names, args, strict=False)) | kwargs
    writes = [argument.name for argument in func._schema.arguments if _is_written(argument)]
    places = {one.untyped_storage().data_ptr() for one in _tensors(given)}
    made = [one for one in _tensors(result) if one.untyped_storage().data_ptr() not in places]
    if not made and not writes:
        return 0  # a view
    if func._schema.name.removeprefix("aten::").startswith(ROWS_ONLY):
        return 2 * _size([_tensors(list(given.values())[1:]), made])
    return _size([given, made, [given.get(name) for name in writes]])


def card(plan: Plan, device: torch.device) -> dict[str, Any]:
    """What the device is, and its rates in a large copy and in large products."""
    source = torch.empty(plan.copied, dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    found = {
        "name": torch.cuda.get_device_name(device) if device.type == "cuda" else "the CPU",
        "torch": torch.__version__,
        "bytes_per_s": 2 * plan.copied / seconds(partial(target.copy_, source), device),
    }
    for kind in (torch.bfloat16, torch.float32):
        matrix = torch.randn(plan.side, plan.side, device=device, dtype=kind)
        took = seconds(partial(torch.mm, matrix, matrix), device)
        found[f"{str(kind).removeprefix('torch.')}_flop_per_s"] = 2 * plan.side**3 / took
    return found


def seconds(call: Callable[[], object], device: torch.device, times: int = 10) -> float:
    """How long a call takes, the first one aside."""
    call()
    wait(device)
    start = time.perf_counter()
    for _ in range(times):
        call()
    wait(device)
    return (time.perf_counter() - start) / times


def wait(device: torch.device) -> None:
    """Until the device has done all that it was told."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def epoch(plan: Plan, catalog: Catalog, device: torch.device) -> dict[str, Any]:
    """An epoch of the default: seconds by the clock and by part, and what its steps need."""
    config = TrainConfig(batch_size=plan.batch, epochs=1, patience=1000, fresh_negatives=False)
    train = shape.impressions(plan.rows, plan.items)
    valid = shape.impressions(plan.valid_rows, plan.items, seed=1)
    some = train.select(slice(0, 8 * plan.batch))
    # What is compiled or chosen at first is no part of an epoch.
    fit(_model(plan, DINConfig(), catalog, device), _dataset(catalog, some, valid), config)
    model = _model(plan, DINConfig(), catalog, device)
    wait(device)
    start = time.perf_counter()
    progress = fit(model, _dataset(catalog, train, valid), config)
    wait(device)
    took = time.perf_counter() - start
    steps = -(-plan.rows // plan.batch)
    flop, moves = step_needs(model, Batches(some, model), config)
    training = took - progress.stopwatch.seconds["validation"]
    return {
        "seconds": took,
        "parts": dict(progress.stopwatch.seconds),
        "validations": len(progress.records),
        "samples_per_s": plan.rows / took,
        "steps": steps,
        "flop_per_s": flop * steps / training,
        "bytes_per_s": moves * steps / training,
        "peak_memory_mb": peak_memory_mb(device),
    }


def step_needs(model: DIN, batches: Batches, config: TrainConfig) -> tuple[int, int]:
    """FLOP of the matrix products of a step, and the bytes that it reads and writes."""
    optimizer = make_optimizer(model, config)
    cut = batches.shuffled(config.batch_size, torch.Generator().manual_seed(1))
    update(model, optimizer, next(cut), config)  # the optimizer's state is made at the first
    with FlopCounterMode(display=False) as products:
        update(model, optimizer, next(cut), config)
    with Traffic() as traffic:
        update(model, optimizer, next(cut), config)
    return products.get_total_flops(), traffic.bytes


def same_din(plan: Plan, catalog: Catalog, device: torch.device) -> float:
    """Training samples/s of the official baseline's DIN, by mmctr."""
    model_config, train_config = configs("din", batch_size=plan.batch)
    model = _model(plan, model_config, catalog, device)
    optimizer, generator = make_optimizer(model, train_config), torch.Generator().manual_seed(1)
    batches = Batches(shape.impressions(100 * plan.batch, plan.items), model)
    cut = endless(lambda _: batches.shuffled(plan.batch, generator))

    def step() -> int:
        batch = next(cut)
        with tuned(device):
            update(model, optimizer, batch, train_config)
        wait(device)
        return len(batch)

    return speed(step, plan.seconds)


def fuxictr(plan: Plan, catalog: Catalog, device: torch.device) -> dict[str, float]:
    """Training samples/s of FuxiCTR's DIN: as it comes, and with a batch that the card has."""
    from benchmarks import fuxictr_din as din

    embedding = shape.item_embedding(plan.items)
    torch.manual_seed(1)
    model = din.build(catalog, embedding.shape[1]).to(device)
    padded = din.PaddedBatches(shape.impressions(10 * plan.batch, plan.items), catalog, embedding)
    cut = endless(partial(padded.shuffled, plan.batch))

    def step(batch: dict[str, Any]) -> int:
        model.train_step(batch)
        wait(device)
        return len(batch["label"])

    ready = tree_map(lambda values: values.to(device), next(cut))
    return {
        "samples_per_s": speed(
            lambda: step(tree_map(lambda values: values.to(device), next(cut))), plan.seconds
        ),
        "samples_per_s_without_cutting": speed(partial(step, ready), plan.seconds),
    }


def measure(plan: Plan, device: torch.device) -> dict[str, Any]:
    """All that is measured; of FuxiCTR None where it is not installed."""
    catalog = shape.catalog(plan.items)
    return {
        "plan": asdict(plan),
        "card": card(plan, device),
        "epoch": epoch(plan, catalog, device),
        "same_din_samples_per_s": same_din(plan, catalog, device),
        "fuxictr": fuxictr(plan, catalog, device) if find_spec("fuxictr") else None,
    }


def report(result: dict[str, Any]) -> str:
    """The result as text."""
    plan, one, can = result["plan"], result["epoch"], result["card"]
    parts = ", ".join(f"{name} {took:.2f}" for name, took in one["parts"].items())
    fuxi, rows = result["fuxictr"], plan["rows"]
    rates = {"mmctr, default": one["samples_per_s"], "mmctr, same DIN": None}
    rates["mmctr, same DIN"] = result["same_din_samples_per_s"]
    if fuxi:
        rates["FuxiCTR DIN"] = fuxi["samples_per_s"]
        rates["FuxiCTR DIN, batch on the card"] = fuxi["samples_per_s_without_cutting"]
    lines = [
        f"{can['name']}, torch {can['torch']}. {rows:,} rows, {plan['items']:,} items, batches of "
        f"{plan['batch']:,}.",
        f"An epoch of the default: {one['seconds']:.2f} s by the clock, {one['validations']} "
        f"validations included ({parts}), {one['peak_memory_mb']:,.0f} MB at most.",
        f"Achieved in training: {one['bytes_per_s'] / 1e9:,.0f} GB/s, where a copy has "
        f"{can['bytes_per_s'] / 1e9:,.0f}; {one['flop_per_s'] / 1e12:,.2f} TFLOP/s in products, "
        f"where large ones have {can['bfloat16_flop_per_s'] / 1e12:,.1f} in bfloat16 and "
        f"{can['float32_flop_per_s'] / 1e12:,.1f} in float32.",
        "",
        *table(
            [
                ["", "training, samples/s", "an epoch, s"],
                *([name, f"{rate:,.0f}", f"{rows / rate:,.1f}"] for name, rate in rates.items()),
            ]
        ),
    ]
    if not fuxi:
        lines += ["", "FuxiCTR is not installed, so nothing stands beside it (make bench does it)."]
    return "\n".join(lines)


def _model(plan: Plan, config: DINConfig, catalog: Catalog, device: torch.device) -> DIN:
    torch.manual_seed(1)
    return DIN.for_catalog(config, catalog, shape.item_embedding(plan.items)).to(device)


def _dataset(catalog: Catalog, train: shape.Impressions, valid: shape.Impressions) -> Dataset:
    return Dataset(Path("generated"), catalog, {"train": train, "valid": valid})


def _is_written(argument: torch._C.Argument) -> bool:
    return argument.alias_info is not None and argument.alias_info.is_write


def _tensors(values: object) -> list[Tensor]:
    """All tensors in nested values, of a sparse one those that it consists of."""
    found = [one for one in tree_leaves(values) if isinstance(one, Tensor)]
    return [part for one in found for part in _dense_parts(one)]


def _dense_parts(one: Tensor) -> list[Tensor]:
    if one.layout == torch.sparse_coo:
        return [one._indices(), one._values()]
    if one.layout == torch.sparse_csr:
        return [one.crow_indices(), one.col_indices(), one.values()]
    return [one]


def _size(values: object) -> int:
    return sum(one.numel() * one.element_size() for one in _tensors(values))


def main() -> None:
    """Run the benchmark from the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tiny", action="store_true", help="try the script, on any device")
    tiny = parser.parse_args().tiny
    if not tiny and not torch.cuda.is_available():
        sys.exit(
            "This machine has no GPU that PyTorch can use, which this benchmark measures: run it "
            "where torch.cuda.is_available() is True, or try the script itself with --tiny."
        )
    try:
        result = measure(TINY if tiny else Plan(), find_device("auto"))
    except MMCTRError as error:
        sys.exit(str(error))
    if not tiny:
        write_json(RESULT, result)
    print(report(result))


if __name__ == "__main__":
    main()
