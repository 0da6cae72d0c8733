"""Reports: papermill runs the notebooks in order, nbconvert makes pages, an index ties them.

A report is a folder below reports/: a page and an executed notebook for each step, its own
index.html, and report.json with everything that the index says. reports/index.html shows the
latest report beside the earlier ones. plotly.js is stored once, in reports/assets/.

A notebook is executed once for the same inputs: its source, its parameters, the dataset, the
library and the runs that it reads. A report that was killed, or is asked for again, goes on in its
folder; a new one takes over the pages whose inputs are those of an earlier one.
"""

import json
import os
import re
import shutil
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from datetime import datetime
from hashlib import sha256
from html import escape
from importlib.resources import files
from pathlib import Path
from typing import Any

from tqdm.auto import tqdm

from mmctr.content.strategies import available_strategies, check_strategy
from mmctr.data.dataset import Dataset
from mmctr.errors import ConfigError, MMCTRError, RunError
from mmctr.evaluation.compare import run_table, strategy_table
from mmctr.evaluation.search import find_studies
from mmctr.files import alone, atomic_path, home, write_json
from mmctr.report.figures import assign_colors, strategy_color
from mmctr.runs.run import Run, describe, provenance
from mmctr.training.trainer import configs

LIBRARY = Path(__file__).parents[1]
NOTEBOOKS = LIBRARY.parent / "notebooks"
MANIFEST = "report.json"
RECORD = "application/vnd.mmctr.record+json"
ANSWER = "application/vnd.mmctr.answer+json"  # the paragraph that a page begins with
CAPTION = "application/vnd.mmctr.caption+json"  # of the output before it
FIGURE = "application/vnd.plotly.v1+json"
MARKER = "papermill-error-cell-tag"  # of the notices that papermill puts into a failed notebook
WIDGET = "application/vnd.jupyter.widget-view+json"
TEMPLATES = files("mmctr.report") / "templates"

QUESTIONS = {
    "01_explore": "What is in the data, and what is wrong with it?",
    "02_embeddings": "What do the strategies keep, and which items do they call similar?",
    "03_train": "How well does the model predict, and for whom?",
    "04_attention": "What does the model look at, and does it matter?",
    "05_compare": "Which strategy is best, by how much, could it be chance, what does it cost?",
    "06_ablation": "What is each part of the model worth?",
    "07_search": "Which parameters are best, and which of them matter?",
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
    answer: str = ""  # the notebook's answer in one paragraph
    inputs: str = ""  # hash of everything that decided what the page says

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
    inputs: str = ""  # hash of everything that decided what the report says

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

    @property
    def answer(self) -> str:
        """What the report says in one paragraph; empty until 05_compare is done."""
        return next((page.answer for page in self.pages if page.notebook == "05_compare"), "")

    def executed(self, page: Page) -> Path:
        """Where a page's executed notebook is."""
        return self.folder / "notebooks" / f"{page.name}.ipynb"

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
    ablation: bool = False,
) -> Report:
    """Run all notebooks on a dataset and write their pages and the index below `out`.

    parameters: of 03_train, for every strategy and seed. ablation: 06_ablation too, which trains
    about twenty models for each seed. Notebooks that ran before on the same
    inputs are not run again. A notebook that fails leaves the others' pages as they are; the index
    names the cell and the reason. Raises DataError, ConfigError before anything runs if data, a
    strategy, a seed or a parameter cannot be used, or if the same report is being made.
    """
    dataset = Dataset.load(data)
    # A strategy or seed named twice would be two pages in one file.
    strategies, seeds = list(dict.fromkeys(strategies)), list(dict.fromkeys(seeds))
    for strategy in strategies:
        check_strategy(dataset.catalog, strategy)
    for seed in seeds:
        configs(**(parameters or {}) | {"seed": seed})
    assign_colors(available_strategies(dataset.catalog))
    pages = _plan(dataset.folder, strategies, seeds, parameters or {})
    if ablation:
        chosen = {"data": str(dataset.folder), "seeds": ",".join(map(str, seeds))}
        chosen |= {name: (parameters or {}).get(name) for name in ("epochs", "max_history")}
        pages.append(Page("06_ablation", "06_ablation", chosen))
    report = _begin(dataset, strategies, seeds, out, notebooks, pages + _studies(dataset))
    with alone(report.folder, "being made by"):
        _write_assets(out)
        if not (report.folder / MANIFEST).exists():
            _publish(report, out)
        report.runs = []
        with tqdm(report.pages, unit="page") as bar:
            for page in bar:
                bar.set_description(page.name)
                if _make_page(page, report, out, notebooks):
                    bar.write(f"{page.name}: reused, its inputs are unchanged", file=sys.stderr)
                _publish(report, out)
    return report


