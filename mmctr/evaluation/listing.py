"""What runs there are and which are comparable, and a comparison of them, as text."""

from pathlib import Path

import numpy as np
import pandas as pd

from mmctr.config import as_pairs
from mmctr.errors import MMCTRError, RunError
from mmctr.evaluation import backtest, compare, study
from mmctr.model.pretrained import CONFIG, WEIGHTS
from mmctr.runs.forms import HISTORY, PREDICTIONS, SUMMARY
from mmctr.runs.provenance import in_utc
from mmctr.runs.run import Run

OF_A_RUN = (CONFIG, SUMMARY, WEIGHTS, HISTORY, PREDICTIONS)
OTHERS = (study.FACTS, backtest.FACTS)  # what else mmctr keeps below runs/
NAMED = 5  # folders that are passed over
WIDEST = 40  # characters of a title


def runs_below(folder: Path) -> tuple[list[Run], str]:
    """The finished runs below a folder at any depth, and what was passed over in a sentence.

    Searches, backtests and folders that only hold other folders are none, which goes without
    saying.
    """
    runs, unreadable = [], []
    for place in sorted(path for path in folder.rglob("*") if path.is_dir()):
        within = place.relative_to(folder)
        if any(part.startswith(".") for part in within.parts):
            continue
        try:
            there = {path.name: path.is_dir() for path in place.iterdir()}
            holds_others = any(there.values()) and not there.keys() & {*OF_A_RUN}
            if not (holds_others or there.keys() & {*OTHERS}):
                run = Run.load(place)
                _ = run.changes, run.valid_rows
                runs.append(run)
        except (MMCTRError, OSError):
            unreadable.append(str(within))
    if not unreadable:
        return runs, ""
    more = len(unreadable) - NAMED
    named = unreadable[:NAMED] + ([f"{more} more"] if more > 0 else [])
    return runs, f"Passed over, for they are no readable finished runs: {compare.listed(named)}."


def by_data(runs: list[Run]) -> list[list[Run]]:
    """Runs that are comparable with one another: of the same data and the same rows of valid."""
    found: dict[tuple[str, str], list[Run]] = {}
    for run in runs:
        key = run.summary["dataset"]["fingerprint"], run.valid_rows
        found.setdefault(key, []).append(run)
    return [*found.values()]


def require_comparable(runs: list[Run]) -> None:
    """Raise RunError unless all runs are of the same data and the same rows of valid."""
    if len(of_data := by_data(runs)) > 1:
        first, other = (group[0] for group in of_data[:2])
        one, two = (run.summary["dataset"]["fingerprint"] for run in (first, other))
        what = f"data {one} and {two}" if one != two else "other rows of valid"
        raise RunError(
            f"{first.address} and {other.address} cannot be compared, expected runs of the same "
            f"data and rows of valid, found {what}: choose of one group of mmctr runs."
        )


def listing(runs: list[Run]) -> str:
    """All runs under a heading for each group of comparable ones, the best of each first."""
    return "\n\n".join(f"{_heading(group)}\n{_lines(group)}" for group in by_data(runs))


def comparison(table: pd.DataFrame, differing: pd.DataFrame) -> str:
    """The tables of compare.comparison and compare.differing as text."""
    by = table.columns[0]
    best = table[by][0]
    shown = {
        "run" if by == "run" else "system": table[by],
        "seeds": table["seeds"],
        "AUC": table["AUC"].map("{:.4f}".format),
        "difference": table["difference"].map("{:+z.4f}".format),
        "95% interval": _interval(table, "{:+z.4f}"),
        "p": table["p"].map("{:.3f}".format),
        "p (Holm)": table["p_holm"].map("{:.3f}".format),
        "parameters": table["parameters"].map("{:,}".format),
        "more": table["more_parameters"].map("{:+,}".format),
    }
    said = (
        f"AUC minus that of the best, {best}: users are resampled in pairs; p is two-sided, and "
        "corrected for the number of differences (Holm). More: parameters than the best has."
    )
    return (
        f"{said}\n{as_text(pd.DataFrame(shown))}\n\nWhat differs in their configurations:\n"
        f"{as_text(differing[['parameter', *table[by]]])}"
    )


def disagreements(table: pd.DataFrame) -> str:
    """The table of compare.disagreements as text."""
    if table.empty:
        return "They agree on every row of valid."
    titles = [title if len(title) <= WIDEST else f"{title[:WIDEST]}…" for title in table["title"]]
    known, systems = table[["user", "item", "label"]], table.iloc[:, 5:].map("{:.4f}".format)
    known.insert(2, "title", titles)
    shown = pd.concat([known, systems], axis=1)
    return f"Where they disagree most, by probability of a click:\n{as_text(shown)}"


def as_text(table: pd.DataFrame) -> str:
    """A table as aligned lines, words at the left and numbers at the right; a dash for NaN."""
    columns = []
    for name, values in zip(table, table.to_numpy().T, strict=True):
        cells = [_cell(value) for value in values]
        is_text = any(cell.strip("0123456789+-–.,") for cell in cells)
        cells = [_cell(name), *cells]
        width = max(map(len, cells))
        columns.append([cell.ljust(width) if is_text else cell.rjust(width) for cell in cells])
    return "\n".join("  ".join(line).rstrip() for line in zip(*columns, strict=True))


def _heading(runs: list[Run]) -> str:
    """What the runs of a group are comparable by."""
    data = runs[0].summary["dataset"]
    name = data.get("name") or Path(data["folder"]).name
    kind = " (simulated)" if data.get("simulated") else ""
    rows = data.get("rows", {}).get("valid")
    counted = "" if rows is None else f"{rows:,} rows of valid, "
    return f"{name}{kind}: {counted}fingerprint {data['fingerprint']}, {data['folder']}"


def _lines(runs: list[Run]) -> str:
    """A line a run, the best first."""
    table = compare.run_table(runs)
    shown = {
        "run": table["run"],
        "strategy": [run.strategy for run in runs],
        "differs from the default": [" ".join(as_pairs(run.changes)) for run in runs],
        "seed": table["seed"],
        "valid AUC": table["auc"].map("{:.4f}".format),
        "95% interval": _interval(table, "{:.4f}"),
        "date (UTC)": [in_utc(run.summary.get("date", "")) for run in runs],
    }
    return as_text(pd.DataFrame(shown).loc[table["auc"].sort_values(ascending=False).index])


def _interval(table: pd.DataFrame, form: str) -> list[str]:
    return [
        "nan" if np.isnan(line.low) else f"{form.format(line.low)} to {form.format(line.high)}"
        for line in table.itertuples()
    ]


def _cell(value: object) -> str:
    """A value on one line; what a terminal would obey, as strangers' titles may hold, is gone."""
    text = "".join(c if c.isprintable() else " " for c in str(value)).strip()
    return "–" if text in ("nan", "+nan") else text
