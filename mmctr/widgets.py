"""Explorers for JupyterLab: what attention reads in a history, and which items are alike.

An explorer is made of ipywidgets and of panels: HTML that Python writes, with buttons that call
back. Titles are data of strangers: every one of them goes through `escape`. Where nobody can press
a button (a report, a page of nbconvert) the explorer's static twin stands in its place.
"""

import base64
import io
from collections.abc import Callable
from functools import lru_cache
from html import escape
from importlib.resources import files
from pathlib import Path

import anywidget
import ipywidgets
import numpy as np
import pandas as pd
import plotly.graph_objects as go
import traitlets
from PIL import Image, ImageOps, UnidentifiedImageError

from mmctr import explain, figures
from mmctr.data.dataset import Catalog, Dataset, Impressions
from mmctr.training.checkpoint import Run

THUMBNAIL = 88  # pixels
NEIGHBOURS = 6
FOUND = 8  # items that a search shows
LISTED = 50  # impressions that a search lists
ASSETS = files("mmctr") / "widget_assets"
STYLE = (ASSETS / "panel.css").read_text(encoding="utf-8")


class Panel(anywidget.AnyWidget):
    """HTML whose buttons call back with their data-action and data-value.

    html: escaped by whoever makes it. label: the panel's name for screen readers. live: whether
    they should read out what changes.
    """

    _esm = (ASSETS / "panel.js").read_text(encoding="utf-8")
    _css = STYLE
    html = traitlets.Unicode().tag(sync=True)
    label = traitlets.Unicode().tag(sync=True)
    live = traitlets.Bool(False).tag(sync=True)

    def __init__(self, on_press: Callable[[str, int], None], **traits: object) -> None:
        super().__init__(**traits)
        self.add_class("mmctr-panel")
        self.on_msg(lambda _, message, __: on_press(message["action"], int(message["value"])))


class Explorer(ipywidgets.VBox):
    """Widgets, and what a page without a kernel shows in their place."""

    twin = ""

    def _repr_mimebundle_(self, **options: object) -> dict[str, object]:
        bundle = super()._repr_mimebundle_(**options)
        style = f"<style>{STYLE}</style>"
        return bundle | {"text/html": f'{style}<div class="mmctr-panel">{self.twin}</div>'}


def explore_attention(run: Run, dataset: Dataset) -> "AttentionExplorer":
    """Look into one valid impression at a time, and change it to see what the model would say."""
    return AttentionExplorer(run, dataset)


def explore_items(
    dataset: Dataset, embeddings: dict[str, np.ndarray], maps: dict[str, pd.DataFrame]
) -> "ItemExplorer":
    """Look at an item and its nearest neighbours under every strategy, side by side.

    embeddings: float32 [n_items + 1, width] by strategy. maps: as `figures.item_maps` takes them,
    with a column item.
    """
    return ItemExplorer(dataset, embeddings, maps)


