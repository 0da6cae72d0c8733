"""How the cost of training grows with rows, clicks and items: generated data, default model, CPU.

Usage: python -m benchmarks.scaling [--steps] [--large] [--quick]. Prints a table in Markdown and
draws benchmarks/scaling.svg; --steps: of every step of the way, benchmarks/steps.svg, --large with
it up to 100 million clicks and a million items, for an hour and with 20 GB (--quick: a tenth of the
sizes, drawn in the folder for temporary files). Every point has a process of its own, so that its
peak memory is its own; one works at a time.
"""

import argparse
import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, field
from itertools import islice, product
from multiprocessing import get_context
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch
from tqdm.auto import tqdm

from benchmarks import microlens_shape as shape
from benchmarks import steps
from mmctr.devices import peak_memory_mb, tuned
from mmctr.errors import MMCTRError
from mmctr.files import atomic_path
from mmctr.model.batch import Batch
from mmctr.model.config import DINConfig
from mmctr.model.din import DIN
from mmctr.training.batches import Batches
from mmctr.training.config import TrainConfig
from mmctr.training.optimizer import make_optimizer
from mmctr.training.trainer import update

FIGURE, STEPS_FIGURE = (Path(__file__).with_name(name) for name in ("scaling.svg", "steps.svg"))
WARM_UP, REPETITIONS = 2, 3
BYTES_PER_ITEM = 1400  # 950 for its embedding, id vector and Adam's moments, and some to spare
GREY, BLUE, ORANGE = "#7a7a7a", "#4477aa", "#ee7733"  # readable on light and on dark
COLOURS = (BLUE, ORANGE, "#228833", "#aa4499", "#999933", "#2299aa")
PANEL, HEIGHT, LEFT, TOP, SIDE = 320, 320, 62, 36, 234  # pixels; the plots are square
LEGEND = 210
AXES = {  # what cost is drawn against, by panel, and the cost
    "Rows": ("rows", "seconds an epoch"),
    "Clicks": ("clicks read of a history, on average", "milliseconds a step"),
    "Items": ("items in the catalog", "milliseconds a step"),
}
Axes = dict[str, tuple[str, str]]
Result = TypeVar("Result")
STEPS_AXES = {
    "Seconds of processors": ("clicks, rows or items", "seconds"),
    "Peak memory of their own": ("clicks, rows or items", "GB"),
}


@dataclass(frozen=True)
class Point:
    """What one process measures; steps of a repetition, None for an epoch."""

    panel: str
    rows: int
    steps: int | None = None
    items: int = shape.ITEMS
    mean_clicks: float = 9.0
    row_updates: bool = False


@dataclass
class Series:
    """Points that differ in one size, and what is measured of them."""

    panel: str
    name: str
    colour: str
    points: list[Point] = field(default_factory=list)
    sizes: list[float] = field(default_factory=list)
    costs: list[float] = field(default_factory=list)
    memory_mb: list[float] = field(default_factory=list)

    def line(self) -> tuple[float, float]:
        """Slope and intercept of log cost over log size, by least squares."""
        slope, intercept = np.polyfit(np.log10(self.sizes), np.log10(self.costs), 1)
        return float(slope), float(intercept)


