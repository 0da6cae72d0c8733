"""Explorers for JupyterLab: what attention reads in a history, and which items are alike.

An explorer is made of ipywidgets and of panels: HTML that Python writes, with buttons that call
back. Titles are data of strangers: every one of them goes through `escape`. Where nobody can press
a button, because papermill runs the notebook, a static page with the same content takes its place.
"""

import base64
import io
from collections.abc import Callable
from functools import cached_property, lru_cache
from html import escape
from importlib.resources import files
from pathlib import Path

import anywidget
import ipywidgets
import numpy as np
import pandas as pd
import plotly.graph_objects as go
import traitlets
from IPython import get_ipython
from IPython.display import HTML
from PIL import Image, ImageOps

from mmctr.data.dataset import Catalog, Dataset, Impressions
from mmctr.evaluation import explain
from mmctr.report import figures
from mmctr.runs.run import Run

THUMBNAIL = 88  # pixels
NEIGHBOURS = 6
FOUND = 8  # items that a search shows
LISTED = 50  # impressions that a search lists
SAMPLED = 10_000  # impressions among which cases are chosen
LATEST_SHOWN = 16  # clicks of a history on a page
ASSETS = files("mmctr.report") / "assets"
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


def explore_attention(run: Run, dataset: Dataset) -> "AttentionExplorer | HTML":
    """Look into one valid impression at a time, and change it to see what the model would say.

    Without a front end: the page of all cases.
    """
    view = AttentionView(run, dataset)
    return AttentionExplorer(view) if attended() else _static(view.page())


def explore_items(
    dataset: Dataset, embeddings: dict[str, np.ndarray], maps: dict[str, pd.DataFrame]
) -> "ItemExplorer | HTML":
    """Look at an item and its nearest neighbours under every strategy, side by side.

    embeddings: float32 [n_items + 1, width] by strategy. maps: as `figures.item_maps` takes them,
    with a column item. Without a front end: the page of the most clicked items.
    """
    view = ItemView(dataset, embeddings, maps)
    return ItemExplorer(view) if attended() else _static(view.page())


def attended() -> bool:
    """Whether a front end that shows widgets, such as JupyterLab, asked for the running cell.

    Front ends name the cell that they run; papermill and nbconvert do not.
    """
    shell = get_ipython()
    request = shell.get_parent() if hasattr(shell, "get_parent") else {}
    return "cellId" in request.get("metadata", {})


class AttentionView:
    """The valid impressions of a run, and telling ones among them: what there is to explore."""

    def __init__(self, run: Run, dataset: Dataset) -> None:
        self.catalog, self.rows = dataset.catalog, dataset.valid
        self.model = run.model()
        self.probability = run.predictions["probability"].to_numpy()
        # A sample: attention of all rows may need more memory than there is.
        order = np.random.default_rng(0).permutation(len(self.rows))
        seen = np.sort(order[:SAMPLED])
        rows = self.rows.select(seen)
        weights = explain.attention(self.model, rows)
        found = explain.cases(rows, self.probability[seen], dataset.train_clicks(), weights)
        self.cases = {name: int(seen[row]) for name, row in found.items()}

    def page(self) -> str:
        """Every case as the explorer would show it, without buttons."""
        if not self.cases:
            return "<p>No history has two clicks: attention has nothing to choose between.</p>"
        seen = {name: Seen(self, row) for name, row in self.cases.items()}
        return "".join(f"<h4>{name}</h4>{one.head()}{one.strip()}" for name, one in seen.items())

    def read(self, row: int) -> np.ndarray:
        """The clicks of a row's history that the model reads, int32 [clicks], the oldest first."""
        return self.rows.history(row)[-self.model.config.max_history :]

    def name(self, row: int) -> str:
        """A row in one line."""
        clicked = "clicked" if self.rows.label[row] else "not clicked"
        return (
            f"user {self.rows.user[row]}: {_title(self.catalog, self.rows.target[row])[:60]} "
            f"({clicked}, predicted {self.probability[row]:.2f})"
        )

    @cached_property
    def users(self) -> pd.Series:
        """The user of each row as text."""
        return pd.Series(self.rows.user).astype(str)


