"""The explorers as objects: what they show against `explain`, and titles that attack."""

import base64
import io
import re
import shutil
from dataclasses import replace
from html import escape
from html.parser import HTMLParser
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from IPython.display import HTML
from PIL import Image

from mmctr.content.errors import errors_of
from mmctr.content.fusion import item_embeddings
from mmctr.data.dataset import Dataset
from mmctr.data.erroneous import looked_for, read_errors
from mmctr.data.impressions import Impressions
from mmctr.evaluation import atlas, explain
from mmctr.evaluation.described import Description
from mmctr.evaluation.new_items import Trial
from mmctr.evaluation.similarity import nearest
from mmctr.model.din import DIN, DINConfig
from mmctr.report.widgets import attention
from mmctr.report.widgets import errors as error_gallery
from mmctr.report.widgets import panel as panels
from mmctr.report.widgets.attention import (
    AttentionExplorer,
    AttentionView,
    Seen,
    explore_attention,
)
from mmctr.report.widgets.errors import ErrorGallery, ErrorView, review_errors
from mmctr.report.widgets.items import ItemExplorer, ItemView
from mmctr.report.widgets.new_item import NewItemExplorer, NewItemView, explore_new_item
from mmctr.report.widgets.worst import places, worst_predictions
from mmctr.training.prediction import predict

HOSTILE = ("<script>alert(1)</script>", '"><img src=x onerror=alert(1)>', "'&amp;<b>")
TAGS = {"div", "span", "i", "p", "h4", "h5", "b", "img", "button", "style"}


class Elements(HTMLParser):
    """All elements of a page with their attributes, and its text."""

    def __init__(self, html):
        super().__init__()
        self.found, self.text = [], ""
        self.feed(html)

    def handle_starttag(self, tag, attrs):
        self.found.append((tag, dict(attrs)))

    def handle_data(self, data):
        self.text += data

    def of(self, tag):
        """The attributes of all elements of a kind."""
        return [found for name, found in self.found if name == tag]


@pytest.fixture(autouse=True)
def none_explored(monkeypatch):
    """Explorers are made anew in every test."""
    monkeypatch.setattr(panels, "_explorers", {})


def test_a_cell_that_is_run_again_shows_what_was_explored(tiny, tiny_run, monkeypatch):
    """As after a reload of a notebook that was not saved, whose outputs are gone."""
    monkeypatch.setattr(panels, "attended", lambda: True)
    first = explore_attention(tiny_run, tiny)
    first.show(7)
    first._press("swap", 5)
    assert explore_attention(tiny_run, Dataset.load(tiny.folder)) is first
    other = explore_attention(tiny_run, tiny, row=3)
    assert (other.row, first.target) == (3, 5)
    assert explore_attention(tiny_run, tiny) is not first, "the last one alone is kept"


def test_a_gallery_that_is_shown_again_has_its_kind_and_the_ticks_of_the_file(
    tiny_folder, tmp_path, monkeypatch
):
    monkeypatch.setattr(panels, "attended", lambda: True)
    data = Dataset.load(shutil.copytree(tiny_folder, tmp_path / "mine"))
    shown = review_errors(data, *errors_of(data))
    kind = list(shown.view.counts)[1]
    shown.kind.value = kind
    place = shown.view.of(kind).index[0]
    shown._press("tick", place)
    written = read_errors(data.folder)
    again = review_errors(data, *errors_of(data))
    assert (again is shown, again.kind.value) == (True, kind)
    assert again.view.errors["excluded"].tolist() == written["excluded"].tolist()
    assert not again.view.errors["excluded"][place]


@pytest.fixture
def explorer(tiny, tiny_run):
    return attention_explorer(tiny_run, tiny)


@pytest.fixture(scope="module")
def embeddings(tiny):
    return {name: item_embeddings(tiny, name) for name in ("v1", "v4")}


def attention_explorer(run, dataset):
    return AttentionExplorer(AttentionView(run, dataset))


