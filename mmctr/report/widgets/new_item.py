"""The explorer of new items: describe one, and see who would click it, and why."""

import base64
import io
import tempfile
from collections.abc import Callable
from dataclasses import replace
from html import escape
from pathlib import Path

import ipywidgets
import numpy as np
import pandas as pd
from IPython.display import HTML
from PIL import ImageOps

from mmctr.content.encoders import Encoders
from mmctr.content.image import open_cover
from mmctr.data import schema
from mmctr.errors import MMCTRError
from mmctr.evaluation.described import WHOLE, Description, Prospects
from mmctr.evaluation.new_items import NEW, Trial
from mmctr.report.widgets import panel

SHOWN = 3  # items on a page
LISTED = 6  # neighbours, tags and users of a description
OFFERED = 500  # tags to choose from, the most frequent ones
ALL_PARTS = ("text", "image", "tags")
TAKE = {"all of": ALL_PARTS, "the text of": ("text",), "the picture of": ("image",)}
TAKE |= {"the tags of": ("tags",)}


def explore_new_item(trial: Trial) -> "NewItemExplorer | HTML":
    """Describe an item, and see its neighbours, who would click it, and what of it counts.

    Without a front end: the page of the new items that were clicked most.
    """
    view = NewItemView(trial)
    if view.prospects.model is None:
        return HTML(
            "<p>Items can be described to runs of v1 to v6 and ids: there is none here.</p>"
        )
    if not panel.attended():
        return panel.static_page(view.page())
    scored = tuple(scores.tobytes() for scores in trial.scores.values())
    key = (NewItemExplorer, trial.dataset.fingerprint, *trial.scores, hash(scored))
    return panel.kept(key, lambda: NewItemExplorer(view))


class NewItemView:
    """What a trial's best model makes of described items, as HTML."""

    def __init__(self, trial: Trial) -> None:
        self.prospects, self.catalog = Prospects(trial), trial.dataset.catalog
        self.encoders = Encoders(trial.dataset.encoders, schema.TEXT_COLUMN, schema.IMAGE_COLUMN)
        clicked = trial.rows.target[(trial.group == NEW).to_numpy() & (trial.rows.label == 1)]
        counts = pd.Series(clicked).value_counts(sort=False).sort_values(ascending=False)
        # Where nobody clicked a new item, the first ones do.
        self.items = [*counts.index, *np.flatnonzero(trial.new)][:SHOWN]
        tags = pd.Series(self.catalog.tags[1:].ravel()).loc[lambda tag: tag > 0].value_counts()
        self.tags = {self.catalog.tag_name(tag): int(tag) for tag in tags.index[:OFFERED]}

    def page(self) -> str:
        """The most clicked new items as if they were described, without buttons."""
        shown = [
            self.seen(Description.of_item(self.catalog, item), panel.thumbnail(self.catalog, item))
            for item in map(int, self.items)
        ]
        return "".join(shown) or "<p>There is no new item to describe.</p>"

    def seen(self, described: Description, picture: str = "") -> str:
        """A description, its score, what each part adds, its neighbours, and who would click."""
        scores = self.prospects.scores(described)
        title = described.title.strip() or "(no title)"
        tags = ", ".join(map(self.catalog.tag_name, described.tags)) or "none"
        image = f'<img class="cover" src="{picture}" alt="">' if picture else ""
        columns = [
            ("Nearest items", self._neighbours(described)),
            ("By a tag of the history: highest, lowest", self._by_tag(scores)),
            ("Users with the highest score", self._users(scores)),
        ]
        body = "".join(f"<div><h5>{name}</h5>{inner}</div>" for name, inner in columns)
        return (
            f'<h4>{escape(title)}</h4><div class="head">{image}<div class="facts">'
            f"{self._facts(described, scores)}</div></div>"
            f'<p class="quiet">Tags: {escape(tags)}.</p><div class="columns">{body}</div>'
        )

    def _facts(self, described: Description, scores: pd.DataFrame) -> str:
        mean, usual = scores[WHOLE].mean(), self.prospects.usual
        facts = [("Mean score", f"{mean:.3f}", f"of {len(scores):,} users")]
        if len(usual):
            facts.append(("Above", f"{(usual < mean).mean():.0%}", f"of {len(usual)} new items"))
        parts = self.prospects.parts(described)
        for part in parts:
            words = f"{100 * (mean - scores[part].mean()):+.1f}".replace("-", "−")
            words = "0.0" if words in ("+0.0", "−0.0") else words
            facts.append((f"From its {part}", words, "points of the score"))
        return "".join(panel.fact_html(*fact) for fact in facts)

    def _neighbours(self, described: Description) -> str:
        near = self.prospects.neighbours(described, LISTED)
        lines = [
            panel.row_html(self.catalog, line.item, f"{line.cosine:.2f}")
            for line in near.itertuples()
        ]
        return "".join(lines) or '<p class="quiet">This strategy has no item embedding.</p>'

    def _by_tag(self, scores: pd.DataFrame) -> str:
        table = self.prospects.by_tag(scores[WHOLE].to_numpy())
        half = LISTED // 2
        shown = table if len(table) <= LISTED else pd.concat([table[:half], table[-half:]])
        highest = max(shown["score"].max(), 1e-9) if len(shown) else 1
        lines = [
            _line(self.catalog.tag_name(line.tag), f"{line.users} users", line.score, highest)
            for line in shown.itertuples()
        ]
        return "".join(lines) or '<p class="quiet">No tag was clicked by ten of these users.</p>'

    def _users(self, scores: pd.DataFrame) -> str:
        first, lines = scores[WHOLE].nlargest(LISTED), []
        for row, score in first.items():
            history = self.prospects.rows.history(row)[-2:][::-1]
            lately = "; ".join(panel.title_of(self.catalog, item) for item in history)
            user = f"user {scores['user'][row]}"
            lines.append(_line(user, f"lately {lately}" if lately else "", score, first.max()))
        return "".join(lines)