def make_page(
    notebook: str,
    dataset: Dataset,
    parameters: dict[str, Any],
    folder: Path,
    *,
    notebooks: Path = NOTEBOOKS,
) -> Path:
    """Run one notebook outside a report and write its page into a folder, over an older one.

    Raises MMCTRError if the notebook fails; the page then says where.
    """
    page = Page(notebook, notebook, parameters)
    date = datetime.now().astimezone().isoformat(timespec="seconds")
    report = Report(folder, describe(dataset), [], [], [page], date, provenance=provenance())
    folder.mkdir(parents=True, exist_ok=True)
    _write_assets(folder.parent)
    _make_page(page, report, folder.parent, notebooks)
    path = folder / page.file
    if page.status == "failed":
        raise MMCTRError(f"{path} failed: {page.error}")
    shutil.copyfile(path, report.index)  # the page's own links lead there
    return path


def write_single_file(report: Report) -> Path:
    """All pages of a report as one HTML file that needs no other: for e-mail, read offline."""
    from plotly.offline import get_plotlyjs

    def url(page: Page) -> str:
        return f"#{page.name}"

    parts = [_summary(report, url)]
    for page in report.pages:
        if report.executed(page).exists():
            part = _article(report.executed(page), page, report, url)
            # Pages of the same notebook have the same headings: their anchors would be doubles.
            part["html"] = re.sub(r'<(h\d) id="[^"]*"', r"<\1", part["html"])
            parts.append(part)
    path = report.folder / f"{report.folder.name}.html"
    title = f"{report.dataset['name']} · mmctr report"
    _write_page(path, parts, report, title=title, home="#index", plotly=get_plotlyjs())
    return path


def latest_report(out: Path) -> Path | None:
    """The folder of the latest report below `out`, if there is one."""
    reports = _all_reports(out)
    return reports[0].folder if reports else None


def recorded(notebook: dict[str, Any]) -> dict[str, Any]:
    """The values that an executed notebook recorded (mmctr.report.notebook.record)."""
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


def _studies(dataset: Dataset) -> list[Page]:
    """A page of the latest search on a dataset, if there was one."""
    folders = find_studies(home() / "runs", dataset.fingerprint)[-1:]
    return [Page("07_search", "07_search", {"study": str(folder)}) for folder in folders]


def _begin(
    dataset: Dataset,
    strategies: list[str],
    seeds: list[int],
    out: Path,
    notebooks: Path,
    pages: list[Page],
) -> Report:
    """The report of these inputs: the earlier one that was not finished or is repeated, or new."""
    now = datetime.now().astimezone()
    planned = [(page.name, page.parameters) for page in pages]
    facts = [describe(dataset), provenance()["versions"], strategies, seeds, planned]
    inputs = _hash(
        _library(), *(_source(path) for path in sorted(notebooks.glob("*.ipynb"))), facts
    )
    for earlier in _all_reports(out):
        if earlier.inputs == inputs:
            return earlier
    return Report(
        folder=_new_folder(out, f"{_as_name(dataset.name)}-{now:%Y%m%d-%H%M%S}"),
        dataset=describe(dataset),
        strategies=strategies,
        seeds=seeds,
        pages=pages,
        date=now.isoformat(timespec="seconds"),
        provenance=provenance(),
        inputs=inputs,
    )