def item_explorer(dataset, embeddings):
    items = np.arange(1, 101)
    columns = {"x": items / 10, "y": -items / 7, "tag": ["1", None] * 50, "item": items}
    table = pd.DataFrame(columns).assign(title=dataset.catalog.titles[items])
    maps = {name: table.assign(x=table["x"] + number) for number, name in enumerate(embeddings)}
    return ItemExplorer(ItemView(dataset, embeddings, maps))


def with_titles(dataset, titles):
    """The dataset with the given titles in turn."""
    many = np.resize(np.array(titles, dtype=object), dataset.catalog.n_items + 1)
    return replace(dataset, catalog=replace(dataset.catalog, titles=many))


def facts(explorer):
    """The numbers beside the target."""
    return [part.split("</div>")[0] for part in explorer.head.html.split('class="number">')[1:]]


def press(panel, action, value):
    """What the browser sends when a button is pressed."""
    panel._handle_custom_msg({"action": action, "value": value}, [])


def expected(run, row, target, history):
    """What predict says of a row with another target and history."""
    changed = {
        "target": np.array([target], np.int32),
        "history_items": np.array(history, np.int32),
        "history_start": np.array([0]),
        "history_end": np.array([len(history)]),
    }
    return predict(run.model(), Impressions(**(vars(row) | changed)))[0]


def test_every_case_is_offered_and_shown(explorer, tiny, tiny_run):
    for name, row in explorer.view.cases.items():
        explorer.case.value = row
        assert explorer.row == row
        assert explorer.impression.value == row
        shown = facts(explorer)
        predicted = tiny_run.predictions["probability"][row]
        assert float(shown[0]) == pytest.approx(predicted, abs=6e-4), name
        assert shown[1:] == [f"{tiny.valid.label[row]:.0f}", f"{tiny.valid.probability[row]:.3f}"]
    assert len(explorer.view.cases) == 5


def test_changes_are_predicted_as_predict_does(explorer, tiny, tiny_run):
    row = explorer.view.cases["A long history"]
    explorer.show(row)
    one, history = tiny.valid.select(np.array([row])), tiny.valid.history(row)[-64:].tolist()
    target = int(tiny.valid.target[row])
    press(explorer.strip, "remove", 2)
    del history[2]
    assert facts(explorer)[1] == f"{expected(tiny_run, one, target, history):.3f}"
    press(explorer.strip, "select", 0)
    press(explorer.found, "swap", 9)
    history[0] = 9
    assert facts(explorer)[1] == f"{expected(tiny_run, one, target, history):.3f}"
    press(explorer.head, "select", -1)
    press(explorer.found, "swap", 11)
    assert facts(explorer)[1] == f"{expected(tiny_run, one, 11, history):.3f}"
    assert tiny.valid.history(row)[-64:].tolist() != history, "the dataset is left as it was"
    explorer.reset.click()
    assert len(facts(explorer)) == 3
    assert facts(explorer)[0] == f"{tiny_run.predictions['probability'][row]:.3f}"


def test_a_page_shows_the_latest_clicks_of_a_long_history(explorer, tiny):
    row = explorer.view.cases["A long history"]
    length = min(64, int(tiny.valid.history_length[row]))
    assert length > 16
    explorer.show(row)
    assert explorer.strip.html.count("without: ") == length
    page = explorer.view.page()
    part = page[page.index("A long history") :]
    part = part[: part.index("<h4", 1)] if "<h4" in part[1:] else part
    assert part.count("without: ") == 16
    assert "of which the latest 16 are shown" in part
    last = escape(str(tiny.catalog.titles[tiny.valid.history(row)[-1]]))
    assert last in part


def test_a_history_may_be_emptied(explorer, tiny, tiny_run):
    lengths = tiny.valid.history_length
    row = int(np.flatnonzero(lengths == lengths[lengths > 0].min())[0])
    explorer.show(row)
    for place in reversed(range(lengths[row])):
        press(explorer.strip, "remove", place)
    one = tiny.valid.select(np.array([row]))
    assert facts(explorer)[1] == f"{expected(tiny_run, one, tiny.valid.target[row], []):.3f}"
    assert "history is empty" in explorer.strip.html
    press(explorer.found, "swap", 4)
    assert facts(explorer)[1] == f"{expected(tiny_run, one, 4, []):.3f}"


