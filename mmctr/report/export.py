"""Figures and tables as HTML of a notebook: nbconvert's pages draw them, JupyterLab saves them.

JupyterLab draws a figure by plotly's own renderer. What nbconvert makes of the notebook knows none,
and needs plotly.js, which the notebook brings along once, packed.
"""

import base64
import gzip
import json
import re
from functools import cache
from html import escape
from importlib.resources import files
from typing import Any

import pandas as pd

SCRIPT = files("mmctr.report") / "assets" / "drawing.js"


@cache
def library_html() -> str:
    """What draws figures and saves them, plotly.js included, which is unpacked when it is used."""
    from plotly.offline import get_plotlyjs

    packed = base64.b64encode(gzip.compress(get_plotlyjs().encode(), mtime=0)).decode()
    return f'<script type="text/plain" id="mmctr-plotly">{packed}</script>{_script()}'


def linked_library_html(source: str) -> str:
    """The same with plotly.js in a file, at an address beside the page."""
    return f'<script src="{escape(source)}"></script>{_script()}'


def figure_html(figure: dict[str, Any]) -> str:
    """A figure of plotly's JSON, drawn by the library that stands in the page before it."""
    height = int(figure["layout"].get("height") or 400)
    return (
        f'<div style="min-height: {height}px">This figure is drawn where scripts run, and where '
        "the notebook's first output is kept.</div>"
        f'<script type="application/json">{script_json(figure)}</script>'
        "<script>window.mmctr?.draw(document.currentScript.previousElementSibling"
        ".previousElementSibling)</script>"
    )


def figure_buttons(caption: str) -> str:
    """Buttons that save the figure before them, named by its caption."""
    name = file_name(caption)  # of letters, digits and hyphens
    return " ".join(
        f'<button type="button" data-name="{name}" onclick="mmctr.save(this, \'{kind}\')">'
        f"{kind.upper()}</button>"
        for kind in ("svg", "png")
    )


def table_link(table: pd.DataFrame, caption: str) -> str:
    """A link that holds a table as CSV, its numbers unrounded, named by its caption."""
    text = base64.b64encode(table.to_csv(index=False).encode()).decode()
    name = f"{file_name(caption)}.csv"
    return f'<a download="{name}" href="data:text/csv;base64,{text}">CSV</a>'


def file_name(caption: str) -> str:
    """The first words of a caption as the name of a file."""
    words = re.findall(r"[^\W_]+", caption.lower())
    return "-".join(words[:6]) or "figure"


def script_json(value: Any) -> str:
    """JSON that cannot end the script element it stands in."""
    return json.dumps(value).replace("<", "\\u003c")


def _script() -> str:
    return f"<script>{SCRIPT.read_text(encoding='utf-8')}</script>"
