"""What leaving erroneous entries out is worth: AUC with and without, for a growing share of them.

Usage: python -m benchmarks.excluding DATASET [DATASET ...] --shares 0,5,10,20 --seeds 1,2,3
       --out FOLDER

A DATASET is a folder of mmctr data import, or the demo. For each share of its items errors are
planted into a copy as by benchmarks.errors; the default is trained once with all of them and once
without what `mmctr data clean` finds, and scores the same test rows. FOLDER keeps copies,
trainings (so that a broken run goes on), a table for each DATASET, and gain.svg, drawn from all
tables that are there.
"""

import argparse
import sys
from collections.abc import Iterator
from html import escape
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from benchmarks.errors import plant
from benchmarks.scaling import BLUE, GREY, ORANGE
from mmctr.content.errors import find_errors, reasons
from mmctr.content.fusion import available_strategies, item_embeddings
from mmctr.data import schema
from mmctr.data.dataset import Dataset
from mmctr.data.erroneous import excluding, write_errors
from mmctr.data.impressions import Impressions
from mmctr.errors import MMCTRError
from mmctr.evaluation.new_items import COLD, NEW, newness
from mmctr.files import atomic_path
from mmctr.model.din import DIN
from mmctr.training.config import configs
from mmctr.training.metrics import auc, bootstrap_auc, interval
from mmctr.training.prediction import predict
from mmctr.training.trainer import fit

RESAMPLES = 300
EPOCHS = 3  # at most: trainings on these data mostly stop by themselves before
TABLE = "-gain.csv"  # the ending of what is kept of a dataset
COLOURS = (BLUE, ORANGE, "#228833", "#aa3377")  # of datasets, readable on light and on dark
PANEL, HEIGHT, LEFT, TOP, SIDE = 300, 330, 62, 36, 234  # pixels
APART = 9  # pixels between datasets: intervals at one share would hide each other
STEPS = (0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2)  # of AUC, between lines of the figure


def worth(folder: Path, shares: list[int], seeds: list[int], out: Path) -> pd.DataFrame:
    """AUC of test with a share of errors, all of them kept and what is found left out.

    Columns: errors (per cent of the items), items (new, cold or all, by their train clicks before
    anything was planted), clicks, kept, left out, gain, low, high.
    """
    clean = Dataset.load(folder)
    strategy = "v4" if "v4" in available_strategies(clean.catalog) else "v1"
    rows = clean.split("test")
    of = newness(clean.train_clicks()[rows.target])
    groups = {group: np.asarray(of == group) for group in (NEW, COLD)}
    groups["all"] = np.ones(len(rows), dtype=bool)
    lines = []
    for share in shares:
        work = out / f"{folder.name}-{share}"
        if not (work / schema.ERRORS).is_file():
            plant(folder, work, share / 100, seed=11)
            found, table = find_errors(Dataset.load(work))
            write_errors(work, found, reasons(table))
        scores = {"kept": [], "left out": []}
        for seed in seeds:
            for name, kinds in (("kept", None), ("left out", "all")):
                path = out / f"{folder.name}-{share}-{strategy}-{name.replace(' ', '-')}-{seed}.npy"
                if not path.is_file():
                    score = _trained(excluding(Dataset.load(work), kinds), strategy, seed)
                    with atomic_path(path) as temporary, temporary.open("wb") as file:
                        np.save(file, score)
                scores[name].append(np.load(path))
        lines += [{"errors": share} | line for line in compared(rows, scores, groups)]
        print(pd.DataFrame(lines).to_string(index=False, float_format="%.4f"), flush=True)
    return pd.DataFrame(lines)


def _trained(dataset: Dataset, strategy: str, seed: int) -> np.ndarray:
    model_config, training = configs(seed=seed, epochs=EPOCHS)
    torch.manual_seed(seed)
    model = DIN.for_dataset(model_config, dataset, item_embeddings(dataset, strategy))
    fit(model, dataset, training)
    return predict(model, dataset.split("test"))


def compared(
    rows: Impressions, scores: dict[str, list[np.ndarray]], groups: dict[str, np.ndarray]
) -> Iterator[dict[str, str | int | float]]:
    """A line a group: both AUCs, and their difference with its interval over users and seeds.

    scores: a float array, [n], for each seed, of what was kept and of what was left out. groups:
    which rows, bool [n]; those without both labels are passed over.
    """
    for group, chosen in groups.items():
        label = rows.label[chosen]
        if len(np.unique(label)) < 2:
            continue
        stacked = np.stack([score[chosen] for name in scores for score in scores[name]])
        draws = bootstrap_auc(rows.user[chosen], label, stacked, resamples=RESAMPLES)
        seeds = len(scores["kept"])
        values = np.array([auc(label, score) for score in stacked])
        picked = np.random.default_rng(1).integers(seeds, size=(RESAMPLES, seeds))
        kept, out = (
            np.take_along_axis(draws[:, part], picked, axis=1).mean(axis=1)
            for part in (slice(0, seeds), slice(seeds, None))
        )
        low, high = interval(out - kept)
        kept, out = values[:seeds].mean(), values[seeds:].mean()
        line = {"items": group, "clicks": int(label.sum()), "kept": kept, "left out": out}
        yield line | {"gain": out - kept, "low": low, "high": high}