def test_bars_are_the_weights_and_notes_the_effects(explorer, tiny, tiny_run):
    row = explorer.view.cases["Heads that disagree"]
    explorer.show(row)
    one = tiny.valid.select(np.array([row]))
    weights = explain.attention(tiny_run.model(), one)
    weights = weights.sort_values(["age", "head"], ascending=[False, True])["weight"]
    bars = Elements(explorer.strip.html).of("span")
    titles = [bar["title"] for bar in bars if bar.get("class") == "weight"]
    assert [float(title.split(": ")[1]) for title in titles] == [round(w, 3) for w in weights]
    clicks = explain.leave_one_out(tiny_run.model(), one).sort_values("age", ascending=False)
    without = explain.sigmoid(clicks["logit"] - clicks["effect"]) - explain.sigmoid(clicks["logit"])
    notes = explorer.strip.html.replace("−", "-").split("without: ")[1:]
    for note, points, effect in zip(notes, 100 * without, clicks["effect"], strict=True):
        number, *unit = note.split("<")[0].split()
        assert unit == (["logit"] if number != "0.0" and abs(points) < 0.05 else [])
        expected = -effect if unit else points
        assert float(number) == pytest.approx(expected, abs=0.0051 if unit else 0.051)


def test_a_user_is_found_by_id_or_its_beginning(explorer, tiny):
    users = tiny.valid.user
    user = int(users[40])
    explorer.user.value = str(user)
    assert [row for _, row in explorer.impression.options] == np.flatnonzero(users == user).tolist()
    assert explorer.row == explorer.impression.value == np.flatnonzero(users == user)[0]
    explorer.impression.value = int(np.flatnonzero(users == user)[1])
    assert explorer.row == np.flatnonzero(users == user)[1]
    assert "99999" not in {str(other) for other in users}
    explorer.user.value = "99999"
    assert "No user of valid" in explorer.head.html
    explorer.find_user("2")
    found = {str(users[row]) for _, row in explorer.impression.options}
    assert all(name.startswith("2") for name in found)


def test_items_are_found_by_id_and_by_title(tiny):
    catalog = with_titles(tiny, ["The Fox", "a fox (2)", "oak 2"]).catalog
    assert panels.find_items(catalog, "FOX")[:3] == [1, 3, 4]
    assert panels.find_items(catalog, "(2)")[:2] == [1, 4]
    assert panels.find_items(catalog, "2")[:3] == [2, 1, 4], "the item 2 itself comes first"
    for nothing in ("", "  ", "zebra", "²", "0", str(10**30)):
        assert panels.find_items(catalog, nothing) == []


def test_a_search_says_how_much_it_found(tiny):
    catalog = with_titles(tiny, ["The Fox", "oak", "elm"]).catalog
    many = panels.found_html(catalog, "oak", "swap", "")
    count = sum("oak" in title for title in catalog.titles)
    assert f"{count} items have the id oak, or it in the title; the first 8 are shown." in many
    assert many.count("<button") == 8
    alone = panels.found_html(replace(catalog, titles=np.array(["", *"abc"])), "b", "swap", "")
    assert "1 item has the id b, or it in the title." in alone
    assert "No item has the id or title zebra" in panels.found_html(catalog, "zebra", "swap", "")


def test_the_own_target_can_be_brought_back(explorer, tiny):
    row = explorer.view.cases["A long history"]
    explorer.show(row)
    own = int(tiny.valid.target[row])
    before, other = facts(explorer), 11 if own != 11 else 12
    press(explorer.found, "swap", other)
    swapped = Elements(explorer.head.html)
    assert len(facts(explorer)) == 2, "nobody knows a label or the truth of another target"
    assert "Label" not in explorer.head.html
    assert "for the own target" in explorer.head.html
    assert [button["data-action"] for button in swapped.of("button")] == ["select", "restore"]
    press(explorer.head, "restore", 0)
    assert explorer.target == own
    assert facts(explorer) == before


