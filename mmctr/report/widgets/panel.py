"""Explorers for JupyterLab: what attention reads, which items are alike, who clicks a new one.

An explorer is made of ipywidgets and of panels: HTML that Python writes, with buttons that call
back. Titles are data of strangers: every one of them goes through `escape`. Where nobody can press
a button, because papermill runs the notebook, a static page with the same content takes its place.
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
import traitlets
from IPython import get_ipython
from IPython.display import HTML
from PIL import ImageOps

from mmctr.content.image import open_cover
from mmctr.data.catalog import Catalog

THUMBNAIL = 88  # pixels
FOUND = 8  # items that a search shows
ASSETS = files("mmctr.report") / "assets"
STYLE = (ASSETS / "panel.css").read_text(encoding="utf-8")


# The last explorer of each kind, and what it explores.
_explorers: dict[object, tuple[list[object], ipywidgets.Widget]] = {}


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


def attended() -> bool:
    """Whether a front end that shows widgets, such as JupyterLab, asked for the running cell.

    Front ends name the cell that they run; papermill and nbconvert do not.
    """
    shell = get_ipython()
    request = shell.get_parent() if hasattr(shell, "get_parent") else {}
    return "cellId" in request.get("metadata", {})


def kept(key: tuple[object, ...], make: Callable[[], ipywidgets.Widget]) -> ipywidgets.Widget:
    """The explorer of a key as it was left; made anew if the last of its kind had another key.

    A notebook that is reloaded before it was saved has lost its outputs, but not its kernel: the
    cell that is run again shows what was explored. key: the kind, and what it explores.
    """
    kind, *explored = key
    if kind not in _explorers or _explorers[kind][0] != explored:
        _explorers[kind] = explored, make()
    return _explorers[kind][1]


def find_items(catalog: Catalog, text: str) -> list[int]:
    """Items whose own id is a text, or whose title contains it in whatever case; none for none."""
    text = text.strip()
    if not text:
        return []
    by_id = np.flatnonzero(catalog.ids == text).tolist()
    titles = pd.Series(catalog.titles).astype(str)
    titled = np.flatnonzero(titles.str.contains(text, case=False, regex=False))
    return list(dict.fromkeys([*by_id, *titled[titled > 0].tolist()]))


def thumbnail(catalog: Catalog, item: int) -> str:
    """A small JPEG of the item's cover as a data URI; empty if it has none that can be read."""
    path = catalog.covers.get(item)
    return _data_uri(path) if path else ""


@lru_cache(maxsize=4096)
def _data_uri(path: Path) -> str:
    cover = open_cover(path, enough=2 * THUMBNAIL)
    if isinstance(cover, str):
        return ""
    file, size = io.BytesIO(), (THUMBNAIL, THUMBNAIL)
    # Of a banner the middle would look like any other cover.
    is_odd = max(cover.size) > 2.5 * min(cover.size)
    shown = ImageOps.pad(cover, size, color="#8a8f98") if is_odd else ImageOps.fit(cover, size)
    shown.save(file, "JPEG", quality=75)
    return "data:image/jpeg;base64," + base64.b64encode(file.getvalue()).decode()


def static_page(page: str) -> HTML:
    return HTML(f'<style>{STYLE}</style><div class="mmctr-panel">{page}</div>')


def labelled(name: str) -> dict[str, object]:
    return {"description": name, "style": {"description_width": "auto"}}


def text_field(
    name: str, hint: str = "words of a title, or an item id", *, as_typed: bool = True
) -> ipywidgets.Text:
    """A field that answers while one types, or if that would take too long when it is left."""
    return ipywidgets.Text(placeholder=hint, continuous_update=as_typed, **labelled(name))


def one_line(*widgets: ipywidgets.Widget) -> ipywidgets.HBox:
    return ipywidgets.HBox(widgets, layout={"flex_flow": "row wrap", "grid_gap": "4px 12px"})


def strip_html(tiles: list[str]) -> str:
    return f'<div class="strip">{"".join(tiles)}</div>'