def figure(tables: dict[str, pd.DataFrame]) -> str:
    """Gain in AUC against the share of errors as SVG: a panel for each group of items.

    tables: as `worth` gives them, by dataset.
    """
    every = pd.concat(tables.values())
    groups = list(dict.fromkeys(every["items"]))
    low, high = min(0, every["low"].min()), max(0, every["high"].max())
    last = max(1, every["errors"].max())
    bottom = TOP + SIDE
    width = LEFT + PANEL * len(groups)
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{HEIGHT}" role="img">',
        "<title>Gain in AUC by leaving errors out, against the share of errors</title>",
        f"<style>text{{font:12px sans-serif;fill:{GREY};text-anchor:middle}}"
        f".title{{font-weight:bold}}.left{{text-anchor:end}}path{{stroke:{GREY};opacity:.3}}"
        "</style>",
        f'<text transform="translate({LEFT - 50} {TOP + SIDE / 2}) rotate(-90)">gain in AUC</text>',
    ]
    step = next((one for one in STEPS if (high - low) / one <= 8), STEPS[-1])

    def across(share: float) -> float:
        return 30 + (SIDE - 40) * share / last

    def up(gain: float) -> float:
        return round(bottom - 5 - (SIDE - 10) * (gain - low) / (high - low or 1), 1)

    for place, group in enumerate(groups):
        left = LEFT + place * PANEL
        middle = left + SIDE / 2
        clicks = " and ".join(
            f'<tspan fill="{colour}">{part["clicks"].iloc[0]:,}</tspan>'
            for colour, table in zip(COLOURS, tables.values(), strict=False)
            if len(part := table[table["items"] == group])
        )
        lines.append(
            f'<text x="{middle}" y="{TOP - 14}"><tspan class="title">{group}</tspan> '
            f"({clicks} clicks)</text>"
        )
        for number in range(int(np.ceil(low / step)), int(np.floor(high / step)) + 1):
            y, dark = up(number * step), ' style="opacity:1"' if number == 0 else ""
            lines.append(f'<path d="M{left} {y}H{left + SIDE}"{dark}/>')
            label = f"{number * step:+.3f}" if number else "0"
            lines.append(f'<text x="{left - 6}" y="{y + 4}" class="left">{label}</text>')
        for share in sorted(set(every["errors"])):
            x = left + across(share)
            lines.append(f'<text x="{x:.1f}" y="{bottom + 16}">{share}</text>')
        lines.append(f'<text x="{middle}" y="{bottom + 36}">items with planted errors (%)</text>')
        for number, (colour, table) in enumerate(zip(COLOURS, tables.values(), strict=False)):
            shift = APART * (number - (len(tables) - 1) / 2)
            for line in table[table["items"] == group].itertuples():
                x = round(left + across(line.errors) + shift, 1)
                style = f'style="stroke:{colour};stroke-width:2;opacity:1"'
                lines.append(f'<path d="M{x} {up(line.low)}V{up(line.high)}" {style}/>')
                lines.append(f'<circle cx="{x}" cy="{up(line.gain)}" r="4" fill="{colour}"/>')
    names = " · ".join(
        f'<tspan fill="{colour}">{escape(name)}</tspan>'
        for colour, name in zip(COLOURS, tables, strict=False)
    )
    lines.append(f'<text x="{width / 2}" y="{bottom + 56}" class="title">{names}</text>')
    return "\n".join([*lines, "</svg>\n"])


def main() -> None:
    """Run the benchmark from the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("datasets", nargs="+", type=Path)
    parser.add_argument("--out", type=Path, required=True, help="folder that keeps the results")
    parser.add_argument("--shares", default="0,5,10,20", help="per cent of items, by comma")
    parser.add_argument("--seeds", default="1,2,3", help="by comma")
    arguments = parser.parse_args()
    shares, seeds = (
        [int(one) for one in words.split(",")] for words in (arguments.shares, arguments.seeds)
    )
    out = arguments.out
    out.mkdir(parents=True, exist_ok=True)
    try:
        for folder in arguments.datasets:
            table = worth(folder, shares, seeds, out)
            with atomic_path(out / f"{folder.name}{TABLE}") as temporary:
                table.to_csv(temporary, index=False)
        tables = {
            path.name.removesuffix(TABLE): pd.read_csv(path)
            for path in sorted(out.glob(f"*{TABLE}"))
        }
        with atomic_path(out / "gain.svg") as temporary:
            temporary.write_text(figure(tables), encoding="utf-8")
    except MMCTRError as error:
        sys.exit(str(error))
    print(f"Drawn: {out / 'gain.svg'}")


if __name__ == "__main__":
    main()