@pytest.mark.parametrize(
    ("before", "after", "words"),
    [
        (0.0, 0.4, "+9.9 points"),
        (0.0, -0.4, "−9.9 points"),
        (-9.0, -8.0, "+1.00 logit"),  # 0.0001 to 0.0003
        (-9.0, -9.5, "−0.50 logit"),
        (1.0, 1.001, "0.0"),
    ],
)
def test_small_probabilities_change_in_logits(before, after, words):
    assert attention._change(before, after, " points") == words


def test_small_probabilities_are_not_zero():
    assert attention._probability(0.0) == "0.500"
    assert attention._probability(-9.0) == "1e-04"


def test_items_are_found_by_their_own_id(named):
    catalog = replace(named.catalog, titles=np.full(301, "", dtype=object))
    assert panels.find_items(catalog, "<i>0017</i>") == [17]
    assert panels.find_items(catalog, "17") == [], "a row number is no id"
    assert "(item &lt;i&gt;0017&lt;/i&gt;, no title)" in panels.tile_html(catalog, 17)


def test_an_item_is_shown_with_its_own_id_and_the_names_of_its_tags(named, embeddings):
    explorer = item_explorer(named, embeddings)
    explorer.search.value = "<i>0250</i>"
    assert explorer.item == 250
    tags = [f"<b>Tag {tag}" for tag in named.catalog.tags[250] if tag]
    text = Elements(explorer.panel.html).text
    assert tags
    assert f"Item <i>0250</i>, tags {', '.join(tags)} (not one of the 100" in text
    near = nearest(embeddings["v1"], 250, 1)[0]
    assert f"(item &lt;i&gt;{near:04}&lt;/i&gt;)" in explorer.panel.html
    for html in (explorer.panel.html, explorer.found.html, explorer.view.page()):
        assert "<i>0" not in html
        assert "<b>Tag" not in html


def test_a_user_is_found_and_shown_by_its_own_id(named, tiny_run):
    explorer, users = attention_explorer(tiny_run, named), named.valid.user
    user = int(users[40])
    explorer.user.value = f"<u>{user:04}</u>"
    rows = np.flatnonzero(users == user)
    assert [row for _, row in explorer.impression.options] == rows.tolist()
    assert explorer.impression.options[0][0].startswith(f"user <u>{user:04}</u>: ")
    explorer.find_user("<u>0")
    assert len(explorer.impression.options) > 1
    explorer.find_user(f"{user}")
    assert "No user of valid" in explorer.head.html


def test_without_covers_there_are_no_empty_frames(tiny, tiny_run, embeddings):
    bare = replace(tiny, catalog=replace(tiny.catalog, covers={}))
    for html in every_html(bare, tiny_run, embeddings):
        assert 'class="cover"' not in html


def test_an_unreadable_cover_is_an_empty_frame(tiny, tmp_path):
    (tmp_path / "1.jpg").write_text("not a picture")
    catalog = replace(tiny.catalog, covers={1: tmp_path / "1.jpg", 2: tmp_path / "none.jpg"})
    assert [panels.thumbnail(catalog, item) for item in (1, 2, 3)] == ["", "", ""]


def test_thumbnails_are_upright_on_white_and_of_the_right_brightness(tiny, tmp_path):
    red, blue = np.zeros((2, 120, 60, 3), np.uint8)
    red[..., 0], blue[..., 2] = 255, 255
    exif = Image.Exif()
    exif[0x0112] = 8  # the first row is the left edge
    Image.fromarray(np.vstack([red, blue])).save(tmp_path / "1.jpg", exif=exif, subsampling=0)
    Image.new("RGBA", (90, 90), (0, 0, 0, 0)).save(tmp_path / "2.png")
    Image.fromarray(np.full((90, 90), 113 * 257, np.uint16)).save(tmp_path / "3.png")
    covers = dict(enumerate(sorted(tmp_path.iterdir()), start=1))
    catalog = replace(tiny.catalog, covers=covers)
    turned, clear, grey = (
        Image.open(io.BytesIO(base64.b64decode(panels.thumbnail(catalog, item).split(",")[1])))
        for item in covers
    )
    np.testing.assert_allclose(turned.getpixel((20, 44)), (255, 0, 0), atol=9)
    np.testing.assert_allclose(turned.getpixel((70, 44)), (0, 0, 255), atol=9)
    np.testing.assert_allclose(clear.getpixel((44, 44)), (255, 255, 255), atol=2)
    np.testing.assert_allclose(grey.getpixel((44, 44)), (113, 113, 113), atol=2)