def _make_page(page: Page, report: Report, out: Path, notebooks: Path) -> bool:
    """Execute a page's notebook, whatever happens in it, or reuse it; whether it was reused."""
    executed = report.executed(page)
    executed.parent.mkdir(exist_ok=True)
    started = time.perf_counter()
    reused = False
    try:
        if page.notebook == "04_attention":
            page.parameters["run"] = str(_best_run(report).folder)
        elif page.notebook == "05_compare":
            _best_run(report)
            page.parameters["report"] = str(report.folder)
        source = _source(notebooks / f"{page.notebook}.ipynb")
        runs = report.runs if page.notebook == "05_compare" else []
        facts = [page.parameters, report.dataset["fingerprint"], report.provenance["versions"]]
        inputs = _hash(_library(), source, facts, [Path(run).name for run in runs])
        # A study grows without any change of parameters.
        reused = page.notebook != "07_search" and _reuse(page, inputs, report, out)
        if not reused:
            page.status, page.error, page.answer, page.inputs = "pending", "", "", inputs
            _execute(page, executed, notebooks)
        if page.notebook == "03_train":
            run = _recorded_run(executed)
            report.runs.append(os.path.relpath(run.folder, report.folder))
        page.status = "ok"
    except MMCTRError as error:
        page.status, page.error = "failed", str(error)
    except Exception as error:  # a dead kernel, a full disk: the other pages must go on
        page.status, page.error = "failed", _reason(error, executed)
    if not reused:
        page.seconds = round(time.perf_counter() - started, 1)
    try:
        if executed.exists():
            part = _article(executed, page, report, lambda other: other.file)
            title = f"{page.name} · {report.dataset['name']} · mmctr"
            path = report.folder / page.file
            _write_page(path, [part], report, title=title, home="index.html", page=page)
    except Exception as error:  # nor may an output that cannot be shown stop the other pages
        page.status = "failed"
        page.error = page.error or f"No page could be made: {type(error).__name__}: {error}"
    return reused


def _reuse(page: Page, inputs: str, report: Report, out: Path) -> bool:
    """Take a page over from the report's own folder or an earlier one, if its inputs are these."""
    candidates = [(report, page)] + [(other, p) for other in _all_reports(out) for p in other.pages]
    for other, found in candidates:
        executed = other.executed(found)
        if found.inputs != inputs or found.status != "ok" or not executed.exists():
            continue
        try:
            if page.notebook == "03_train":
                _recorded_run(executed)
        except (MMCTRError, OSError, ValueError, KeyError):
            continue  # the run was deleted since, or the notebook is damaged
        if executed != report.executed(page):
            shutil.copyfile(executed, report.executed(page))
        page.seconds, page.answer, page.error, page.inputs = found.seconds, found.answer, "", inputs
        return True
    return False


def _execute(page: Page, executed: Path, notebooks: Path) -> None:
    from papermill import execute_notebook

    execute_notebook(
        notebooks / f"{page.notebook}.ipynb",
        executed,
        page.parameters,
        kernel_name="python3",
        progress_bar=False,
        cwd=notebooks,
        # The kernel's own remarks on start-up would tear the progress bar.
        extra_arguments=["--log-level=ERROR"],
    )


def _reason(error: Exception, executed: Path) -> str:
    """Why a notebook failed: the cell, the error and its message."""
    from papermill.exceptions import PapermillExecutionError

    if isinstance(error, PapermillExecutionError):
        message = f"Cell {error.cell_index + 1}: {error.ename}: {error.evalue}"
        return re.sub(r"\x1b\[[\d;]*[A-Za-z]", "", message)
    return f"{_last_begun(executed)}{type(error).__name__}: {error}"


def _hash(*parts: Any) -> str:
    return sha256(json.dumps(parts, sort_keys=True, default=str).encode()).hexdigest()[:16]


def _library() -> str:
    """A hash of the library's source; templates decide how a page looks, not what it says."""
    paths = [path for kind in ("*.py", "*.js", "*.css") for path in sorted(LIBRARY.rglob(kind))]
    paths = [path for path in paths if path.parent.name != "templates"]
    return _hash(*(path.read_text(encoding="utf-8") for path in paths))


def _source(notebook: Path) -> list[str]:
    """What a notebook's cells say, whatever outputs were saved with them."""
    cells = json.loads(notebook.read_text(encoding="utf-8"))["cells"]
    return ["".join(cell["source"]) for cell in cells]


def _recorded_run(executed: Path) -> Run:
    """The run that an executed notebook recorded; RunError if there is none, or it is damaged."""
    values = recorded(json.loads(executed.read_text(encoding="utf-8")))
    if "run" not in values:
        raise RunError("The notebook finished, but recorded no run: notebook.record(run=...).")
    return Run.load(values["run"])


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