def found_html(catalog: Catalog, text: str, action: str, label: str) -> str:
    """How many items a search finds, the first as buttons with one action; empty for no text."""
    items = find_items(catalog, text)
    tiles = [
        tile_html(catalog, item, action=action, value=item, label=label) for item in items[:FOUND]
    ]
    if not items:
        return f"<p>No item has the id or title {escape(text)}.</p>" if text else ""
    several = "1 item has" if len(items) == 1 else f"{len(items):,} items have"
    first = f"; the first {FOUND} are shown" if len(items) > FOUND else ""
    said = f"{several} the id {escape(text)}, or it in the title{first}."
    return f'<p class="quiet">{said}</p>{strip_html(tiles)}'


def title_of(catalog: Catalog, item: int) -> str:
    return str(catalog.titles[item]).strip() or f"(item {catalog.ids[item]}, no title)"


def tooltip(catalog: Catalog, item: int) -> str:
    """The title with the item's own id."""
    title = str(catalog.titles[item]).strip()
    return f"{title} (item {catalog.ids[item]})" if title else title_of(catalog, item)


def cover_html(catalog: Catalog, item: int) -> str:
    """The cover, an empty frame beside other items' covers, or nothing where there are none."""
    picture = thumbnail(catalog, item)
    if picture:
        return f'<img class="cover" src="{picture}" alt="">'
    return '<span class="cover"></span>' if catalog.covers else ""


def tile_html(
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
    title, told = title_of(catalog, item), tooltip(catalog, item)
    inner = f'{cover_html(catalog, item)}<span class="title">{escape(title)}</span>{bars}'
    inner += f'<span class="effect">{escape(note)}</span>' if note else ""
    if action:
        named = {"title": told, "aria-label": f"{title}. {label}"}
        named["aria-pressed"] = str(pressed).lower()
        inner = button_html(inner, action, value, named)
    else:
        inner = f'<div class="still" title="{escape(told)}">{inner}</div>'
    if removable:
        named = {"class": "remove", "title": "Remove", "aria-label": f"Remove {title}"}
        inner += button_html("×", "remove", value, named)
    bare = "" if catalog.covers else " bare"
    return f'<div class="item{bare}">{inner}</div>'


def named_html(
    name: str,
    *,
    note: str,
    action: str = "",
    value: int = 0,
    pressed: bool = False,
    label: str = "",
) -> str:
    """What is no item, such as a user, by its name and a note; a button if there is an action."""
    inner = f'<span class="title">{escape(name)}</span><span class="effect">{escape(note)}</span>'
    if not action:
        return f'<div class="item bare"><div class="still">{inner}</div></div>'
    named = {"aria-label": f"{name}. {label}", "aria-pressed": str(pressed).lower()}
    return f'<div class="item bare">{button_html(inner, action, value, named)}</div>'


def button_html(inner: str, action: str, value: int, attributes: dict[str, str]) -> str:
    """A button that calls back with an action and a value; its attributes are escaped here."""
    told = {"data-key": f"{action}{value}", "data-action": action, "data-value": f"{value}"}
    words = "".join(f' {name}="{escape(text)}"' for name, text in (told | attributes).items())
    return f'<button type="button"{words}>{inner}</button>'


def row_html(catalog: Catalog, item: int, number: str, *, key: str = "") -> str:
    """An item as one line: small cover, title, number; a button if there is a key."""
    title, told = title_of(catalog, item), tooltip(catalog, item)
    inner = (
        f'{cover_html(catalog, item)}<span class="title">{escape(title)}</span>'
        f'<span class="number">{number}</span>'
    )
    if not key:
        return f'<div class="row" title="{escape(told)}">{inner}</div>'
    named = {"class": "row", "data-key": key, "title": told}
    return button_html(inner, "show", item, named)


def fact_html(name: str, number: str, note: str) -> str:
    """A number that stands out, its name above and a note below it."""
    return (
        f'<div class="fact"><div class="quiet">{name}</div><div class="number">{number}</div>'
        f'<div class="quiet">{note}</div></div>'
    )