def every_html(tiny, tiny_run, embeddings):
    """All HTML that both explorers make, with everything in them used once."""
    attention = attention_explorer(tiny_run, tiny)
    attention.search.value = "a"
    attention.user.value = "<script>alert(2)</script>"
    yield attention.head.html
    attention.show(attention.view.cases["A long history"])
    yield from (
        attention.head.html,
        attention.strip.html,
        attention.found.html,
        attention.view.page(),
    )
    attention.search.value = "<script>alert(2)</script> that nobody has"
    yield attention.found.html
    items = item_explorer(tiny, embeddings)
    yield from (items.panel.html, items.steps.html, items.view.page())
    items.search.value = "a"
    yield items.found.html
    items.search.value = '"><img src=y onerror=alert(1)>'
    yield items.found.html
    new = NewItemExplorer(NewItemView(Trial.of(tiny, [tiny_run])))
    yield from (new.view.page(), new.seen.html)
    new.search.value = "a"
    yield new.found.html
    new.title.value = "<script>alert(3)</script>"
    yield new.told.html


def test_titles_and_searches_stay_text(tiny, tiny_run, embeddings):
    attacked = with_titles(tiny, HOSTILE)
    seen = ""
    for html in every_html(attacked, tiny_run, embeddings):
        page = Elements(html)
        assert {tag for tag, _ in page.found} <= TAGS
        attributes = {name for _, found in page.found for name in found}
        assert not [name for name in attributes if name.startswith("on")]
        assert all(found["src"].startswith("data:image/jpeg;") for found in page.of("img"))
        seen += page.text
    assert all(title in seen for title in HOSTILE)


def test_every_button_has_a_name_and_a_key_of_its_own(tiny, tiny_run, embeddings):
    for html in every_html(tiny, tiny_run, embeddings):
        buttons = Elements(html).of("button")
        assert all(found.get("aria-label") or found.get("title") for found in buttons)
        keys = [found["data-key"] for found in buttons]
        assert len(keys) == len(set(keys))


def test_without_a_front_end_there_is_a_page_without_buttons(explorer, tiny, tiny_run):
    page = Elements(explore_attention(tiny_run, tiny).data)
    assert not page.of("button")
    for name, row in explorer.view.cases.items():
        explorer.show(row)
        assert name in page.text
        assert facts(explorer)[0] in page.text


def test_a_page_and_an_explorer_begin_with_a_row_that_is_asked_for(explorer, tiny, tiny_run):
    row = next(row for row in range(len(tiny.valid)) if row not in explorer.view.cases.values())
    page = explore_attention(tiny_run, tiny, row).data
    explorer.show(row)
    assert f"<h4>Row {row}</h4>{Seen(explorer.view, row, *explorer.view.read(row)).head()}" in page
    assert page.index(f"Row {row}") < page.index("A foreseen click")
    assert AttentionExplorer(AttentionView(tiny_run, tiny, row)).row == row
    assert "Row 0" in explore_attention(tiny_run, tiny, 0).data


def test_a_line_of_the_atlas_opens_on_the_rows_of_largest_loss(tiny, tiny_run):
    attacked = with_titles(tiny, HOSTILE)
    probability = tiny_run.predictions["probability"].to_numpy()
    tiles = atlas.tiles(attacked, attacked.valid)
    table = atlas.measured(tiles, attacked.valid, probability)
    html = worst_predictions(tiny_run, attacked, tiles, table).data
    page = Elements(html)
    assert {tag for tag, _ in page.found} <= TAGS | {"details", "summary", "a"}
    assert not [name for _, found in page.found for name in found if name.startswith("on")]
    assert [found["id"] for found in page.of("details")] == places(tiny_run, tiles)
    assert len(set(places(tiny_run, tiles))) == len(tiles)
    parts = html.split("<details")[1:]
    gap = np.abs(tiny.valid.label - probability)
    for tile, part in zip(tiles, parts, strict=True):
        shown = [int(number) for number in re.findall(r"row (\d+): user", part)]
        assert shown == tile.rows[np.argsort(-gap[tile.rows], kind="stable")[:5]].tolist()
        told = f"label {tiny.valid.label[shown[0]]:.0f}, predicted {probability[shown[0]]:.3f}"
        assert told in part
    link = page.of("a")[0]
    held = base64.b64decode(link["href"].removeprefix("data:text/csv;base64,"))
    pd.testing.assert_frame_equal(pd.read_csv(io.BytesIO(held)), table, check_dtype=False)
    assert link["download"] == f"atlas-{tiny_run.name}.csv"