class AttentionExplorer(Explorer):
    """One impression, its attention, and what becomes of the prediction if it is changed."""

    def __init__(self, run: Run, dataset: Dataset) -> None:
        self.catalog, self.rows = dataset.catalog, dataset.valid
        self.model = run.model()
        self.probability = run.predictions["probability"].to_numpy()
        weights = explain.attention(self.model, self.rows)
        self.cases = explain.cases(self.rows, self.probability, dataset.train_clicks(), weights)
        self.row, self.target, self.history = 0, 0, np.zeros(0, dtype=np.int32)
        self.selected: int | None = None  # a position in the history; None: the target

        wide = {"description_width": "auto"}
        self.case = ipywidgets.Dropdown(
            options=[*self.cases.items(), ("a user's impression", -1)],
            description="Case",
            style=wide,
        )
        self.user = ipywidgets.Text(
            description="User",
            placeholder="an id, or its beginning",
            style=wide,
            continuous_update=False,
        )
        self.impression = ipywidgets.Dropdown(description="Impression", style=wide)
        self.impression.layout.width = "auto"
        self.impression.layout.flex = "1 1 260px"
        self.search = ipywidgets.Text(
            description="Swap for",
            placeholder="words of a title, or an item id",
            style=wide,
            continuous_update=False,
        )
        self.reset = ipywidgets.Button(description="Undo all changes", tooltip="Undo all changes")
        self.head = Panel(self._press, label="Target and prediction", live=True)
        self.strip = Panel(self._press, label="History")
        self.found = Panel(self._press, label="Items to swap in", live=True)
        super().__init__(
            [
                _line(self.case, self.user, self.impression),
                self.head,
                self.strip,
                _line(self.search, self.reset),
                self.found,
            ]
        )
        self.case.observe(self._choose_case, "value")
        self.user.observe(lambda change: self.find_user(change["new"]), "value")
        self.impression.observe(self._choose_impression, "value")
        self.search.observe(lambda _: self._show_found(), "value")
        self.reset.on_click(lambda _: self.show(self.row))
        self._list([next(iter(self.cases.values()), int(self.rows.history_length.argmax()))])

    @property
    def twin(self) -> str:
        """Every case as the explorer would show it, without buttons."""
        if not self.cases:
            return "<p>No history has two clicks: attention has nothing to choose between.</p>"
        parts = []
        for name, row in self.cases.items():
            seen = _Impression(self, row)
            parts.append(f"<h4>{escape(name)}</h4>{seen.head()}{seen.strip()}")
        return "".join(parts)

    def find_user(self, text: str) -> None:
        """List the impressions of the users whose id begins with a text, and show the first."""
        text = text.strip()
        names = pd.Series(self.rows.user).astype(str)
        exact = np.flatnonzero(names == text)
        begun = names[names.str.startswith(text)].str.len().sort_values(kind="stable").index
        rows = exact if len(exact) else begun.to_numpy()
        if text and len(rows):
            self.case.value = -1
            self._list(rows[:LISTED].tolist())
        elif text:
            self.head.html = f"<p>No user of valid has an id that begins with {escape(text)}.</p>"
            self.strip.html = ""

    def show(self, row: int) -> None:
        """Show a valid row as it is."""
        self.row, self.target = row, int(self.rows.target[row])
        self.history = self._read(row)
        self.selected = None
        self._refresh()

    def remove(self, position: int) -> None:
        """Take a click out of the history; 0 is the oldest that is shown."""
        self.history = np.delete(self.history, position)
        self.selected = None
        self._refresh()

    def select(self, position: int | None) -> None:
        """Choose what `swap` replaces: a click of the history, or None for the target."""
        self.selected = position
        self._refresh()

    def swap(self, item: int) -> None:
        """Put an item in the place of what is selected."""
        if self.selected is None:
            self.target = item
        else:
            self.history = self.history.copy()
            self.history[self.selected] = item
        self._refresh()

    def impression_now(self) -> Impressions:
        """The impression with all changes, as one row."""
        return _one_row(self.rows, self.row, self.target, self.history)

    def _read(self, row: int) -> np.ndarray:
        return self.rows.history(row)[-self.model.config.max_history :]

    def _refresh(self) -> None:
        seen = _Impression(self, self.row, self.target, self.history)
        self.head.html = seen.head(self.selected)
        self.strip.html = seen.strip(self.selected, editable=True)
        self._show_found()

    def _show_found(self) -> None:
        place = "the target" if self.selected is None else f"click {self.selected + 1}"
        if not self.search.value.strip():
            self.found.html = (
                f'<p class="quiet">Selected: {place}. Search an item to put in its place.</p>'
            )
            return
        items = find_items(self.catalog, self.search.value)
        if not len(items):
            text = escape(self.search.value.strip())
            self.found.html = f"<p>No item has the id or title {text}.</p>"
            return
        tiles = [
            _tile(self.catalog, item, action="swap", value=item, label=f"Put in place of {place}")
            for item in items
        ]
        self.found.html = f"<p>Put in the place of {place}:</p>{_strip(tiles)}"

    def _list(self, rows: list[int]) -> None:
        """Offer some impressions and show the first."""
        self.show(rows[0])
        self.impression.options = [(self._name(row), row) for row in rows]
        self.impression.value = rows[0]

    def _name(self, row: int) -> str:
        clicked = "clicked" if self.rows.label[row] else "not clicked"
        title = str(self.catalog.titles[self.rows.target[row]]) or "(no title)"
        return (
            f"user {self.rows.user[row]}: {title[:60]} "
            f"({clicked}, predicted {self.probability[row]:.2f})"
        )

    def _choose_case(self, change: dict) -> None:
        if change["new"] >= 0:
            self._list([change["new"]])

    def _choose_impression(self, change: dict) -> None:
        if change["new"] not in (None, self.row):
            self.show(change["new"])

    def _press(self, action: str, value: int) -> None:
        if action == "select":
            self.select(None if value < 0 else value)
        elif action == "remove":
            self.remove(value)
        elif action == "swap":
            self.swap(value)


