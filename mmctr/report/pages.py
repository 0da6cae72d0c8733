"""Executed notebooks as HTML pages: what is shown, in which template, with which links."""

import re
from collections.abc import Callable
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any

from mmctr.files import atomic_path
from mmctr.report.export import linked_library_html, script_json
from mmctr.report.reports import Page, Report
from mmctr.runs.provenance import in_utc

RECORD = "application/vnd.mmctr.record+json"
ANSWER = "application/vnd.mmctr.answer+json"  # what a page begins with: words, or a verdict
LIBRARY = "application/vnd.mmctr.library+json"  # what draws figures outside JupyterLab
LEDGER = "application/vnd.mmctr.ledger+json"  # what the page's rows can show
CAPTION = "application/vnd.mmctr.caption+json"  # of the output before it
FIGURE = "application/vnd.plotly.v1+json"
MARKER = "papermill-error-cell-tag"  # of the notices that papermill puts into a failed notebook
WIDGET = "application/vnd.jupyter.widget-view+json"
PLOTLY = "assets/plotly.min.js"
TEMPLATES = files("mmctr.report") / "templates"


def article(
    executed: Path, page: Page, report: Report, url: Callable[[Page], str]
) -> dict[str, Any]:
    """An executed notebook as a part of a page (as_part); its answer and ledger go to `page`."""
    import nbformat
    from nbconvert import HTMLExporter

    notebook = nbformat.read(executed, as_version=4)
    cells = [cell for cell in notebook.cells if MARKER not in cell.metadata.get("tags", [])]
    outputs = [output for cell in cells for output in cell.get("outputs", [])]
    packed = [output.data for output in outputs if output.get("data", {}).get(LIBRARY)]
    for data in packed:
        # A report has plotly.js once for all.
        data |= {LIBRARY: {}, "text/html": linked_library_html(f"../../{PLOTLY}")}
    if packed or len(cells) < len(notebook.cells):
        # The page says it better, and the cells keep the numbers that errors name.
        notebook.cells = cells
        _write(executed, nbformat.writes(notebook))
    for cell in notebook.cells:
        if cell.cell_type == "code":
            for output in cell.outputs:
                page.answer = output.get("data", {}).get(ANSWER, page.answer)
                page.ledger = output.get("data", {}).get(LEDGER, page.ledger)
            cell.outputs = [output for output in cell.outputs if _is_shown(output)]
    exporter = HTMLExporter(template_file=str(TEMPLATES / "article.html.j2"))
    exporter.register_filter("figure_json", script_json)
    resources = {"page": page, "figure": FIGURE, "caption": CAPTION}
    body, _ = exporter.from_notebook_node(notebook, resources | {"metadata": {"name": page.name}})
    if page.answer:
        body = body.replace("</h1>", f"</h1>{answer_html(page.answer)}", 1)
    body = re.sub(r'<a class="anchor-link".*?</a>', "", body)
    # Links between notebooks become links between pages, the first of each notebook.
    page_of = {page.notebook: url(page) for page in reversed(report.pages)}
    body = re.sub(
        r'href="(\d\d_\w+)\.ipynb"',
        lambda link: f'href="{page_of.get(link[1], "index.html")}"',
        body,
    )
    return as_part(page.name, page.name, body)


def answer_html(answer: str | dict[str, Any]) -> str:
    """What a notebook found as HTML: a paragraph, or a verdict as its dictionary."""
    return template("answer.html.j2").render(answer=answer).strip()


def as_part(name: str, title: str, html: str) -> dict[str, Any]:
    """A part of a page: id, title, html, contents (anchor and heading of its sections)."""
    contents = re.findall(r'<h2 id="([^"]+)">(.*?)</h2>', html)
    return {"id": name, "title": title, "html": html, "contents": contents}


def write_page(
    path: Path,
    parts: list[dict[str, Any]],
    report: Report,
    *,
    page: Page | None = None,
    plotly: str = "",
) -> None:
    """Write an index, a page of a report, or all parts in one file that has plotly's source."""
    text = template("page.html.j2").render(parts=parts, report=report, page=page, plotly=plotly)
    _write(path, text)


def _is_shown(output: dict[str, Any]) -> bool:
    """Whether a page shows an output: progress bars, dead widgets and records it does not."""
    if output["output_type"] == "stream" and output["name"] == "stderr":
        return not re.search(r"\r|\d+%\|", output["text"])
    data = output.get("data", {})
    # A widget is dead on a page; an explorer brings HTML that stands in its place.
    return not {RECORD, ANSWER, LIBRARY} & set(data) and (WIDGET not in data or "text/html" in data)


def write_assets(out: Path) -> None:
    """Store plotly.js once for all reports."""
    from plotly.offline import get_plotlyjs

    path, text = out / PLOTLY, get_plotlyjs()
    if not path.exists() or path.read_text(encoding="utf-8") != text:
        _write(path, text)


@cache
def template(name: str) -> Any:
    from jinja2 import Environment, PackageLoader

    options = {"autoescape": True, "trim_blocks": True, "lstrip_blocks": True}
    environment = Environment(loader=PackageLoader("mmctr.report"), **options)
    environment.filters["in_utc"] = in_utc
    return environment.get_template(name)


def _write(path: Path, text: str) -> None:
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8")
