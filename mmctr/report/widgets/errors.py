"""The gallery of erroneous entries: look at what was found, and tick what is to be left out."""

from html import escape

import ipywidgets
import pandas as pd
from IPython.display import HTML

from mmctr.content.errors import reasons
from mmctr.data.dataset import Dataset
from mmctr.data.erroneous import save_errors
from mmctr.report.widgets import panel

SHOWN = 48  # findings at once
EXAMPLES = 8  # of each kind on a page


def review_errors(
    dataset: Dataset, errors: pd.DataFrame, table: pd.DataFrame
) -> "ErrorGallery | HTML":
    """Findings of a kind, the worst first, each with a box to tick; ticks go into errors.parquet.

    errors, table: as `errors_of` gives them. Without a front end: a page of examples of each kind.
    """
    view = ErrorView(dataset, errors, table)
    if not panel.attended():
        return panel.static_page(view.page())
    gallery = panel.kept((ErrorGallery, dataset.folder), lambda: ErrorGallery(view))
    gallery.look_at(view)
    return gallery


class ErrorView:
    """Findings as tiles: cover, title, what was found, and whether it is left out."""

    def __init__(self, dataset: Dataset, errors: pd.DataFrame, table: pd.DataFrame) -> None:
        self.dataset, self.catalog = dataset, dataset.catalog
        self.errors = errors.reset_index(drop=True)
        counts = table[table["count"].fillna(0) > 0]
        self.counts = dict(zip(counts["kind"], counts["count"], strict=True))
        self.told = reasons(table)
        known = pd.Index(self.catalog.ids)
        of_items = self.errors["what"] != "user"
        self.item = pd.Series(known.get_indexer(self.errors["id"])).where(of_items, -1).tolist()

    def of(self, kind: str) -> pd.DataFrame:
        """The findings of a kind, the worst first."""
        found = self.errors[self.errors["kind"] == kind]
        return found.sort_values("score", ascending=False, kind="stable")

    def page(self) -> str:
        """Examples of each kind, without boxes."""
        parts = []
        for kind, count in self.counts.items():
            shown = self.of(kind).head(EXAMPLES)
            tiles = [self.tile(row, boxes=False) for row in shown.index]
            parts.append(f"<h4>{escape(kind)}: {count:,}</h4>{panel.strip_html(tiles)}")
        return "".join(parts) or "<p>Nothing was found.</p>"

    def tile(self, row: int, *, boxes: bool) -> str:
        """A finding, with a box that is ticked if it is left out."""
        found, item = self.errors.loc[row], self.item[row]
        score = "" if pd.isna(found["score"]) else f"{found['score']:.3g}"
        note = f"score {score}" if score else ""
        if boxes:
            box = "☑ left out" if found["excluded"] else "☐ kept"
            note = f"{box} ({score})" if score else box
        button = {"action": "tick", "value": row, "pressed": bool(found["excluded"])}
        button |= {"label": f"{found['kind']}, {note}"}
        if item > 0:
            return panel.tile_html(self.catalog, item, note=note, **(button if boxes else {}))
        name = f"{found['what']} {found['id']}"
        return panel.named_html(name, note=note, **(button if boxes else {}))

    def tick(self, row: int) -> None:
        """Leave out what was kept, or keep what was left out, and write it down."""
        self.errors.loc[row, "excluded"] = not self.errors.loc[row, "excluded"]
        save_errors(self.dataset.folder, self.errors, self.told)


class ErrorGallery(ipywidgets.VBox):
    """A kind to choose, and its findings to tick."""

    def __init__(self, view: ErrorView) -> None:
        self.view, self.shown = view, SHOWN
        self.kind = ipywidgets.Dropdown(**panel.labelled("Kind"))
        self.more = ipywidgets.Button(description="Show more")
        self.panel = panel.Panel(self._press, label="Findings to tick", live=True)
        super().__init__([panel.one_line(self.kind, self.more), self.panel])
        self.kind.observe(lambda _: self._choose(), "value")
        self.more.on_click(lambda _: self._choose(self.shown + SHOWN))
        self.look_at(view)

    def look_at(self, view: ErrorView) -> None:
        """Show the findings as they are now, of the kind that was chosen if it is still there."""
        self.view, chosen = view, self.kind.value
        self.kind.options = [(f"{kind} ({count:,})", kind) for kind, count in view.counts.items()]
        if chosen in view.counts:
            self.kind.value = chosen
        self._choose(self.shown)

    def _choose(self, shown: int | None = None) -> None:
        self.shown = SHOWN if shown is None else shown
        self._draw()

    def _draw(self) -> None:
        found = self.view.of(self.kind.value) if self.kind.value else self.view.errors.head(0)
        left_out = int(found["excluded"].sum())
        said = f"{left_out:,} of {len(found):,} left out. A click changes it and is kept at once."
        tiles = [self.view.tile(row, boxes=True) for row in found.index[: self.shown]]
        self.panel.html = f"<p>{said}</p>{panel.strip_html(tiles)}"
        self.more.disabled = self.shown >= len(found)

    def _press(self, _action: str, value: int) -> None:
        self.view.tick(value)
        self._draw()