class _Impression:
    """The HTML of one impression, changed or not, with the numbers that `explain` gives."""

    def __init__(
        self,
        explorer: AttentionExplorer,
        row: int,
        target: int | None = None,
        history: np.ndarray | None = None,
    ) -> None:
        self.catalog, self.rows, self.row = explorer.catalog, explorer.rows, row
        self.target = int(self.rows.target[row]) if target is None else target
        as_read = explorer._read(row)
        self.history = as_read if history is None else history
        before = _one_row(self.rows, row, int(self.rows.target[row]), as_read)
        after = _one_row(self.rows, row, self.target, self.history)
        self.unread = int(self.rows.history_length[row]) - len(as_read)
        logit = [float(explain.logits(explorer.model, rows)[0]) for rows in (before, after)]
        self.before, self.after = explain.sigmoid(np.array(logit))
        self.changed = self.target != self.rows.target[row] or not np.array_equal(
            as_read, self.history
        )
        weights = explain.attention(explorer.model, after)
        self.weights = weights.pivot(index="age", columns="head", values="weight")
        clicks = explain.leave_one_out(explorer.model, after).set_index("age")
        without = explain.sigmoid((clicks["logit"] - clicks["effect"]).to_numpy(np.float64))
        self.loss = pd.Series(without - self.after, clicks.index)

    def head(self, selected: int | None = -1) -> str:
        """The target and the prediction; selected None marks the target, -1 leaves out buttons."""
        label = self.rows.label[self.row]
        facts = [("Predicted", f"{self.before:.3f}", "probability of a click")]
        if self.changed:
            points = _points(self.after - self.before)
            facts.append(("Now", f"{self.after:.3f}", f"{points} points by your changes"))
        unchanged = ", before your changes" if self.changed else ""
        clicked = ("clicked" if label else "not clicked") + unchanged
        facts.append(("Label", f"{label:.0f}", clicked))
        if self.rows.probability is not None:
            truth = self.rows.probability[self.row]
            facts.append(("Truth", f"{truth:.3f}", f"the simulation's{unchanged}"))
        cells = "".join(
            f'<div class="fact"><div class="quiet">{name}</div><div class="number">{number}</div>'
            f'<div class="quiet">{note}</div></div>'
            for name, number, note in facts
        )
        action = {} if selected == -1 else {"action": "select", "value": -1}
        target = _tile(
            self.catalog,
            self.target,
            note="target",
            label="Select the target",
            pressed=selected is None,
            **action,
        )
        return f'<div class="head">{target}<div class="facts">{cells}</div></div>'

    def strip(self, selected: int | None = None, *, editable: bool = False) -> str:
        """The history in time order, each head's weight and the effect of each click on it."""
        if not len(self.history):
            return "<p>The history is empty: the prediction rests on the target alone.</p>"
        count, highest = len(self.history), float(self.weights.to_numpy().max())
        tiles = []
        for position, item in enumerate(self.history.tolist()):
            age = count - position
            weights = self.weights.loc[age]
            bars = "".join(
                f'<span class="weight" title="head {head}: {weight:.3f}"><span><i style="width:'
                f'{100 * max(weight, 0) / max(highest, 1e-9):.0f}%;background:{_color(head)}"></i>'
                f"</span>{weight:.2f}</span>"
                for head, weight in weights.items()
            )
            points = _points(self.loss[age])
            label = (
                f"Click {position + 1} of {count}. Weights: "
                + ", ".join(f"head {head} {weight:.2f}" for head, weight in weights.items())
                + f". Without it {points} points. Select to swap"
            )
            action = {"action": "select", "value": position} if editable else {}
            tiles.append(
                _tile(
                    self.catalog,
                    item,
                    bars=bars,
                    note=f"without: {points}",
                    label=label,
                    pressed=editable and position == selected,
                    removable=editable,
                    **action,
                )
            )
        heads = "".join(
            f'<span><i style="background:{_color(head)}"></i>head {head}</span>'
            for head in self.weights.columns
        )
        unread = f" of {count + self.unread}, the model reads no more" if self.unread else ""
        return (
            f'<div class="legend"><span>{count} clicks{unread}; the oldest first. Weight of</span>'
            f"{heads}<span>and how the probability changes without the click, in percentage points"
            f"</span></div>{_strip(tiles)}"
        )


