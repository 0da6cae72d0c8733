"""The explorer of items: a map, and the neighbours of an item under every strategy."""

from html import escape

import ipywidgets
import numpy as np
import pandas as pd
import plotly.graph_objects as go
from IPython.display import HTML

from mmctr.data.dataset import Dataset
from mmctr.evaluation.similarity import cosine, nearest
from mmctr.report.figures import embeddings, style
from mmctr.report.widgets import panel

NEIGHBOURS = 6
DIRECTIONS = {"←": (-1, 0), "→": (1, 0), "↑": (0, 1), "↓": (0, -1)}  # x and y
NAMES = dict(zip(DIRECTIONS, ("Left", "Right", "Up", "Down"), strict=True))


def explore_items(
    dataset: Dataset, embeddings: dict[str, np.ndarray], maps: dict[str, pd.DataFrame]
) -> "ItemExplorer | HTML":
    """Look at an item and its nearest neighbours under every strategy, side by side.

    embeddings: float32 [n_items + 1, width] by strategy. maps: as `figures.item_maps` takes them,
    with a column item. Without a front end: the page of the most clicked items.
    """
    view = ItemView(dataset, embeddings, maps)
    if not panel.attended():
        return panel.static_page(view.page())
    key = (ItemExplorer, dataset.fingerprint, *embeddings, view.drawn.tobytes())
    return panel.kept(key, lambda: ItemExplorer(view))


class ItemView:
    """Items, where they lie on the maps, and what is near them by each strategy."""

    def __init__(
        self, dataset: Dataset, embeddings: dict[str, np.ndarray], maps: dict[str, pd.DataFrame]
    ) -> None:
        self.catalog, self.embeddings, self.maps = dataset.catalog, embeddings, maps
        clicks = dataset.train_clicks()[1:]  # padding is no item
        ranked = 1 + np.argsort(-clicks, kind="stable")
        self.popular = ranked[:3].tolist()
        self.drawn = next(iter(maps.values()))["item"].to_numpy()
        self.first = int(ranked[np.isin(ranked, self.drawn)][0])  # the most clicked on the map

    def page(self) -> str:
        """The most clicked items with their neighbours, without buttons."""
        return "".join(self.neighbours(item) for item in self.popular)

    def beside(self, item: int, strategy: str) -> dict[str, int]:
        """The nearest item of a map in each direction, within 45 degrees of it, where one is."""
        table = self.maps[strategy]
        items, places = table["item"].to_numpy(), table[["x", "y"]].to_numpy()
        away = places - places[items == item]
        found = {}
        for sign, direction in DIRECTIONS.items():
            along, across = away @ direction, np.abs(away @ direction[::-1])
            there = np.flatnonzero((along > 0) & (across <= along))
            if len(there):
                found[sign] = int(items[there[np.argmin(np.hypot(*away[there].T))]])
        return found

    def steps(self, item: int, strategy: str) -> str:
        """Buttons that lead from an item to those beside it on a map; empty if it is not on it."""
        if item not in self.drawn:
            return ""
        buttons = [
            panel.button_html(
                f"{sign} {escape(panel.title_of(self.catalog, other))}",
                "show",
                other,
                {
                    "data-key": sign,
                    "class": "step",
                    "aria-label": f"{NAMES[sign]} on the map: {panel.tooltip(self.catalog, other)}",
                },
            )
            for sign, other in self.beside(item, strategy).items()
        ]
        return f'<div class="steps">{"".join(buttons)}</div>'

    def neighbours(self, item: int, *, buttons: bool = False) -> str:
        """An item and its nearest neighbours, a column a strategy."""
        columns = []
        for name, embedding in self.embeddings.items():
            near = nearest(embedding, item, NEIGHBOURS)
            likeness = cosine(embedding, np.full(len(near), item), near)
            lines = "".join(
                panel.row_html(
                    self.catalog, other, f"{value:.2f}", key=f"{name} {other}" if buttons else ""
                )
                for other, value in zip(near.tolist(), likeness, strict=True)
            )
            swatch = f'<span class="swatch" style="background:{style.strategy_color(name)}">'
            columns.append(f"<div><h5>{swatch}</span>{escape(name)}</h5>{lines}</div>")
        named = [self.catalog.tag_name(tag) for tag in self.catalog.tags[item] if tag]
        tags = escape(", ".join(named) or "none")
        if buttons and item not in self.drawn:
            tags += f" (not one of the {len(self.drawn):,} items on the map)"
        cover = panel.cover_html(self.catalog, item)
        image = f'<div class="item"><div class="still">{cover}</div></div>' if cover else ""
        return (
            f'<h4>{escape(panel.title_of(self.catalog, item))}</h4><div class="head">{image}'
            f'<p class="quiet">Item {escape(self.catalog.ids[item])}, tags {tags}. '
            "Its nearest neighbours by cosine similarity:</p></div>"
            f'<div class="columns">{"".join(columns)}</div>'
        )


