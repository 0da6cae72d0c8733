"""The tiles of the error atlas as a list, each of which opens on its worst predictions."""

import base64
from html import escape
from itertools import groupby

import numpy as np
import pandas as pd
from IPython.display import HTML

from mmctr.data.dataset import Dataset
from mmctr.evaluation.atlas import ALL, Tile, losses, worst
from mmctr.report.widgets import panel
from mmctr.runs.run import Run


def places(run: Run, tiles: list[Tile]) -> list[str]:
    """The id of each tile's element, of its own among all pages that may be joined in one file."""
    return [f"tile-{run.name}-{number}" for number in range(len(tiles))]


def worst_predictions(run: Run, dataset: Dataset, tiles: list[Tile], table: pd.DataFrame) -> HTML:
    """The table of atlas.measured, whose lines open on the rows of largest loss; and as CSV.

    Needs neither a kernel nor a script, so that it is the same in JupyterLab and on a page.
    """
    probability = run.predictions["probability"].to_numpy()
    loss = losses(dataset.valid.label, probability)
    lines = zip(tiles, table.to_dict("records"), places(run, tiles), strict=True)
    head = _cells("", "rows", "clicks", "AUC", "95% interval", "logloss")
    html = f'<div class="tiles"><div class="line quiet" aria-hidden="true">{head}</div>'
    for by, of_kind in groupby(lines, key=lambda line: line[0].by):
        html += "" if by == ALL else f"<h5>{escape(by)}</h5>"
        for tile, line, place in of_kind:
            found = [
                panel.tile_html(dataset.catalog, int(dataset.valid.target[row]), note=note)
                for row, note in _told(dataset, probability, worst(tile, loss))
            ]
            html += (
                f'<details id="{place}"><summary class="line">{_summary(line)}</summary>'
                f"{panel.strip_html(found)}</details>"
            )
    return panel.static_page(f"{html}</div>{_as_csv(run, table)}")


def _told(dataset: Dataset, probability: np.ndarray, rows: np.ndarray) -> list[tuple[int, str]]:
    """Each row with what is said below its target."""
    users, clicked = dataset.user_names(dataset.valid.user[rows]), dataset.valid.label[rows]
    return [
        (int(row), f"row {row}: user {user}, label {label:.0f}, predicted {probability[row]:.3f}")
        for row, user, label in zip(rows, users, clicked, strict=True)
    ]


def _summary(line: dict) -> str:
    low, high = line["auc_low"], line["auc_high"]
    known = not np.isnan(line["auc"])
    auc = f"{line['auc']:.4f}" if known else "–"
    between = f"{low:.4f} to {high:.4f}" if known else "–"
    few = " (few)" if line["few"] else ""
    counts = f"{line['rows']:,}", f"{line['clicks']:,}"
    return _cells(f"{line['value']}{few}", *counts, auc, between, f"{line['logloss']:.4f}")


def _cells(*texts: str) -> str:
    return "".join(f"<span>{escape(text)}</span>" for text in texts)


def _as_csv(run: Run, table: pd.DataFrame) -> str:
    """A link that holds the table: wherever the page goes, it goes along."""
    held = base64.b64encode(table.to_csv(index=False).encode()).decode()
    name = escape(f"atlas-{run.name}.csv")
    return f'<p><a download="{name}" href="data:text/csv;base64,{held}">All tiles as CSV</a></p>'