@pytest.mark.parametrize("metadata", [{"cellId": "1"}, {}])
def test_a_front_end_gets_widgets(tiny, tiny_run, monkeypatch, metadata):
    shell = SimpleNamespace(get_parent=lambda: {"metadata": metadata})
    monkeypatch.setattr(panels, "get_ipython", lambda: shell)
    made = explore_attention(tiny_run, tiny)
    assert isinstance(made, AttentionExplorer if metadata else HTML)


@pytest.mark.parametrize(("attention", "heads"), [("dot", 1), ("mlp", 2)])
def test_other_attentions_are_shown_too(tiny, tiny_run, attention, heads):
    config = DINConfig.of(
        embedding_dim=4, heads=heads, attention=attention, attention_hidden=(8,), senet=False
    )
    model = DIN.for_catalog(config, tiny.catalog, None).eval()
    probability = predict(model, tiny.valid)

    predictions = pd.DataFrame({"probability": probability})
    run = SimpleNamespace(model=lambda: model, predictions=predictions)
    explorer = attention_explorer(run, tiny)
    assert ("Heads that disagree" in explorer.view.cases) == (heads > 1)
    assert explorer.strip.html.count('class="weight"') == heads * len(explorer.history)
    assert facts(explorer)[0] == f"{probability[explorer.row]:.3f}"


@pytest.mark.parametrize("longest", [0, 1])
def test_short_histories_can_be_explored(tiny, tiny_run, longest):
    rows = tiny.valid
    start = np.maximum(rows.history_start, rows.history_end - longest)
    short = Impressions(**(vars(rows) | {"history_start": start}))
    dataset = replace(tiny, splits=tiny.splits | {"valid": short})
    explorer = attention_explorer(tiny_run, dataset)
    assert explorer.view.cases == {}
    assert "nothing to choose between" in explorer.view.page()
    assert len(explorer.history) == longest


def test_the_map_is_walked_on_by_its_arrows(tiny, embeddings):
    """To the nearest item in each direction, as a loop over all of them finds it."""
    rng, items = np.random.default_rng(2), np.arange(1, 61)
    maps = {
        name: pd.DataFrame(rng.integers(0, 9, (60, 2)) / 8, columns=["x", "y"]).assign(
            item=items, tag=None, title=tiny.catalog.titles[items]
        )
        for name in embeddings
    }
    explorer = ItemExplorer(ItemView(tiny, embeddings, maps))
    seen = {explorer.item}
    for key in "→↑←↓→→↑" * 2:
        table = maps[explorer.strategy.value].set_index("item")
        here, nearest = table.loc[explorer.item], {}
        for item, other in table.iterrows():
            dx, dy = other["x"] - here["x"], other["y"] - here["y"]
            if dx == dy == 0:
                continue
            for sign, along in (("→", dx), ("←", -dx), ("↑", dy), ("↓", -dy)):
                if along == max(abs(dx), abs(dy)):
                    distance = (dx**2 + dy**2) ** 0.5
                    nearest[sign] = min(nearest.get(sign, (9, 0)), (distance, item))
        buttons = {found["data-key"]: found for found in Elements(explorer.steps.html).of("button")}
        found = {sign: int(button["data-value"]) for sign, button in buttons.items()}
        assert found == {sign: item for sign, (_, item) in nearest.items()}
        for sign, name in (("←", "Left"), ("→", "Right"), ("↑", "Up"), ("↓", "Down")):
            if sign in found:
                title = tiny.catalog.titles[found[sign]]
                assert buttons[sign]["aria-label"].startswith(f"{name} on the map: {title}")
        if key in found:
            press(explorer.steps, "show", found[key])
            assert explorer.item == found[key]
            seen.add(explorer.item)
    assert len(seen) > 5
    explorer.strategy.value = "v1"
    assert explorer.steps.html == explorer.view.steps(explorer.item, "v1")
    explorer.show(100)
    assert not explorer.steps.html, "nothing is beside what is not on the map"