class AttentionExplorer(ipywidgets.VBox):
    """One impression, its attention, and what becomes of the prediction if it is changed."""

    def __init__(self, view: AttentionView) -> None:
        self.view, self.row, self.target = view, 0, 0
        self.history = np.zeros(0, dtype=np.int32)
        self.selected: int | None = None  # a position in the history; None: the target
        self.case = ipywidgets.Dropdown(
            options=[*view.cases.items(), ("a user's impression", -1)], **_labelled("Case")
        )
        self.user = ipywidgets.Text(
            placeholder="an id, or its beginning", continuous_update=False, **_labelled("User")
        )
        self.impression = ipywidgets.Dropdown(**_labelled("Impression"))
        self.impression.layout = {"width": "auto", "flex": "1 1 260px"}
        self.search = _item_search("Swap for")
        self.reset = ipywidgets.Button(description="Undo all changes", tooltip="Undo all changes")
        self.head = Panel(self._press, label="Target and prediction", live=True)
        self.strip = Panel(self._press, label="History")
        self.strip.add_class("scrolls")  # the prediction stays in view
        self.found = Panel(self._press, label="Items to swap in", live=True)
        controls = _line(self.case, self.user, self.impression)
        super().__init__(
            [controls, self.head, self.strip, _line(self.search, self.reset), self.found]
        )
        self.case.observe(self._choose_case, "value")
        self.user.observe(lambda change: self.find_user(change["new"]), "value")
        self.impression.observe(self._choose_impression, "value")
        self.search.observe(lambda _: self._show_found(), "value")
        self.reset.on_click(lambda _: self.show(self.row))
        longest = int(view.rows.history_length.argmax())
        self._list([next(iter(view.cases.values()), longest)])

    def find_user(self, text: str) -> None:
        """List the impressions of the users whose id begins with a text, and show the first."""
        text, users = text.strip(), self.view.users
        exact = np.flatnonzero(users == text)
        begun = users[users.str.startswith(text)].str.len().sort_values(kind="stable").index
        rows = exact if len(exact) else begun.to_numpy()
        if text and len(rows):
            self.case.value = -1
            self._list(rows[:LISTED].tolist())
        elif text:
            self.head.html = f"<p>No user of valid has an id that begins with {escape(text)}.</p>"
            self.strip.html = ""

    def show(self, row: int) -> None:
        """Show a valid row as it is."""
        self.row, self.target = row, int(self.view.rows.target[row])
        self.history = self.view.read(row)
        self.select(None)

    def remove(self, position: int) -> None:
        """Take a click out of the history; 0 is the oldest that is shown."""
        self.history = np.delete(self.history, position)
        self.select(None)

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

    def _refresh(self) -> None:
        seen = Seen(self.view, self.row, self.target, self.history)
        self.head.html = seen.head(self.selected, editable=True)
        self.strip.html = seen.strip(self.selected, editable=True)
        self._show_found()

    def _show_found(self) -> None:
        place = "the target" if self.selected is None else f"click {self.selected + 1}"
        text, catalog = self.search.value.strip(), self.view.catalog
        if not text:
            prompt = f"Selected: {place}. Search an item to put in its place."
            self.found.html = f'<p class="quiet">{prompt}</p>'
            return
        swap = {"action": "swap", "label": f"Put in place of {place}"}
        tiles = [_tile(catalog, item, value=item, **swap) for item in find_items(catalog, text)]
        words = f"<p>Put in the place of {place}:</p>{_strip(tiles)}"
        self.found.html = words if tiles else _nothing_found(text)

    def _list(self, rows: list[int]) -> None:
        """Offer some impressions and show the first."""
        self.show(rows[0])
        self.impression.options = [(self.view.name(row), row) for row in rows]
        self.impression.value = rows[0]

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


class Seen:
    """The HTML of one impression, changed or not, with the numbers that `explain` gives."""

    def __init__(
        self,
        view: AttentionView,
        row: int,
        target: int | None = None,
        history: np.ndarray | None = None,
    ) -> None:
        self.catalog, self.rows, self.row = view.catalog, view.rows, row
        as_read, own = view.read(row), int(self.rows.target[row])
        self.target = own if target is None else target
        self.history = as_read if history is None else history
        self.unread = int(self.rows.history_length[row]) - len(as_read)
        self.changed = self.target != own or not np.array_equal(as_read, self.history)
        before = _one_row(self.rows, row, own, as_read)
        after = _one_row(self.rows, row, self.target, self.history)
        logit = [explain.logits(view.model, one)[0] for one in (before, after)]
        self.before, self.after = explain.sigmoid(np.array(logit, dtype=np.float64))
        weights = explain.attention(view.model, after)
        self.weights = weights.pivot(index="age", columns="head", values="weight")
        clicks = explain.leave_one_out(view.model, after).set_index("age")
        without = explain.sigmoid((clicks["logit"] - clicks["effect"]).to_numpy(np.float64))
        self.loss = pd.Series(without - self.after, clicks.index)

    def head(self, selected: int | None = None, *, editable: bool = False) -> str:
        """The target and the prediction; selected: a click, or None if it is the target."""
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
        action = {"action": "select", "value": -1} if editable else {}
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
        unread = f" ({self.unread} older ones are not read)" if self.unread else ""
        if not editable and count > LATEST_SHOWN:
            # A page has no scroll box, and its size must not grow with the history.
            tiles = tiles[-LATEST_SHOWN:]
            unread += f", of which the latest {LATEST_SHOWN} are shown"
        return (
            f'<div class="legend"><span>{count} clicks{unread}; the oldest first. Weight of</span>'
            f"{heads}<span>and how the probability changes without the click, in percentage points"
            f"</span></div>{_strip(tiles)}"
        )


