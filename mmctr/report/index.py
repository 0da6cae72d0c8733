"""The index of a report, and the common one of all reports."""

from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import pandas as pd

from mmctr.data.wording import stated
from mmctr.evaluation.compare import LEVEL, comparison, strategy_table, systems_of
from mmctr.evaluation.verdict import epochs_in_words, verdict
from mmctr.report.figures.style import strategy_color
from mmctr.report.pages import answer_html, as_part, template, write_page
from mmctr.report.reports import Page, Report, all_reports
from mmctr.runs.run import Run, readable_runs


def publish(report: Report, out: Path) -> None:
    """Save the manifest, then the report's own index and the common one."""
    report.save()
    write_page(report.index, [overview(report, lambda page: page.file)], report)
    name = report.folder.name
    common = overview(report, lambda page: f"{name}/{page.file}", all_reports(out))
    write_page(out / "index.html", [common], report)


def overview(
    report: Report, url: Callable[[Page], str], reports: list[Report] | None = None
) -> dict[str, Any]:
    """A report's index as a part of a page; beside `reports`, the latest first, if given."""
    runs = report.load_runs()
    results = _results(tuple(report.run_folders))
    html = template("index.html.j2").render(
        report=report,
        words=stated(report.dataset),
        results=results,
        clear=len(results) > 1 and results[1]["p_holm"] < LEVEL,
        answer=answer_html(report.answer or _so_far(tuple(report.run_folders)) or ""),
        runs=runs,
        history=_history(report, reports or []),
        reports=[(other, _results(tuple(other.run_folders))) for other in reports or []],
        color=strategy_color,
        url=url,
    )
    return as_part("index", "Overview", html)


# Indexes of all reports are written after every page, and runs do not change.
@cache
def _compared(folders: tuple[Path, ...]) -> tuple[list[Run], pd.DataFrame]:
    """The runs that there are, and their comparison; empty if there are none."""
    runs = readable_runs(folders)
    return runs, comparison(runs) if runs else pd.DataFrame()


@cache
def _so_far(folders: tuple[Path, ...]) -> dict[str, Any] | None:
    """The verdict over the runs that there are, as a page keeps it."""
    runs, table = _compared(folders)
    return verdict(runs, table=table).as_dict() if runs else None


def _history(report: Report, reports: list[Report]) -> list[dict[str, Any]]:
    """A line a strategy: valid AUC of all its runs on the report's dataset, in order of date."""
    same = [r for r in reports if r.dataset["fingerprint"] == report.dataset["fingerprint"]]
    # A run that several reports share is one run.
    runs = readable_runs(dict.fromkeys(folder for other in same for folder in other.run_folders))
    if len(same) < 2 or not runs:
        return []
    runs.sort(key=lambda run: run.summary.get("date", ""))
    aucs = {
        strategy: [run.summary["metrics"]["auc"] for run in runs if run.strategy == strategy]
        for strategy in sorted({run.strategy for run in runs})
    }
    low, high = min(map(min, aucs.values())), max(map(max, aucs.values()))
    return [
        {"strategy": strategy, "auc": auc, "points": _sparkline(auc, low, high)}
        for strategy, auc in aucs.items()
    ]


def _sparkline(values: list[float], low: float, high: float) -> list[tuple[float, float]]:
    """Points of a small line chart, 160 by 28 pixels; all lines of a table share low and high."""
    step, scale = 150 / max(len(values) - 1, 1), 22 / ((high - low) or 1)
    return [
        (round(5 + n * step, 1), round(25 - (v - low) * scale, 1)) for n, v in enumerate(values)
    ]


@cache
def _results(folders: tuple[Path, ...]) -> list[dict[str, Any]]:
    """A line a strategy, the best first: means over seeds, differences to the best, the cost."""
    runs, table = _compared(folders)
    if not runs:
        return []
    means = strategy_table(runs).drop(columns="parameters")
    apart = table.drop(columns=["seeds", "AUC"])
    costs = {name: epochs_in_words(found) for name, found in systems_of(runs).items()}
    lines = means.merge(apart, on="strategy", sort=False)
    return lines.assign(cost=lines["strategy"].map(costs)).to_dict("records")