def test_a_point_of_the_map_shows_its_item(tiny, embeddings):
    explorer = item_explorer(tiny, embeddings)
    trace = explorer.map.data[0]
    explorer._click(trace, SimpleNamespace(point_inds=[3]), None)
    item = int(trace.customdata[3])
    assert explorer.item == item
    assert explorer.map.data[-1].x == (item / 10 + 1,), "the map of the last strategy"
    explorer.strategy.value = "v1"
    assert explorer.map.data[-1].x == (item / 10,)
    assert tuple(explorer.map.data[0].x[:2]) == (0.1, 0.3)
    page = Elements(explorer.panel.html)
    found = [int(button["data-value"]) for button in page.of("button")]
    near = [nearest(embedding, item, 6).tolist() for embedding in embeddings.values()]
    assert found == [other for column in near for other in column]
    explorer.search.value = "250"
    assert explorer.item == 250
    assert "not one of the 100 items on the map" in explorer.panel.html
    assert explorer.map.data[-1].x == ()


@pytest.fixture
def describing(tiny, tiny_run):
    return NewItemExplorer(NewItemView(Trial.of(tiny, [tiny_run])))


def shown(explorer):
    """The numbers of the description: its mean score, its place, and what its parts give."""
    parts = explorer.seen.html.split('class="number">')[1:]
    return [part.split("</div>")[0] for part in parts if "</div>" in part[:20]]


def test_an_item_is_described_by_parts_of_others(describing, tiny):
    catalog, prospects = tiny.catalog, describing.view.prospects
    first = describing.view.items[0]
    score = prospects.scores(Description.of_item(catalog, first))
    mean = score["whole"].mean()
    gained = 100 * (mean - score[["text", "image", "tags"]].mean())
    points = [round(value, 1) for value in gained]  # none of them is told without a sign
    told = [f"{value:+.1f}".replace("-", "−") if value else "0.0" for value in points]
    expected = [f"{mean:.3f}", *told]
    found = shown(describing)
    assert [found[0], *found[2:5]] == expected
    assert found[1] == f"{(prospects.usual < mean).mean():.0%}"
    describing.take.value = "the text of"
    press(describing.found, "take", 9)
    other = Description.of_item(catalog, 9)
    assert describing.title.value == catalog.titles[9]
    np.testing.assert_array_equal(describing.described.text, other.text)
    assert describing.described.tags == Description.of_item(catalog, first).tags
    mixed = prospects.scores(describing.described)["whole"].mean()
    assert shown(describing)[0] == f"{mixed:.3f}"
    describing.tags.value = describing.tags.value[:1]
    assert len(describing.described.tags) == 1


def test_a_title_counts_where_its_encoder_is_at_hand(describing, tiny):
    before = describing.described
    describing.title.value = "a red boat"
    assert "does not say by which encoder its text features were made" in describing.told.html
    assert describing.described is before
    vector = tiny.catalog.text_features[4]
    describing.view.encoders.text = lambda title: vector * (title == "a blue boat")
    describing.title.value = "a blue boat"
    assert describing.told.html == ""
    np.testing.assert_array_equal(describing.described.text, vector)
    assert "<h4>a blue boat</h4>" in describing.seen.html


def test_a_picture_counts_where_its_encoder_is_at_hand(describing, tiny, tmp_path):
    file = io.BytesIO()
    Image.new("RGB", (40, 30), (200, 0, 0)).save(file, "PNG")
    describing.view.encoders.image = lambda path: tiny.catalog.image_features[4] * path.is_file()
    describing._uploaded(b"no picture")
    assert "The picture was not read: not a picture." in describing.told.html
    describing._uploaded(file.getvalue())
    np.testing.assert_array_equal(describing.described.image, tiny.catalog.image_features[4])
    assert Elements(describing.seen.html).of("img")[0]["src"].startswith("data:image/jpeg;")