def _article(
    executed: Path, page: Page, report: Report, url: Callable[[Page], str]
) -> dict[str, Any]:
    """An executed notebook as a part of a page: id, title, html, contents (anchor, heading)."""
    import nbformat
    from nbconvert import HTMLExporter

    notebook = nbformat.read(executed, as_version=4)
    cells = [cell for cell in notebook.cells if MARKER not in cell.metadata.get("tags", [])]
    if len(cells) < len(notebook.cells):
        # The page says it better, and the cells keep the numbers that errors name.
        notebook.cells = cells
        with atomic_path(executed) as temporary:
            nbformat.write(notebook, temporary)
    for cell in notebook.cells:
        if cell.cell_type == "code":
            for output in cell.outputs:
                page.answer = output.get("data", {}).get(ANSWER, page.answer)
            cell.outputs = [output for output in cell.outputs if _is_shown(output)]
    exporter = HTMLExporter(template_file=str(TEMPLATES / "article.html.j2"))
    exporter.register_filter("figure_json", _script_json)
    resources = {"page": page, "report": report, "figure": FIGURE, "caption": CAPTION}
    body, _ = exporter.from_notebook_node(notebook, resources | {"metadata": {"name": page.name}})
    if page.answer:
        answer = f'</h1><p class="answer">{escape(page.answer)}</p>'
        body = body.replace("</h1>", answer, 1)
    body = re.sub(r'<a class="anchor-link".*?</a>', "", body)
    contents = re.findall(r'<h2 id="([^"]+)">(.*?)</h2>', body)
    return {
        "id": page.name,
        "title": page.name,
        "html": _link_pages(body, report, url),
        "contents": contents,
    }


def _write_page(
    path: Path,
    parts: list[dict[str, Any]],
    report: Report,
    *,
    title: str,
    home: str,
    page: Page | None = None,
    assets: str = "../assets",
    plotly: str = "",
) -> None:
    """Write a page of one or more parts; plotly: its source, if it shall not be loaded."""
    text = _template("page.html.j2").render(
        parts=parts,
        report=report,
        title=title,
        home=home,
        page=page,
        assets=assets,
        plotly=plotly,
        style=_asset("style.css"),
        script=_asset("page.js"),
    )
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def _is_shown(output: dict[str, Any]) -> bool:
    """Whether a page shows an output: progress bars, dead widgets and records it does not."""
    if output["output_type"] == "stream" and output["name"] == "stderr":
        return not re.search(r"\r|\d+%\|", output["text"])
    data = output.get("data", {})
    # A widget is dead on a page; an explorer brings HTML that stands in its place.
    return not {RECORD, ANSWER} & set(data) and (WIDGET not in data or "text/html" in data)


def _link_pages(body: str, report: Report, url: Callable[[Page], str]) -> str:
    """Turn links between notebooks into links between the report's pages."""
    page_of: dict[str, str] = {}
    for page in report.pages:
        page_of.setdefault(page.notebook, url(page))
    return re.sub(
        r'href="(\d\d_\w+)\.ipynb"',
        lambda link: f'href="{page_of.get(link[1], "index.html")}"',
        body,
    )


def _publish(report: Report, out: Path) -> None:
    """Save the manifest, then the report's own index and the common one."""
    report.save()
    title = f"{report.dataset['name']} · mmctr report"
    own = _summary(report, lambda page: page.file)
    _write_page(report.index, [own], report, title=title, home="index.html")
    name = report.folder.name
    common = _summary(report, lambda page: f"{name}/{page.file}", _all_reports(out))
    path = out / "index.html"
    _write_page(path, [common], report, title=title, home="index.html", assets="assets")


def _summary(
    report: Report, url: Callable[[Page], str], reports: list[Report] | None = None
) -> dict[str, Any]:
    """A report's index as a part of a page; beside `reports`, the latest first, if given."""
    runs = report.load_runs()
    html = _template("index.html.j2").render(
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
    runs = {run.folder: run for other in same for run in _runs_left(other)}
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
    runs = _runs_left(report)
    if not runs:
        return "", None
    first = strategy_table(runs).iloc[0]
    return first["strategy"], first["AUC"]


def _runs_left(report: Report) -> list[Run]:
    """A report's runs that were not deleted since."""
    runs = []
    for run in report.runs:
        try:
            runs.append(Run.load((report.folder / run).resolve()))
        except MMCTRError:
            continue
    return runs


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


def _template(name: str) -> Any:
    from jinja2 import Environment

    environment = Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True)
    return environment.from_string(_asset(name))


def _asset(name: str) -> str:
    return (TEMPLATES / name).read_text(encoding="utf-8")


def _script_json(value: Any) -> str:
    """JSON that cannot end the script element it stands in."""
    return json.dumps(value).replace("<", "\\u003c")
