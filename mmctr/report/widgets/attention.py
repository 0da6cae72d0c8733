"""The explorer of attention: look into one impression, and change it."""

from dataclasses import replace
from functools import cached_property
from html import escape

import ipywidgets
import numpy as np
import pandas as pd
from IPython.display import HTML

from mmctr.data.dataset import Dataset
from mmctr.evaluation import explain
from mmctr.report.figures import style
from mmctr.report.widgets import panel
from mmctr.runs.run import Run

LISTED = 50  # impressions that a search lists
SAMPLED = 10_000  # impressions among which cases are chosen
LATEST_SHOWN = 16  # clicks of a history on a page


def explore_attention(
    run: Run, dataset: Dataset, row: int | None = None
) -> "AttentionExplorer | HTML":
    """Look into one valid impression at a time, and change it to see what the model would say.

    row: the one to begin with, by its place in the valid split. Without a front end: the page of
    all cases.
    """
    if not panel.attended():
        return panel.static_page(AttentionView(run, dataset, row).page())
    key = (AttentionExplorer, run.folder, dataset.fingerprint, row)
    return panel.kept(key, lambda: AttentionExplorer(AttentionView(run, dataset, row)))


class AttentionView:
    """The valid impressions of a run, and telling ones among them: what there is to explore."""

    def __init__(self, run: Run, dataset: Dataset, row: int | None = None) -> None:
        self.dataset, self.catalog, self.rows = dataset, dataset.catalog, dataset.valid
        self.model = run.model()
        self.probability = run.predictions["probability"].to_numpy()
        # A sample: attention of all rows may need more memory than there is.
        order = np.random.default_rng(0).permutation(len(self.rows))
        seen = np.sort(order[:SAMPLED])
        rows = self.rows.select(seen)
        weights = explain.attention(self.model, rows)
        found = explain.cases(rows, self.probability[seen], dataset.train_clicks(), weights)
        self.cases = {} if row is None else {f"Row {row}": row}
        self.cases |= {name: int(seen[place]) for name, place in found.items()}

    def page(self) -> str:
        """Every case as the explorer would show it, without buttons."""
        if not self.cases:
            return "<p>No history has two clicks: attention has nothing to choose between.</p>"
        seen = {name: Seen(self, row, *self.read(row)) for name, row in self.cases.items()}
        return "".join(f"<h4>{name}</h4>{one.head()}{one.strip()}" for name, one in seen.items())

    def read(self, row: int) -> tuple[int, np.ndarray]:
        """A row's target, and a copy of the clicks that are read: int32, the oldest first."""
        clicks = self.rows.history(row)[-self.model.config.max_history :]
        return int(self.rows.target[row]), clicks.copy()

    def name(self, row: int) -> str:
        """A row in one line."""
        clicked = "clicked" if self.rows.label[row] else "not clicked"
        title = panel.title_of(self.catalog, self.rows.target[row])[:60]
        predicted = f"{clicked}, predicted {self.probability[row]:.2f}"
        return f"user {self.users[row]}: {title} ({predicted})"

    @cached_property
    def users(self) -> pd.Series:
        """The own id of each row's user, as text."""
        return pd.Series(self.dataset.user_names(self.rows.user), dtype=object)


class AttentionExplorer(ipywidgets.VBox):
    """One impression, its attention, and what becomes of the prediction if it is changed."""

    def __init__(self, view: AttentionView) -> None:
        self.view = view
        self.case = ipywidgets.Dropdown(
            options=[*view.cases.items(), ("a user's impression", -1)], **panel.labelled("Case")
        )
        self.user = panel.text_field("User", "an id, or its beginning")
        self.impression = ipywidgets.Dropdown(**panel.labelled("Impression"))
        self.impression.layout = {"width": "auto", "flex": "1 1 260px"}
        self.told = ipywidgets.Label()  # what a search for users found
        self.search = panel.text_field("Swap for")
        self.reset = ipywidgets.Button(description="Undo all changes", tooltip="Undo all changes")
        self.head = panel.Panel(self._press, label="Target and prediction", live=True)
        self.strip = panel.Panel(self._press, label="History")
        self.strip.add_class("scrolls")  # the prediction stays in view
        self.found = panel.Panel(self._press, label="Items to swap in", live=True)
        controls = panel.one_line(self.case, self.user, self.told, self.impression)
        changes = panel.one_line(self.search, self.reset)
        super().__init__([controls, self.head, self.strip, changes, self.found])
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
            several = "" if len(rows) == 1 else "s"
            more = f", the first {LISTED} are listed" if len(rows) > LISTED else ""
            self.told.value = (
                f"{len(rows):,} impression{several} of {users[rows].nunique():,} "
                f"user{'s' if users[rows].nunique() > 1 else ''}{more}"
            )
        elif text:
            self.told.value = ""
            self.head.html = f"<p>No user of valid has an id that begins with {escape(text)}.</p>"
            self.strip.html = ""

    def show(self, row: int) -> None:
        """Show a valid row as it is."""
        self.row = row
        self.selected: int | None = None  # a position in the history; None: the target
        self.target, self.history = self.view.read(row)
        self._refresh()

    def _refresh(self) -> None:
        seen = Seen(self.view, self.row, self.target, self.history)
        self.head.html = seen.head(self.selected, editable=True)
        self.strip.html = seen.strip(self.selected, editable=True)
        self._show_found()

    def _show_found(self) -> None:
        place = "the target" if self.selected is None else f"click {self.selected + 1}"
        text, label = self.search.value.strip(), f"Put in place of {place}"
        prompt = f"Selected: {place}. Search an item to put in its place."
        found = panel.found_html(self.view.catalog, text, "swap", label)
        self.found.html = f'<p class="quiet">{prompt}</p>{found}'

    def _list(self, rows: list[int]) -> None:
        """Offer some impressions and show the first."""
        self.show(rows[0])
        self.impression.options = [(self.view.name(row), row) for row in rows]
        self.impression.value = rows[0]

    def _choose_case(self, change: dict) -> None:
        if change["new"] >= 0:
            self.told.value = ""
            self._list([change["new"]])

    def _choose_impression(self, change: dict) -> None:
        if change["new"] not in (None, self.row):
            self.show(change["new"])

    def _press(self, action: str, value: int) -> None:
        """Select a click of the history (-1: the target), remove one, swap in an item, or put the
        own target back."""
        if action == "select":
            self.selected = None if value < 0 else value
        elif action == "remove":
            self.history, self.selected = np.delete(self.history, value), None
        elif action == "restore":
            self.target, self.selected = self.view.read(self.row)[0], None
        elif self.selected is None:
            self.target = value
        else:
            self.history[self.selected] = value
        self._refresh()


