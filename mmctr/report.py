"""Reports: papermill runs the notebooks in order, nbconvert makes pages, an index ties them.

A report is a folder below reports/: a page and an executed notebook for each step, its own
index.html, and report.json with everything that the index says. reports/index.html shows the
latest report and links the earlier ones. plotly.js is stored once, in reports/assets/.
"""

import json
import os
import re
import time
from dataclasses import asdict, dataclass, field
from datetime import datetime
from importlib.resources import files
from pathlib import Path
from typing import Any

from tqdm.auto import tqdm

from mmctr.compare import run_table, strategy_table
from mmctr.data.dataset import Dataset
from mmctr.errors import ConfigError, MMCTRError, RunError
from mmctr.files import atomic_path, write_json
from mmctr.fusion import check_strategy
from mmctr.training.checkpoint import Run, describe, provenance
from mmctr.training.trainer import configs

NOTEBOOKS = Path(__file__).parent.parent / "notebooks"
MANIFEST = "report.json"
RECORD = "application/vnd.mmctr.record+json"
FIGURE = "application/vnd.plotly.v1+json"
MARKER = "papermill-error-cell-tag"  # of the notices that papermill puts into a failed notebook
WIDGET = "application/vnd.jupyter.widget-view+json"
TEMPLATES = files("mmctr") / "report_template"

QUESTIONS = {
    "01_explore": "What is in the data, and what is wrong with it?",
    "02_embeddings": "What do the strategies keep, and which items do they call similar?",
    "03_train": "How well does the model predict, and for whom?",
    "04_attention": "What does the model look at, and does it matter?",
    "05_compare": "Which strategy is best, by how much, could it be chance, what does it cost?",
}


@dataclass
class Page:
    """One notebook of a report and what became of it."""

    name: str
    notebook: str
    parameters: dict[str, Any]
    status: str = "pending"  # then "ok" or "failed"
    seconds: float = 0.0
    error: str = ""

    @property
    def file(self) -> str:
        """The page's file in the report's folder."""
        return f"{self.name}.html"

    @property
    def question(self) -> str:
        """What the page answers."""
        return QUESTIONS[self.notebook]


@dataclass
class Report:
    """A report's folder and everything that its index says."""

    folder: Path
    dataset: dict[str, Any]
    strategies: list[str]
    seeds: list[int]
    pages: list[Page]
    date: str
    runs: list[str] = field(default_factory=list)  # relative to the folder
    provenance: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def load(cls, folder: Path) -> "Report":
        """Read a report's folder; RunError if it has no readable manifest."""
        try:
            values = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
            pages = [Page(**page) for page in values.pop("pages")]
            return cls(folder=folder, pages=pages, **values)
        except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
            raise RunError(
                f"{folder} is not a report, its {MANIFEST} is missing or damaged "
                f"({error}): choose a folder that mmctr report has written."
            ) from error

    def save(self) -> None:
        """Write the manifest, atomically."""
        values = {name: value for name, value in vars(self).items() if name != "folder"}
        write_json(self.folder / MANIFEST, values | {"pages": [asdict(p) for p in self.pages]})

    @property
    def index(self) -> Path:
        """The report's own index."""
        return self.folder / "index.html"

    @property
    def failed(self) -> list[Page]:
        """The pages that failed."""
        return [page for page in self.pages if page.status == "failed"]

    def load_runs(self) -> list[Run]:
        """The report's runs; RunError if one is missing or damaged."""
        return [Run.load((self.folder / run).resolve()) for run in self.runs]


def make_report(
    data: Path,
    strategies: list[str],
    seeds: list[int],
    out: Path,
    *,
    notebooks: Path = NOTEBOOKS,
    parameters: dict[str, Any] | None = None,
) -> Report:
    """Run all notebooks on a dataset and write their pages and the index below `out`.

    parameters: of 03_train, for every strategy and seed. A notebook that fails leaves the others'
    pages as they are; the index names the cell and the reason. Raises DataError, ConfigError before
    anything runs if data, a strategy, a seed or a parameter cannot be used.
    """
    dataset = Dataset.load(data)
    # A strategy or seed named twice would be two pages in one file.
    strategies, seeds = list(dict.fromkeys(strategies)), list(dict.fromkeys(seeds))
    for strategy in strategies:
        check_strategy(dataset.catalog, strategy)
    for seed in seeds:
        configs(**(parameters or {}) | {"seed": seed})
    now = datetime.now().astimezone()
    report = Report(
        folder=_new_folder(out, f"{_as_name(dataset.name)}-{now:%Y%m%d-%H%M%S}"),
        dataset=describe(dataset),
        strategies=strategies,
        seeds=seeds,
        pages=_plan(dataset.folder, strategies, seeds, parameters or {}),
        date=now.isoformat(timespec="seconds"),
        provenance=provenance(),
    )
    _write_assets(out)
    _publish(report, out)
    with tqdm(report.pages, unit="page") as bar:
        for page in bar:
            bar.set_description(page.name)
            _run_page(page, report, notebooks)
            _publish(report, out)
    return report