def test_new_items_without_a_front_end_are_a_page(describing, tiny, tiny_run):
    trial = Trial.of(tiny, [tiny_run])
    page = Elements(explore_new_item(trial).data)
    assert not page.of("button")
    for item in describing.view.items:
        assert tiny.catalog.titles[item] in page.text
    none = replace(trial, models={"provided:a": None})
    assert "there is none here" in explore_new_item(none).data


@pytest.fixture
def gallery(tiny_folder, tmp_path):
    """Findings of the small dataset, some of them by a person, with titles that attack."""
    folder = shutil.copytree(tiny_folder, tmp_path / "tiny")
    data = Dataset.load(folder)
    titles = data.catalog.titles.copy()
    titles[:] = [HOSTILE[n % 3] for n in range(len(titles))]
    found, table = errors_of(data)
    hers = pd.DataFrame([("user", "<b>", "ugly", np.nan, True)], columns=found.columns)
    found = pd.concat([found, hers], ignore_index=True)
    line = ("ugly", "user", 1, np.nan, "found by a person", "")
    table = pd.concat([table, pd.DataFrame([line], columns=table.columns)])
    data = replace(data, catalog=replace(data.catalog, titles=titles))
    return ErrorGallery(ErrorView(data, found, table)), folder


def test_a_gallery_shows_findings_of_a_kind_the_worst_first(gallery):
    shown, _ = gallery
    for kind in ("blurred", "untitled", "sweep", "ugly"):
        shown.kind.value = kind
        of_kind = shown.view.errors[shown.view.errors["kind"] == kind]
        ordered = of_kind.sort_values("score", ascending=False, kind="stable")
        buttons = Elements(shown.panel.html).of("button")
        assert [int(button["data-value"]) for button in buttons] == ordered.index.tolist()
        assert all(button["aria-pressed"] == "true" for button in buttons)
    assert {tag for tag, _ in Elements(shown.panel.html).found} <= TAGS


def test_a_tick_is_written_down_at_once(gallery):
    shown, folder = gallery
    shown.kind.value = "placeholder"
    row = int(Elements(shown.panel.html).of("button")[0]["data-value"])
    before = shown.view.errors["excluded"].copy()
    shown._press("tick", row)
    written = read_errors(folder)
    before[row] = False
    assert written["excluded"].tolist() == before.tolist()
    assert written["id"].tolist() == shown.view.errors["id"].tolist()
    buttons = {int(b["data-value"]): b for b in Elements(shown.panel.html).of("button")}
    assert buttons[row]["aria-pressed"] == "false"
    assert "5 of 6 left out" in Elements(shown.panel.html).text
    shown._press("tick", row)
    assert read_errors(folder)["excluded"].all()
    assert "dark" in looked_for(folder), "kinds that a training may name"


def test_many_findings_come_in_parts(gallery, monkeypatch):
    monkeypatch.setattr(error_gallery, "SHOWN", 4)
    view = gallery[0].view
    shown = ErrorGallery(view)
    for kind in ("placeholder", "blurred"):  # 6 and 1
        shown.kind.value = kind
        number = (view.errors["kind"] == kind).sum()
        assert len(Elements(shown.panel.html).of("button")) == min(number, 4)
        assert shown.more.disabled == (number <= 4)
    shown.kind.value = "placeholder"
    shown.more.click()
    assert len(Elements(shown.panel.html).of("button")) == 6
    assert shown.more.disabled


def test_without_a_front_end_there_are_examples_of_each_kind(gallery):
    view = gallery[0].view
    page = Elements(review_errors(view.dataset, view.errors, _table_of(view)).data)
    assert not page.of("button")
    assert {tag for tag, _ in page.found} <= TAGS
    for kind, count in view.errors["kind"].value_counts().items():
        assert f"{kind}: {count}" in page.text
    assert HOSTILE[0] in page.text


def _table_of(view):
    counts = view.errors["kind"].value_counts()
    return pd.DataFrame({"kind": counts.index, "count": counts.to_numpy(), "reason": ""})