class Seen:
    """The HTML of one impression, changed or not, with the numbers that `explain` gives."""

    def __init__(self, view: AttentionView, row: int, target: int, history: np.ndarray) -> None:
        self.catalog, self.rows, self.row = view.catalog, view.rows, row
        self.target, self.history = target, history
        self.own, as_read = view.read(row)
        self.unread = int(self.rows.history_length[row]) - len(as_read)
        self.changed = target != self.own or not np.array_equal(as_read, history)
        before = self.rows.select(np.array([row]))
        after = replace(
            before,
            target=np.array([target], dtype=np.int32),
            history_start=np.array([0]),
            history_end=np.array([len(history)]),
            history_items=history,
        )
        logits = [explain.logits(view.model, one)[0] for one in (before, after)]
        self.before, self.after = np.array(logits, dtype=np.float64)
        weights = explain.attention(view.model, after)
        self.weights = weights.pivot(index="age", columns="head", values="weight")
        clicks = explain.leave_one_out(view.model, after).set_index("age")
        self.without = (clicks["logit"] - clicks["effect"]).astype(np.float64)

    def head(self, selected: int | None = None, *, editable: bool = False) -> str:
        """The target and the prediction; selected: a click, or None if it is the target."""
        label = self.rows.label[self.row]
        swapped = self.target != self.own
        about = ", for the own target" if swapped else ""
        facts = [("Predicted", _probability(self.before), f"probability of a click{about}")]
        if self.changed:
            change = _change(self.before, self.after, " points")
            facts.append(("Now", _probability(self.after), f"{change} by your changes"))
        if not swapped:  # nobody knows whether another item would have been clicked
            unchanged = ", before your changes" if self.changed else ""
            clicked = ("clicked" if label else "not clicked") + unchanged
            facts.append(("Label", f"{label:.0f}", clicked))
            if self.rows.probability is not None:
                truth = self.rows.probability[self.row]
                facts.append(("Truth", f"{truth:.3f}", f"the simulation's{unchanged}"))
        cells = "".join(panel.fact_html(*fact) for fact in facts)
        target = panel.tile_html(
            self.catalog,
            self.target,
            note="target",
            label="Select the target",
            action="select" if editable else "",
            value=-1,
            pressed=selected is None,
        )
        if swapped:
            target += panel.tile_html(
                self.catalog,
                self.own,
                note="own target",
                label="Put it back",
                action="restore" if editable else "",
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
            change = _change(self.after, self.without[age])
            label = (
                f"Click {position + 1} of {count}. Weights: "
                + ", ".join(f"head {head} {weight:.2f}" for head, weight in weights.items())
                + f". Without it {change}. Select to swap"
            )
            tiles.append(
                panel.tile_html(
                    self.catalog,
                    item,
                    bars=bars,
                    note=f"without: {change}",
                    label=label,
                    action="select" if editable else "",
                    value=position,
                    pressed=position == selected,
                    removable=editable,
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
            f"{heads}<span>and how the probability changes without the click, in percentage points,"
            " or the logit, where that is less than a twentieth of a point</span></div>"
            f"{panel.strip_html(tiles)}"
        )


def _probability(logit: float) -> str:
    """A probability with three decimals, or as a power of ten where these would be 0."""
    value = explain.sigmoid(np.float64(logit))
    return f"{value:.3f}" if value >= 0.0005 else f"{value:.0e}"


def _change(before: float, after: float, unit: str = "") -> str:
    """A change of logits as one of the probability in percentage points, and its unit.

    Where that rounds to 0, as the change of the logit.
    """
    points = 100 * (explain.sigmoid(np.float64(after)) - explain.sigmoid(np.float64(before)))
    if abs(points) >= 0.05:
        return f"{points:+.1f}{unit}".replace("-", "−")
    text = f"{after - before:+.2f}"
    return "0.0" if text in ("+0.00", "-0.00") else f"{text} logit".replace("-", "−")


def _color(head: int) -> str:
    return style.PALETTE[(head - 1) % len(style.PALETTE)]