class NewItemExplorer(ipywidgets.VBox):
    """A form for an item, and what the model makes of what stands in it."""

    def __init__(self, view: NewItemView) -> None:
        self.view, self.picture = view, ""
        self.title = panel.text_field("Title", "type the title of an item", as_typed=False)
        self.tags = ipywidgets.TagsInput(
            allowed_tags=list(view.tags), allow_duplicates=False, placeholder="choose tags"
        )
        self.upload = ipywidgets.FileUpload(accept="image/*", description="Picture")
        self.take = ipywidgets.Dropdown(options=list(TAKE), **panel.labelled("Take"))
        self.search = panel.text_field("Item")
        self.found = panel.Panel(self._press, label="Items to take parts of", live=True)
        self.told = panel.Panel(self._press, label="What could not be done", live=True)
        self.seen = panel.Panel(self._press, label="The item and who would click it", live=True)
        form = panel.one_line(self.title, self.upload, ipywidgets.Label("Tags"), self.tags)
        super().__init__(
            [form, panel.one_line(self.take, self.search), self.found, self.told, self.seen]
        )
        self.described = Description()
        self._press("take", int(view.items[0])) if view.items else self._refresh()
        self.title.observe(lambda change: self.write(change["new"]), "value")
        self.tags.observe(lambda _: self._choose_tags(), "value")
        self.upload.observe(lambda _: self._drop(), "value")
        self.search.observe(lambda _: self._find(), "value")

    def write(self, title: str) -> None:
        """Give the item another title, and its text where the encoder is at hand."""
        if title == self.described.title:
            return
        changed = replace(self.described, title=title)
        self._encode("title", lambda: replace(changed, text=self.view.encoders.text(title)))

    def show_picture(self, path: Path) -> None:
        """Give the item another picture, if the encoder is at hand and the file can be read."""
        cover = open_cover(path, enough=2 * panel.THUMBNAIL)
        if isinstance(cover, str):
            self._say(f"The picture was not read: {cover}.")
            return
        encode = self.view.encoders.image
        if self._encode("picture", lambda: replace(self.described, image=encode(path))):
            file = io.BytesIO()
            ImageOps.fit(cover, (panel.THUMBNAIL, panel.THUMBNAIL)).save(file, "JPEG", quality=75)
            self.picture = "data:image/jpeg;base64," + base64.b64encode(file.getvalue()).decode()
            self._refresh()

    def _encode(self, what: str, changed: Callable[[], Description]) -> bool:
        try:
            self.described = changed()
        except MMCTRError as error:
            self._say(f"The {what} changes nothing yet. {error} Or take that of another item.")
            return False
        self._say("")
        self._refresh()
        return True

    def _say(self, words: str) -> None:
        self.told.html = f"<p>{escape(words)}</p>" if words else ""

    def _refresh(self) -> None:
        self.seen.html = self.view.seen(self.described, self.picture)

    def _choose_tags(self) -> None:
        tags = tuple(self.view.tags[name] for name in self.tags.value)
        if tags != self.described.tags:
            self.described = replace(self.described, tags=tags)
            self._refresh()

    def _drop(self) -> None:
        if self.upload.value:
            self._uploaded(bytes(self.upload.value[-1]["content"]))

    def _uploaded(self, content: bytes) -> None:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "picture"
            path.write_bytes(content)
            self.show_picture(path)

    def _find(self) -> None:
        text = self.search.value.strip()
        label = f"Take {self.take.value} this item"
        self.found.html = panel.found_html(self.view.catalog, text, "take", label)

    def _press(self, _action: str, item: int) -> None:
        """Take what is chosen of an item: all of it, its text, picture or tags."""
        catalog, parts = self.view.catalog, TAKE[self.take.value]
        other = Description.of_item(catalog, item)
        taken = {part: getattr(other, part) for part in parts} | {"item": item}
        taken |= {"title": other.title} if "text" in parts else {}
        described = replace(self.described, **taken)
        self.described = described
        self.title.value = described.title
        names = [catalog.tag_name(tag) for tag in described.tags]
        self.tags.value = [name for name in names if name in self.view.tags]
        if "image" in parts:
            self.picture = panel.thumbnail(catalog, item)
        self.described = described  # tags that are not offered would be lost
        self._say("")
        self._refresh()


def _line(name: str, note: str, score: float, highest: float) -> str:
    """A line of a list: a name, a note below it, a bar and a score."""
    width = 100 * score / max(highest, 1e-9)
    return (
        f'<div class="row" title="{escape(note)}"><span class="title">{escape(name)}'
        f'<span class="below quiet">{escape(note)}</span></span><span class="share">'
        f'<i style="width:{width:.0f}%"></i></span><span class="number">{score:.2f}</span></div>'
    )