def all_series(part: int) -> list[Series]:
    """What is to be measured, with sizes divided by `part`."""
    rows, items = 2**18 // part, [10**power // part for power in (4, 5, 6, 7)]
    epochs = [Point("Rows", count // part) for count in (15_625, 62_500, 250_000, 1_000_000)]
    clicks = [Point("Clicks", rows, 150 // part, mean_clicks=mean) for mean in (1, 4, 16, 64)]
    by_row = [Point("Items", rows, 100 // part, count, row_updates=True) for count in items]
    dense = [Point("Items", rows, 100 // part, count) for count in items[:-1]]
    return [
        Series("Rows", "", BLUE, epochs),
        Series("Clicks", "", BLUE, clicks),
        Series("Items", "row updates", BLUE, [point for point in by_row if fits(point)]),
        Series("Items", "dense", ORANGE, dense),
    ]


def fits(point: Point) -> bool:
    """Whether there is memory for it; says so if not."""
    name = "SC_AVPHYS_PAGES" if "SC_AVPHYS_PAGES" in os.sysconf_names else "SC_PHYS_PAGES"
    available, needed = os.sysconf(name) * os.sysconf("SC_PAGE_SIZE"), point.items * BYTES_PER_ITEM
    if needed > available:
        print(
            f"{point.items:,} items are left out: they take {needed / 1e9:.1f} GB of memory, of "
            f"which {available / 1e9:.1f} GB are free."
        )
    return needed <= available


def measure(point: Point) -> tuple[float, float, float]:
    """Size, median cost and peak memory of training; cutting the batches is part of a step."""
    torch.manual_seed(1)
    config = TrainConfig(row_updates=point.row_updates)
    catalog, embedding = shape.catalog(point.items), shape.item_embedding(point.items)
    model = DIN.for_catalog(DINConfig(), catalog, embedding)
    optimizer = make_optimizer(model, config)
    rows = shape.impressions(point.rows, point.items, point.mean_clicks)
    batches = Batches(rows, model)
    stream = endless(batches, config.batch_size)

    def seconds(steps: int) -> float:
        start = time.perf_counter()
        for batch in islice(stream, steps):
            update(model, optimizer, batch, config)
        return time.perf_counter() - start

    with tuned(model.device):
        seconds(WARM_UP)
        steps = point.steps or batches.count(config.batch_size)
        cost = float(np.median([seconds(steps) for _ in range(REPETITIONS)]))
    clicks = np.minimum(rows.history_end - rows.history_start, model.config.max_history).mean()
    size = {"Rows": point.rows, "Clicks": float(clicks), "Items": point.items}[point.panel]
    return size, 1000 * cost / steps if point.steps else cost, peak_memory_mb(model.device)


def endless(batches: Batches, size: int) -> Iterator[Batch]:
    """The batches of one epoch after another."""
    generator = torch.Generator().manual_seed(1)
    while True:
        yield from batches.shuffled(size, generator)


def alone(function: Callable[..., Result], argument: object) -> Result:
    """What a function gives in a new process; MMCTRError if that dies."""
    try:
        with ProcessPoolExecutor(1, get_context("spawn")) as process:
            return process.submit(function, argument).result()
    except BrokenProcessPool as error:
        raise MMCTRError(
            f"The process of {argument} ended early, most likely for want of memory: use a "
            "machine with more of it, or --quick."
        ) from error


def measure_all(measured: list[Series]) -> None:
    """Fill in the series, a new process for each point."""
    for series, point in tqdm([(each, point) for each in measured for point in each.points]):
        size, cost, memory = alone(measure, point)
        series.sizes.append(size)
        series.costs.append(cost)
        series.memory_mb.append(memory)


def report(measured: list[Series]) -> str:
    """The result as text, with a table in Markdown."""
    rows = [["against", "size", "cost", "unit", "peak memory, MB", "slope"]]
    for series in measured:
        name = f"{series.panel.lower()}, {series.name}".removesuffix(", ")
        unit, digits = AXES[series.panel][1], 1 if series.panel == "Clicks" else 0
        for size, cost, memory in zip(series.sizes, series.costs, series.memory_mb, strict=True):
            rows.append([name, f"{size:,.{digits}f}", f"{cost:,.2f}", unit, f"{memory:,.0f}", ""])
        rows[-1][-1] = f"{series.line()[0]:.2f}"
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    rows.insert(1, ["-" * (width - 1) + ":" for width in widths])
    lines = [f"| {' | '.join(map(str.rjust, row, widths))} |" for row in rows]
    about = (
        f"{os.cpu_count()} cores, {torch.get_num_threads()} threads, torch {torch.__version__}; "
        f"batches of {TrainConfig().batch_size:,}, medians of {REPETITIONS} repetitions.\n"
        "Slope is that of log cost over log size, by least squares: 1 is growth in proportion "
        "(expected of\nrows), less is slower (clicks), 0 is none (items, if a step updates only "
        "its rows).\n"
    )
    return "\n".join([about, *lines])


@dataclass(frozen=True)
class Axis:
    """A logarithmic axis: powers of 10 at its ends, and their pixels."""

    low: float
    high: float
    start: float
    end: float

    @classmethod
    def around(cls, powers: np.ndarray, decades: float, start: float, end: float) -> "Axis":
        """So many decades with the given powers of 10 in the middle."""
        middle = (powers.min() + powers.max()) / 2
        return cls(middle - decades / 2, middle + decades / 2, start, end)

    def pixel(self, value: float) -> float:
        """Where a value lies."""
        share = (np.log10(value) - self.low) / (self.high - self.low)
        return round(float(self.start + share * (self.end - self.start)), 1)

    def ticks(self) -> Iterator[tuple[float, str]]:
        """Pixel and label of round values; if there are few decades, of several in each."""
        steps = (1, 2, 5) if self.high - self.low < 2.6 else (1,)
        for power, step in product(range(int(self.low) - 1, int(self.high) + 1), steps):
            value = step * 10.0**power
            if self.low <= np.log10(value) <= self.high:
                label = f"{value:,g}" if value < 1e6 else f"{value / 1e6:g}M"
                yield self.pixel(value), f"{value / 1e3:g}k" if 1e4 <= value < 1e6 else label


def slope(series: Series) -> str:
    """A series by name and slope, in its colour."""
    text = f"{series.name} {series.line()[0]:.2f}".strip()
    return f'<tspan fill="{series.colour}">{text}</tspan>'


def draw(
    panel: str, measured: list[Series], left: float, axes: Axes, legend: bool
) -> Iterator[str]:
    """A panel's SVG elements; its axes have equally many decades, so that slope 1 is diagonal.

    legend: slopes are told beside the panels, and not in the title.
    """
    right, bottom, middle = left + SIDE, TOP + SIDE, left + SIDE / 2
    sizes = np.log10([size for series in measured for size in series.sizes])
    costs = np.log10([cost for series in measured for cost in series.costs])
    decades = 1.15 * max(np.ptp(sizes), np.ptp(costs))
    across = Axis.around(sizes, decades, left, right)
    up = Axis.around(costs, decades, bottom, TOP)
    told = panel if legend else f"{panel}: slope {', '.join(map(slope, measured))}"
    yield f'<text x="{middle}" y="{TOP - 14}" class="title">{told}</text>'
    for x, label in across.ticks():
        yield f'<path d="M{x} {TOP}V{bottom}"/><text x="{x}" y="{bottom + 16}">{label}</text>'
    for y, label in up.ticks():
        yield f'<path d="M{left} {y}H{right}"/>'
        yield f'<text x="{left - 6}" y="{y + 4}" class="left">{label}</text>'
    turn = f"translate({left - 44} {TOP + SIDE / 2}) rotate(-90)"
    yield f'<text x="{middle}" y="{bottom + 38}">{axes[panel][0]}</text>'
    yield f'<text transform="{turn}">{axes[panel][1]}</text>'
    for series in measured:
        power, intercept = series.line()
        (x1, y1), (x2, y2) = (
            (across.pixel(size), up.pixel(10**intercept * size**power))
            for size in (series.sizes[0], series.sizes[-1])
        )
        yield f'<path d="M{x1} {y1}L{x2} {y2}" style="stroke:{series.colour};opacity:1"/>'
        for size, cost in zip(series.sizes, series.costs, strict=True):
            place = f'cx="{across.pixel(size)}" cy="{up.pixel(cost)}"'
            yield f'<circle {place} r="4" fill="{series.colour}"/>'


def figure(measured: list[Series], axes: Axes = AXES, legend: bool = False) -> str:
    """The panels side by side, as SVG; legend: the first one's series and slopes beside them."""
    across = PANEL * len(axes)
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{across + LEGEND * legend}" '
        f'height="{HEIGHT}" role="img">',
        f"<title>Cost of {'each step' if legend else 'training'} against its size</title>",
        f"<style>text{{font:12px sans-serif;fill:{GREY};text-anchor:middle}}"
        ".title{font-weight:bold}.left{text-anchor:end}.name{text-anchor:start}"
        f"path{{stroke:{GREY};opacity:.3}}</style>",
    ]
    for place, panel in enumerate(axes):
        drawn = [series for series in measured if series.panel == panel]
        lines += draw(panel, drawn, place * PANEL + LEFT, axes, legend)
        if legend and not place:
            told = ["Slopes of seconds:", *map(slope, drawn)]
            for line, text in enumerate(told):
                y = TOP + 24 * (line + 1)
                lines.append(f'<text x="{across + 8}" y="{y}" class="name">{text}</text>')
    return "\n".join([*lines, "</svg>\n"])


def of_steps(part: int, large: bool) -> tuple[str, str]:
    """The table of every step of the way, each line printed once it is known, and the figure."""
    found: dict[str, list[steps.Cost]] = {name: [] for name in steps.NAMES}
    for name, cost in steps.measured(alone, part, large):
        found[name].append(cost)
        each = 1e6 * cost.seconds / cost.size
        print(
            f"{name:<24} {cost.size:>12,} {cost.seconds:>9.1f} s of processors, {each:>8.2f} a "
            f"million, {cost.clock:>8.1f} by the clock, {cost.memory_gb:>5.2f} GB, "
            f"{own(cost):>5.2f} its own",
            flush=True,
        )
    heads = ("step", "sizes", "seconds of processors a million", "slope", "peak GB", "its own")
    drawn, lines = [], [f"| {' | '.join(heads)} |", "|---|---|---|---:|---|---|"]
    for (name, costs), colour in zip(found.items(), COLOURS, strict=True):
        series = Series("Seconds of processors", name, colour)
        series.sizes = [cost.size for cost in costs]
        series.costs = [cost.seconds for cost in costs]
        memory = Series("Peak memory of their own", name, colour, sizes=series.sizes)
        memory.costs = [own(cost) for cost in costs]
        drawn += [series, memory]
        cells = [
            name,
            ", ".join(f"{size:,}" for size in series.sizes),
            ", ".join(f"{1e6 * cost.seconds / cost.size:,.2f}" for cost in costs),
            f"{series.line()[0]:.2f}",
            ", ".join(f"{cost.memory_gb:.2f}" for cost in costs),
            ", ".join(f"{gigabytes:.2f}" for gigabytes in memory.costs),
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines), figure(drawn, STEPS_AXES, legend=True)


def own(cost: steps.Cost) -> float:
    """The peak memory of a process itself in GB, as far as that is known."""
    return cost.memory_gb if cost.own_gb is None else cost.own_gb


def main() -> None:
    """Run the benchmark from the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", action="store_true", help="of every step, not of training")
    parser.add_argument("--large", action="store_true", help="of --steps: up to 100 million clicks")
    parser.add_argument("--quick", action="store_true", help="a tenth of the sizes, for trying out")
    asked = parser.parse_args()
    part, path = 10 if asked.quick else 1, STEPS_FIGURE if asked.steps else FIGURE
    path = Path(tempfile.gettempdir(), path.name) if asked.quick else path
    try:
        if asked.steps:
            told, drawn = of_steps(part, asked.large)
        else:
            measure_all(measured := all_series(part))
            told, drawn = report(measured), figure(measured)
        with atomic_path(path) as temporary:
            temporary.write_text(drawn, encoding="utf-8")
    except MMCTRError as error:
        sys.exit(str(error))
    print(f"{told}\n\nDrawn: {path}")


if __name__ == "__main__":
    main()
