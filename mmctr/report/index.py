"""The index of a report, and the common one of all reports."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from mmctr.evaluation.compare import run_table, strategy_table
from mmctr.report.figures.style import strategy_color
from mmctr.report.pages import template, write_page
from mmctr.report.reports import Page, Report, all_reports, runs_left
from mmctr.runs.run import Run


def publish(report: Report, out: Path) -> None:
    """Save the manifest, then the report's own index and the common one."""
    report.save()
    title = f"{report.dataset['name']} · mmctr report"
    own = overview(report, lambda page: page.file)
    write_page(report.index, [own], report, title=title, home="index.html")
    name = report.folder.name
    common = overview(report, lambda page: f"{name}/{page.file}", all_reports(out))
    path = out / "index.html"
    write_page(path, [common], report, title=title, home="index.html", assets="assets")


def overview(
    report: Report, url: Callable[[Page], str], reports: list[Report] | None = None
) -> dict[str, Any]:
    """A report's index as a part of a page; beside `reports`, the latest first, if given."""
    runs = report.load_runs()
    html = template("index.html.j2").render(
        report=report,
        results=_results(report, runs),
        runs=runs,
        embeddings={
            run.strategy: sha for run in runs if (sha := run.summary.get("item_embedding_sha256"))
        },
        references=runs[0].summary["reference_auc"] if runs else {},
        minutes=sum(page.seconds for page in report.pages) / 60,
        history=_history(report, reports or []),
        reports=[(other, *_best(other)) for other in reports or []],
        url=url,
    )
    contents = re.findall(r'<h2 id="([^"]+)">(.*?)</h2>', html)
    return {"id": "index", "title": "Overview", "html": html, "contents": contents}


def _history(report: Report, reports: list[Report]) -> list[dict[str, Any]]:
    """A line a strategy: valid AUC of all its runs on the report's dataset, in order of date."""
    same = [r for r in reports if r.dataset["fingerprint"] == report.dataset["fingerprint"]]
    runs = {run.folder: run for other in same for run in runs_left(other)}
    if len(same) < 2 or not runs:
        return []
    lines = []
    for strategy in sorted({run.strategy for run in runs.values()}):
        of_strategy = [run for run in runs.values() if run.strategy == strategy]
        auc = [run.summary["metrics"]["auc"] for run in sorted(of_strategy, key=_date)]
        lines.append({"strategy": strategy, "auc": auc, "color": strategy_color(strategy)})
    low, high = min(min(line["auc"]) for line in lines), max(max(line["auc"]) for line in lines)
    for line in lines:
        line["points"] = _sparkline(line["auc"], low, high)
    return lines


def _sparkline(values: list[float], low: float, high: float) -> list[tuple[float, float]]:
    """Points of a small line chart, 160 by 28 pixels; all lines of a table share low and high."""
    step, scale = 150 / max(len(values) - 1, 1), 22 / ((high - low) or 1)
    return [
        (round(5 + n * step, 1), round(25 - (v - low) * scale, 1)) for n, v in enumerate(values)
    ]


def _date(run: Run) -> str:
    return run.summary.get("date", "")


def _results(report: Report, runs: list[Run]) -> list[dict[str, Any]]:
    """A line a strategy, the best first, with links to the pages of its seeds."""
    if not runs:
        return []
    spans = run_table(runs).groupby("strategy").agg({"low": "min", "high": "max"})
    lines = strategy_table(runs).to_dict("records")
    for line in lines:
        line |= spans.loc[line["strategy"]].to_dict() | {"color": strategy_color(line["strategy"])}
        line["pages"] = [
            page for page in report.pages if page.parameters.get("strategy") == line["strategy"]
        ]
    return lines


def _best(report: Report) -> tuple[str, float | None]:
    """The strategy of the best mean valid AUC in a report, and that AUC, if its runs are left."""
    runs = runs_left(report)
    if not runs:
        return "", None
    first = strategy_table(runs).iloc[0]
    return first["strategy"], first["AUC"]