class ItemExplorer(ipywidgets.VBox):
    """A map of items to click on, or to walk on by its buttons, and the neighbours of the chosen
    one by every strategy."""

    def __init__(self, view: ItemView) -> None:
        self.view, self.item, names = view, 0, list(view.maps)
        last = {"options": names, "value": names[-1]}
        self.strategy = ipywidgets.Dropdown(**last, **panel.labelled("Map of"))
        self.search = panel.text_field("Find")
        self.map = go.FigureWidget(self._figure())
        for trace in self.map.data[:-1]:
            trace.on_click(self._click)
        self.found = panel.Panel(self._press, label="Items found", live=True)
        self.steps = panel.Panel(self._press, label="Beside it on the map")
        self.panel = panel.Panel(self._press, label="The item and its neighbours", live=True)
        controls = panel.one_line(self.strategy, self.search)
        super().__init__([controls, self.found, self.map, self.steps, self.panel])
        self.strategy.observe(lambda _: self._redraw(), "value")
        self.search.observe(lambda change: self._find(change["new"].strip()), "value")
        self.show(view.first)

    def show(self, item: int) -> None:
        """Show an item and its neighbours, and mark it on the map."""
        self.item = item
        self.panel.html = self.view.neighbours(item, buttons=True)
        self._mark()

    def _figure(self) -> go.Figure:
        name = self.strategy.value
        figure = embeddings.item_maps({name: self.view.maps[name]})
        figure.update_traces(marker_size=8)
        ring = {"size": 16, "symbol": "circle-open", "line_width": 3, "color": style.SECOND}
        figure.add_scatter(
            x=[], y=[], mode="markers", hoverinfo="skip", showlegend=False, marker=ring
        )
        return figure.update_layout(height=460, clickmode="event", legend_title_text="tag")

    def _redraw(self) -> None:
        new = self._figure()
        with self.map.batch_update():
            for trace, moved in zip(self.map.data, new.data, strict=True):
                trace.x, trace.y = moved.x, moved.y
            self.map.layout.annotations = new.layout.annotations
        self._mark()

    def _mark(self) -> None:
        table = self.view.maps[self.strategy.value]
        here = table[table["item"] == self.item]
        with self.map.batch_update():
            self.map.data[-1].x, self.map.data[-1].y = here["x"].tolist(), here["y"].tolist()
        self.steps.html = self.view.steps(self.item, self.strategy.value)

    def _click(self, trace: go.Scatter, points: object, _state: object) -> None:
        if points.point_inds:
            self.show(int(trace.customdata[points.point_inds[0]]))

    def _find(self, text: str) -> None:
        items = panel.find_items(self.view.catalog, text)
        self.found.html = panel.found_html(self.view.catalog, text, "show", "Show")
        if len(items) == 1:
            self.show(items[0])

    def _press(self, _action: str, value: int) -> None:
        self.show(value)