class ItemExplorer(Explorer):
    """A map of items to click on, and the neighbours of the chosen one by every strategy."""

    def __init__(
        self, dataset: Dataset, embeddings: dict[str, np.ndarray], maps: dict[str, pd.DataFrame]
    ) -> None:
        self.catalog, self.embeddings, self.maps = dataset.catalog, embeddings, maps
        self.popular = np.argsort(-dataset.train_clicks(), kind="stable")[:3].tolist()
        self.item = 0
        wide = {"description_width": "auto"}
        self.strategy = ipywidgets.Dropdown(
            options=list(maps), value=list(maps)[-1], description="Map of", style=wide
        )
        self.search = ipywidgets.Text(
            description="Find",
            placeholder="words of a title, or an item id",
            style=wide,
            continuous_update=False,
        )
        self.map = go.FigureWidget(self._figure())
        for trace in self.map.data[:-1]:
            trace.on_click(self._click)
        self.found = Panel(self._press, label="Items found", live=True)
        self.panel = Panel(self._press, label="The item and its neighbours", live=True)
        super().__init__([_line(self.strategy, self.search), self.found, self.map, self.panel])
        self.strategy.observe(lambda _: self._redraw(), "value")
        self.search.observe(lambda change: self._find(change["new"]), "value")
        self.show(self.popular[0])

    @property
    def twin(self) -> str:
        """The most clicked items with their neighbours."""
        return "".join(self._neighbours(item, buttons=False) for item in self.popular)

    def show(self, item: int) -> None:
        """Show an item and its neighbours, and mark it on the map."""
        self.item = item
        self.panel.html = self._neighbours(item, buttons=True)
        self._mark()

    def _figure(self) -> go.Figure:
        name = self.strategy.value
        figure = figures.item_maps({name: self.maps[name]})
        figure.add_scatter(
            x=[],
            y=[],
            mode="markers",
            name="chosen",
            hoverinfo="skip",
            showlegend=False,
            marker={"size": 16, "symbol": "circle-open", "line_width": 3, "color": figures.SECOND},
        )
        figure.update_traces(marker_size=8, selector={"showlegend": True})
        return figure.update_layout(height=460, clickmode="event", legend_title_text="tag")

    def _redraw(self) -> None:
        new = self._figure()
        with self.map.batch_update():
            for trace, moved in zip(self.map.data, new.data, strict=True):
                trace.x, trace.y = moved.x, moved.y
            self.map.layout.annotations = new.layout.annotations
        self._mark()

    def _mark(self) -> None:
        table = self.maps[self.strategy.value]
        here = table[table["item"] == self.item]
        with self.map.batch_update():
            self.map.data[-1].x, self.map.data[-1].y = here["x"].tolist(), here["y"].tolist()

    def _click(self, trace: go.Scatter, points: object, _state: object) -> None:
        if points.point_inds:
            self.show(int(trace.customdata[points.point_inds[0]]))

    def _find(self, text: str) -> None:
        items = find_items(self.catalog, text)
        tiles = [
            _tile(self.catalog, item, action="show", value=item, label="Show") for item in items
        ]
        nothing = f"<p>No item has the id or title {escape(text.strip())}.</p>" if text else ""
        self.found.html = _strip(tiles) if tiles else nothing
        if len(items) == 1:
            self.show(items[0])

    def _press(self, _action: str, value: int) -> None:
        self.show(value)

    def _neighbours(self, item: int, *, buttons: bool) -> str:
        columns = []
        for name, embedding in self.embeddings.items():
            near = explain.nearest(embedding, item, NEIGHBOURS)
            similarity = explain.cosine(embedding, np.full(len(near), item), near)
            lines = "".join(
                _row(self.catalog, other, f"{value:.2f}", key=f"{name} {other}" if buttons else "")
                for other, value in zip(near.tolist(), similarity, strict=True)
            )
            color = figures.strategy_color(name)
            columns.append(
                f'<div><h5><span class="swatch" style="background:{color}"></span>'
                f"{escape(name)}</h5>{lines}</div>"
            )
        title = escape(_title(self.catalog, item))
        tags = ", ".join(str(tag) for tag in self.catalog.tags[item] if tag) or "none"
        drawn = next(iter(self.maps.values()))["item"]
        if buttons and item not in drawn.values:
            tags += f" (not one of the {len(drawn):,} items on the map)"
        image = f'<div class="item"><div class="still">{_cover(self.catalog, item)}</div></div>'
        return (
            f'<h4>{title}</h4><div class="head">{image if self.catalog.covers else ""}'
            f'<p class="quiet">Item {item}, tags {tags}. Its nearest neighbours by cosine '
            f'similarity:</p></div><div class="columns">{"".join(columns)}</div>'
        )