class ItemView:
    """Items, where they lie on the maps, and what is near them by each strategy."""

    def __init__(
        self, dataset: Dataset, embeddings: dict[str, np.ndarray], maps: dict[str, pd.DataFrame]
    ) -> None:
        self.catalog, self.embeddings, self.maps = dataset.catalog, embeddings, maps
        self.popular = np.argsort(-dataset.train_clicks(), kind="stable")[:3].tolist()

    def page(self) -> str:
        """The most clicked items with their neighbours, without buttons."""
        return "".join(self.neighbours(item) for item in self.popular)

    def neighbours(self, item: int, *, buttons: bool = False) -> str:
        """An item and its nearest neighbours, a column a strategy."""
        columns = []
        for name, embedding in self.embeddings.items():
            near = explain.nearest(embedding, item, NEIGHBOURS)
            similarity = explain.cosine(embedding, np.full(len(near), item), near)
            lines = "".join(
                _row(self.catalog, other, f"{value:.2f}", key=f"{name} {other}" if buttons else "")
                for other, value in zip(near.tolist(), similarity, strict=True)
            )
            swatch = f'<span class="swatch" style="background:{figures.strategy_color(name)}">'
            columns.append(f"<div><h5>{swatch}</span>{escape(name)}</h5>{lines}</div>")
        tags = ", ".join(str(tag) for tag in self.catalog.tags[item] if tag) or "none"
        drawn = next(iter(self.maps.values()))["item"]
        if buttons and item not in drawn.to_numpy():
            tags += f" (not one of the {len(drawn):,} items on the map)"
        cover = _cover(self.catalog, item)
        image = f'<div class="item"><div class="still">{cover}</div></div>' if cover else ""
        return (
            f'<h4>{escape(_title(self.catalog, item))}</h4><div class="head">{image}'
            f'<p class="quiet">Item {item}, tags {tags}. Its nearest neighbours by cosine '
            f'similarity:</p></div><div class="columns">{"".join(columns)}</div>'
        )


class ItemExplorer(ipywidgets.VBox):
    """A map of items to click on, and the neighbours of the chosen one by every strategy."""

    def __init__(self, view: ItemView) -> None:
        self.view, self.item, names = view, 0, list(view.maps)
        self.strategy = ipywidgets.Dropdown(options=names, value=names[-1], **_labelled("Map of"))
        self.search = _item_search("Find")
        self.map = go.FigureWidget(self._figure())
        for trace in self.map.data[:-1]:
            trace.on_click(self._click)
        self.found = Panel(self._press, label="Items found", live=True)
        self.panel = Panel(self._press, label="The item and its neighbours", live=True)
        super().__init__([_line(self.strategy, self.search), self.found, self.map, self.panel])
        self.strategy.observe(lambda _: self._redraw(), "value")
        self.search.observe(lambda change: self._find(change["new"].strip()), "value")
        self.show(view.popular[0])

    def show(self, item: int) -> None:
        """Show an item and its neighbours, and mark it on the map."""
        self.item = item
        self.panel.html = self.view.neighbours(item, buttons=True)
        self._mark()

    def _figure(self) -> go.Figure:
        name = self.strategy.value
        figure = figures.item_maps({name: self.view.maps[name]})
        figure.update_traces(marker_size=8)
        ring = {"size": 16, "symbol": "circle-open", "line_width": 3, "color": figures.SECOND}
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

    def _click(self, trace: go.Scatter, points: object, _state: object) -> None:
        if points.point_inds:
            self.show(int(trace.customdata[points.point_inds[0]]))

    def _find(self, text: str) -> None:
        catalog = self.view.catalog
        items = find_items(catalog, text)
        show = {"action": "show", "label": "Show"}
        tiles = [_tile(catalog, item, value=item, **show) for item in items]
        self.found.html = _strip(tiles) if tiles else _nothing_found(text) if text else ""
        if len(items) == 1:
            self.show(items[0])

    def _press(self, _action: str, value: int) -> None:
        self.show(value)


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
            image.draft("RGB", (2 * THUMBNAIL, 2 * THUMBNAIL))  # a large JPEG is read in less time
            small = ImageOps.fit(image.convert("RGB"), (THUMBNAIL, THUMBNAIL))
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError):
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


def _static(page: str) -> HTML:
    return HTML(f'<style>{STYLE}</style><div class="mmctr-panel">{page}</div>')


def _labelled(name: str) -> dict[str, object]:
    return {"description": name, "style": {"description_width": "auto"}}


def _item_search(name: str) -> ipywidgets.Text:
    hint = "words of a title, or an item id"
    return ipywidgets.Text(placeholder=hint, continuous_update=False, **_labelled(name))


def _nothing_found(text: str) -> str:
    return f"<p>No item has the id or title {escape(text)}.</p>"


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