def latest_report(out: Path) -> Path | None:
    """The folder of the latest report below `out`, if there is one."""
    reports = _all_reports(out)
    return reports[0].folder if reports else None


def recorded(notebook: dict[str, Any]) -> dict[str, Any]:
    """The values that an executed notebook recorded (mmctr.notebook.record)."""
    values: dict[str, Any] = {}
    for cell in notebook["cells"]:
        for output in cell.get("outputs", []):
            values |= output.get("data", {}).get(RECORD, {})
    return values


def _plan(
    data: Path, strategies: list[str], seeds: list[int], parameters: dict[str, Any]
) -> list[Page]:
    shared = {"data": str(data)}
    trained = [
        Page(
            f"03_train_{_as_name(strategy)}_seed{seed}",
            "03_train",
            shared | parameters | {"strategy": strategy, "seed": seed},
        )
        for strategy in strategies
        for seed in seeds
    ]
    first, last = ("01_explore", "02_embeddings"), ("04_attention", "05_compare")
    return [
        *(Page(name, name, dict(shared)) for name in first),
        *trained,
        *(Page(name, name, dict(shared)) for name in last),
    ]


def _run_page(page: Page, report: Report, notebooks: Path) -> None:
    """Execute a page's notebook, whatever happens in it, and export what there is."""
    from papermill import execute_notebook
    from papermill.exceptions import PapermillExecutionError

    executed = report.folder / "notebooks" / f"{page.name}.ipynb"
    executed.parent.mkdir(exist_ok=True)
    started = time.perf_counter()
    try:
        if page.notebook == "04_attention":
            page.parameters["run"] = str(_best_run(report).folder)
        elif page.notebook == "05_compare":
            _best_run(report)
            page.parameters["report"] = str(report.folder)
        result = execute_notebook(
            notebooks / f"{page.notebook}.ipynb",
            executed,
            page.parameters,
            kernel_name="python3",
            progress_bar=False,
            cwd=notebooks,
            # The kernel's own remarks on start-up would tear the progress bar.
            extra_arguments=["--log-level=ERROR"],
        )
        if page.notebook == "03_train":
            report.runs.append(os.path.relpath(_recorded_run(result), report.folder))
        page.status = "ok"
    except PapermillExecutionError as error:
        page.status = "failed"
        message = f"Cell {error.cell_index + 1}: {error.ename}: {error.evalue}"
        page.error = re.sub(r"\x1b\[[\d;]*[A-Za-z]", "", message)
    except MMCTRError as error:
        page.status, page.error = "failed", str(error)
    except Exception as error:  # a dead kernel, a full disk: the other pages must go on
        page.status = "failed"
        page.error = f"{_last_begun(executed)}{type(error).__name__}: {error}"
    page.seconds = round(time.perf_counter() - started, 1)
    try:
        if executed.exists():
            _export(executed, page, report)
    except Exception as error:  # nor may an output that cannot be shown stop the other pages
        page.status = "failed"
        page.error = page.error or f"No page could be made: {type(error).__name__}: {error}"


def _recorded_run(notebook: dict[str, Any]) -> str:
    values = recorded(notebook)
    if "run" not in values:
        raise RunError("The notebook finished, but recorded no run: notebook.record(run=...).")
    return values["run"]


def _last_begun(executed: Path) -> str:
    """The cell that ran when a notebook was cut off, as "Cell 5: "; empty if none had begun."""
    if not executed.exists():
        return ""
    cells = json.loads(executed.read_text(encoding="utf-8"))["cells"]
    begun = [
        number
        for number, cell in enumerate(cells, start=1)
        if cell["metadata"].get("papermill", {}).get("start_time")
    ]
    return f"Cell {begun[-1]}: " if begun else ""


def _best_run(report: Report) -> Run:
    """The run of the best valid AUC; RunError if no training finished."""
    runs = report.load_runs()
    if not runs:
        raise RunError("No training finished, so there is no run to look at: see 03_train's pages.")
    return max(runs, key=lambda run: run.summary["metrics"]["auc"])