def find_items(catalog: Catalog, text: str, limit: int = FOUND) -> list[int]:
    """Items whose id is a text or whose title contains it, whatever the case; none for no text."""
    text = text.strip()
    if not text:
        return []
    by_id = [int(text)] if text.isdecimal() and 0 < int(text) <= catalog.n_items else []
    titles = pd.Series(catalog.titles).astype(str)
    titled = np.flatnonzero(titles.str.contains(text, case=False, regex=False))
    return list(dict.fromkeys([*by_id, *titled[titled > 0].tolist()]))[:limit]


def thumbnail(catalog: Catalog, item: int) -> str:
    """A small JPEG of the item's cover as a data URI; empty if it has none that can be read."""
    path = catalog.covers.get(item)
    return _data_uri(path) if path else ""


@lru_cache(maxsize=4096)
def _data_uri(path: Path) -> str:
    try:
        with Image.open(path) as image:
            small = ImageOps.fit(image.convert("RGB"), (THUMBNAIL, THUMBNAIL))
    except (OSError, UnidentifiedImageError):
        return ""
    file = io.BytesIO()
    small.save(file, "JPEG", quality=75)
    return "data:image/jpeg;base64," + base64.b64encode(file.getvalue()).decode()


def _one_row(rows: Impressions, row: int, target: int, history: np.ndarray) -> Impressions:
    """A row with another target and history."""
    changed = {
        "target": np.array([target], dtype=np.int32),
        "history_start": np.array([0]),
        "history_end": np.array([len(history)]),
        "history_items": np.asarray(history, dtype=np.int32),
    }
    return Impressions(**(vars(rows.select(np.array([row]))) | changed))


def _line(*widgets: ipywidgets.Widget) -> ipywidgets.HBox:
    return ipywidgets.HBox(widgets, layout={"flex_flow": "row wrap", "grid_gap": "4px 12px"})


def _points(change: float) -> str:
    """A change of a probability in percentage points, with its sign."""
    text = f"{100 * change:+.1f}"
    return "0.0" if text in ("+0.0", "-0.0") else text.replace("-", "−")


def _strip(tiles: list[str]) -> str:
    return f'<div class="strip">{"".join(tiles)}</div>'


def _title(catalog: Catalog, item: int) -> str:
    return str(catalog.titles[item]).strip() or f"(item {item}, no title)"


def _color(head: int) -> str:
    return figures.PALETTE[(head - 1) % len(figures.PALETTE)]


def _cover(catalog: Catalog, item: int) -> str:
    """The cover, an empty frame beside other items' covers, or nothing where there are none."""
    picture = thumbnail(catalog, item)
    if picture:
        return f'<img class="cover" src="{picture}" alt="">'
    return '<span class="cover"></span>' if catalog.covers else ""


def _tile(
    catalog: Catalog,
    item: int,
    *,
    bars: str = "",
    note: str = "",
    label: str = "",
    action: str = "",
    value: int = 0,
    pressed: bool = False,
    removable: bool = False,
) -> str:
    """An item as cover, title, bars and note; a button if there is an action."""
    title = escape(_title(catalog, item))
    inner = f'{_cover(catalog, item)}<span class="title">{title}</span>{bars}' + (
        f'<span class="effect">{escape(note)}</span>' if note else ""
    )
    if action:
        key = f"{action}{value}"
        inner = (
            f'<button type="button" data-key="{key}" data-action="{action}" data-value="{value}" '
            f'aria-pressed="{str(pressed).lower()}" title="{title}" '
            f'aria-label="{title}. {escape(label)}">{inner}</button>'
        )
    else:
        inner = f'<div class="still" title="{title}">{inner}</div>'
    if removable:
        inner += (
            f'<button type="button" class="remove" data-key="remove{value}" data-action="remove" '
            f'data-value="{value}" title="Remove" aria-label="Remove {title}">×</button>'
        )
    bare = "" if catalog.covers else " bare"
    return f'<div class="item{bare}">{inner}</div>'


def _row(catalog: Catalog, item: int, number: str, *, key: str) -> str:
    """An item as one line: small cover, title, number; a button if there is a key."""
    title = escape(_title(catalog, item))
    inner = (
        f'{_cover(catalog, item)}<span class="title">{title}</span>'
        f'<span class="number">{number}</span>'
    )
    if not key:
        return f'<div class="row" title="{title}">{inner}</div>'
    return (
        f'<button type="button" class="row" data-key="{escape(key)}" data-action="show" '
        f'data-value="{item}" title="{title}">{inner}</button>'
    )
