"""Executed notebooks as HTML pages: what is shown, in which template, with which links."""

import json
import re
from collections.abc import Callable
from html import escape
from importlib.resources import files
from pathlib import Path
from typing import Any

from mmctr.files import atomic_path
from mmctr.report.reports import Page, Report

RECORD = "application/vnd.mmctr.record+json"
ANSWER = "application/vnd.mmctr.answer+json"  # the paragraph that a page begins with
CAPTION = "application/vnd.mmctr.caption+json"  # of the output before it
FIGURE = "application/vnd.plotly.v1+json"
MARKER = "papermill-error-cell-tag"  # of the notices that papermill puts into a failed notebook
WIDGET = "application/vnd.jupyter.widget-view+json"
TEMPLATES = files("mmctr.report") / "templates"


def article(
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


def write_page(
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
    text = template("page.html.j2").render(
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


def write_assets(out: Path) -> None:
    """Store plotly.js once for all reports."""
    from plotly.offline import get_plotlyjs

    path, text = out / "assets" / "plotly.min.js", get_plotlyjs()
    if not path.exists() or path.read_text(encoding="utf-8") != text:
        with atomic_path(path) as temporary:
            temporary.write_text(text, encoding="utf-8")


def template(name: str) -> Any:
    from jinja2 import Environment

    environment = Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True)
    return environment.from_string(_asset(name))


def _asset(name: str) -> str:
    return (TEMPLATES / name).read_text(encoding="utf-8")


def _script_json(value: Any) -> str:
    """JSON that cannot end the script element it stands in."""
    return json.dumps(value).replace("<", "\\u003c")