def _export(executed: Path, page: Page, report: Report) -> None:
    """Make a page of an executed notebook."""
    import nbformat
    from nbconvert import HTMLExporter

    notebook = nbformat.read(executed, as_version=4)
    cells = [cell for cell in notebook.cells if MARKER not in cell.metadata.get("tags", [])]
    if len(cells) < len(notebook.cells):
        # The page says it better, and the cells keep the numbers that errors name.
        notebook.cells = cells
        nbformat.write(notebook, executed)
    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell.outputs = [output for output in cell.outputs if _is_shown(output)]
    exporter = HTMLExporter(template_file=str(TEMPLATES / "page.html.j2"))
    exporter.register_filter("figure_json", _script_json)
    resources = {"page": page, "report": report, "style": _asset("style.css")}
    resources |= {"script": _asset("page.js"), "figure": FIGURE, "metadata": {"name": page.name}}
    body, _ = exporter.from_notebook_node(notebook, resources)
    headings = re.findall(r'<h2 id="([^"]+)">(.*?)<a class="anchor-link"', body)
    contents = "".join(f'<li><a href="#{anchor}">{text}</a></li>' for anchor, text in headings)
    body = body.replace("<!-- contents -->", contents, 1)
    with atomic_path(report.folder / page.file) as temporary:
        temporary.write_text(_link_pages(body, report), encoding="utf-8")


def _is_shown(output: dict[str, Any]) -> bool:
    """Whether a page shows an output: progress bars, dead widgets and records it does not."""
    if output["output_type"] == "stream" and output["name"] == "stderr":
        return not re.search(r"\r|\d+%\|", output["text"])
    return not {WIDGET, RECORD} & set(output.get("data", {}))


def _link_pages(body: str, report: Report) -> str:
    """Turn links between notebooks into links between the report's pages."""
    page_of: dict[str, str] = {}
    for page in report.pages:
        page_of.setdefault(page.notebook, page.file)
    return re.sub(
        r'href="(\d\d_\w+)\.ipynb"',
        lambda link: f'href="{page_of.get(link[1], "index.html")}"',
        body,
    )


def _publish(report: Report, out: Path) -> None:
    """Save the manifest, then the report's own index and the common one."""
    report.save()
    for folder in (report.folder, out):
        with atomic_path(folder / "index.html") as temporary:
            temporary.write_text(_render_index(report, out, at=folder), encoding="utf-8")


def _render_index(report: Report, out: Path, at: Path) -> str:
    from jinja2 import Environment

    environment = Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True)
    template = environment.from_string(_asset("index.html.j2"))
    runs = report.load_runs()
    others = _all_reports(out) if at == out else []
    earlier = [
        {"report": other, "best": _best_auc(other)}
        for other in others
        if other.folder.name != report.folder.name
    ]
    return template.render(
        report=report,
        results=_results(report, runs),
        references=runs[0].summary["reference_auc"] if runs else {},
        minutes=sum(page.seconds for page in report.pages) / 60,
        earlier=earlier,
        here="" if at == report.folder else f"{report.folder.name}/",
        style=_asset("style.css"),
    )


def _results(report: Report, runs: list[Run]) -> list[dict[str, Any]]:
    """A line a strategy, the best first, with links to the pages of its seeds."""
    if not runs:
        return []
    spans = run_table(runs).groupby("strategy").agg({"low": "min", "high": "max"})
    lines = strategy_table(runs).to_dict("records")
    for line in lines:
        line |= spans.loc[line["strategy"]].to_dict()
        line["pages"] = [
            page for page in report.pages if page.parameters.get("strategy") == line["strategy"]
        ]
    return lines


def _best_auc(report: Report) -> float | None:
    try:
        return max((run.summary["metrics"]["auc"] for run in report.load_runs()), default=None)
    except MMCTRError:  # its runs were deleted since
        return None


def _all_reports(out: Path) -> list[Report]:
    """All readable reports below `out`, the latest first."""
    reports = []
    for manifest in out.glob(f"*/{MANIFEST}"):
        try:
            reports.append(Report.load(manifest.parent))
        except RunError:
            continue
    return sorted(reports, key=lambda report: (report.date, report.folder.name), reverse=True)


def _as_name(text: str) -> str:
    """A text as part of a file name that needs no quoting in links."""
    return re.sub(r"[^\w.-]+", "-", text)


def _new_folder(out: Path, name: str) -> Path:
    number = 1
    while True:
        folder = out / (name if number == 1 else f"{name}-{number}")
        try:
            folder.mkdir(parents=True)
            return folder.resolve()
        except FileExistsError:
            number += 1
        except OSError as error:
            raise ConfigError(
                f"{folder} cannot be made ({error.strerror}): choose a folder you may write to."
            ) from error


def _write_assets(out: Path) -> None:
    """Store plotly.js once for all reports."""
    from plotly.offline import get_plotlyjs

    path, text = out / "assets" / "plotly.min.js", get_plotlyjs()
    if not path.exists() or path.read_text(encoding="utf-8") != text:
        with atomic_path(path) as temporary:
            temporary.write_text(text, encoding="utf-8")


def _asset(name: str) -> str:
    return (TEMPLATES / name).read_text(encoding="utf-8")


def _script_json(value: Any) -> str:
    """JSON that cannot end the script element it stands in."""
    return json.dumps(value).replace("<", "\\u003c")
