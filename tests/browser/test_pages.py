"""Reports in a real browser with the network off: figures drawn, nothing cut off, no error."""

import csv
import os
import shutil
from html import unescape
from pathlib import Path

import nbformat
import pandas as pd
import pytest
from nbconvert import HTMLExporter
from playwright.sync_api import expect, sync_playwright

from mmctr.report import export, figures, pages
from mmctr.report.make import write_single_file
from mmctr.report.reports import Page, Report
from mmctr.runs.provenance import describe, provenance
from tests.conftest import ATTACKS

ARTIFACTS = Path(__file__).parents[1] / "artifacts"
CHROMIUM = shutil.which("chromium")
MARKS = ".scatterlayer path, .barlayer path, .boxlayer path, .heatmaplayer image"
WIDTHS = {"wide": 1280, "narrow": 400}
# Titles and words of figures that are cut off at a side.
CUT_OFF = """[...document.querySelectorAll(".plotly-figure")].flatMap((figure) => {
    const { left, right } = figure.getBoundingClientRect();
    const isCut = (box) => box.width > 0 && (box.left < left - 1 || box.right > right + 1);
    const words = [...figure.querySelectorAll(".infolayer text")];
    return words.filter((text) => isCut(text.getBoundingClientRect())).map((t) => t.textContent);
})"""
INTERVALS = "[...document.querySelectorAll('.barlayer .errorbar path')]"
INTERVALS += ".map((line) => getComputedStyle(line).stroke)"


if CHROMIUM is None and os.environ.get("CI"):
    pytest.fail("chromium is not installed, so nobody looked at the pages", pytrace=False)

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="chromium is not installed")


@pytest.fixture(scope="module")
def browser():
    """Headless Chromium, as Debian packages it."""
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield chromium
        chromium.close()


def open_page(browser, path, width, scheme="light"):
    """A page from disk, offline, and the list of errors that it shows from now on."""
    context = browser.new_context(
        viewport={"width": width, "height": 900}, color_scheme=scheme, offline=True
    )
    page, errors = context.new_page(), []
    page.on("console", lambda message: message.type == "error" and errors.append(message.text))
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.on("dialog", lambda dialog: (errors.append(f"alert {dialog.message}"), dialog.dismiss()))
    page.goto(path.as_uri())
    figures = page.locator(".plotly-figure")
    for number in range(figures.count()):
        figures.nth(number).locator(".main-svg, canvas").first.wait_for(state="attached")
    return page, errors


@pytest.fixture(scope="module")
def single_file(tiny_report, tmp_path_factory):
    """The report as one file, alone in a folder as if it had come by e-mail."""
    return write_single_file(tiny_report).rename(tmp_path_factory.mktemp("mail") / "report.html")


def drawn_marks(page):
    """How many marks each figure shows: lines, points, bars, boxes and heat maps."""
    return [figure.locator(MARKS).count() for figure in page.locator(".plotly-figure").all()]


def test_a_tile_of_the_atlas_opens_its_worst_predictions(tiny_report, browser):
    path = tiny_report.folder / "03_train_v4_seed1.html"
    page, errors = open_page(browser, path, WIDTHS["narrow"])
    tile = page.locator(".plotly-figure").last.locator(".nsewdrag")
    tile.scroll_into_view_if_needed()
    assert not page.locator("details[id][open]").count()
    tile.click(position={"x": 20, "y": 5})  # the first line: all rows
    opened = page.locator("details[id][open]")
    opened.locator(".item").first.wait_for()
    assert opened.locator("summary").inner_text().startswith("all rows")
    assert opened.locator(".item").count() == 5
    assert not errors


@pytest.mark.parametrize(("width", "scheme"), [("wide", "light"), ("narrow", "dark")])
def test_pages(tiny_report, browser, width, scheme):
    names = ["index", *(page.name for page in tiny_report.pages)]
    for name in names:
        path = tiny_report.folder / f"{name}.html"
        page, errors = open_page(browser, path, WIDTHS[width], scheme)
        marks = drawn_marks(page)
        assert all(marks), f"{name}: an empty figure among {marks}"
        assert name == "index" or marks, f"{name} has no figures"
        buttons = page.locator(".modebar-group").all()
        opacity = "(group) => getComputedStyle(group).opacity"
        assert {group.evaluate(opacity) for group in buttons} <= {"0"}, (
            "plotly's buttons are shown on hover only"
        )
        overflow = page.evaluate("document.documentElement.scrollWidth - innerWidth")
        assert overflow <= 0, f"{name} is {overflow} px too wide at {width}"
        assert page.evaluate(CUT_OFF) == [], f"{name}: words of a figure are cut off"
        ink = page.evaluate("getComputedStyle(document.body).color")
        assert set(page.evaluate(INTERVALS)) <= {ink}, "intervals of bars stand out in any theme"
        ARTIFACTS.mkdir(exist_ok=True)
        page.screenshot(path=ARTIFACTS / f"{name}-{width}-{scheme}.png", full_page=True)
        assert not errors, f"{name}: {errors}"
        page.context.close()


def test_figures_have_axis_titles(tiny_report, browser):
    page, _ = open_page(browser, tiny_report.folder / "05_compare.html", 1280)
    titles = page.locator(".xtitle").all_inner_texts()
    assert len(titles) == page.locator(".plotly-figure").count()
    page.context.close()


def test_code_is_folded_until_it_is_asked_for(tiny_report, browser):
    page, _ = open_page(browser, tiny_report.folder / "03_train_v4_seed1.html", 1280)
    code = page.locator("details.code pre").first
    assert not code.is_visible()
    page.locator("#all-code").click()
    assert code.is_visible()
    page.locator("#all-code").click()
    assert not code.is_visible()
    page.context.close()


def test_printed_figures_fit_the_paper_and_are_light(tiny_report, browser):
    page, errors = open_page(browser, tiny_report.folder / "05_compare.html", 1280, "dark")
    texts = "[...document.querySelectorAll('.plotly-figure .xtitle')].map(e => e.style.fill)"
    dark = page.evaluate(texts)
    page.evaluate("dispatchEvent(new Event('beforeprint'))")
    page.emulate_media(media="print", color_scheme="light")
    page.set_viewport_size({"width": 688, "height": 1000})  # A4 less its margins, at 96 dpi
    # The change of colours, which a printer does not make, draws once more when it is noticed.
    widths = "[...document.querySelectorAll('.main-svg')].map(e => e.getBoundingClientRect().right)"
    page.wait_for_function(f"Math.max(...{widths}) <= 688")
    assert max(page.evaluate(widths)) <= 688
    assert all(drawn_marks(page))
    assert not set(dark) & set(page.evaluate(texts))
    assert not page.locator("details.code, nav, button").filter(visible=True).count()
    page.emulate_media(media="screen", color_scheme="dark")
    page.evaluate("dispatchEvent(new Event('afterprint'))")
    assert page.evaluate(texts) == dark
    page.pdf(path=ARTIFACTS / "05_compare.pdf", format="A4")
    assert not errors
    page.context.close()


@pytest.mark.parametrize("width", ["wide", "narrow"])
def test_the_single_file_works_alone(tiny_report, single_file, browser, width):
    page, errors = open_page(browser, single_file, WIDTHS[width])
    assert all(drawn_marks(page))
    for shown in tiny_report.pages:
        assert page.locator(f"article[id='{shown.name}'] .plotly-figure").count()
    page.locator(".contents").get_by_role("link", name="05_compare").click()
    heading = page.get_by_role("heading", name="Compare the strategies")
    assert 0 <= heading.bounding_box()["y"] < 900
    assert page.evaluate("document.documentElement.scrollWidth - innerWidth") <= 0
    assert not errors
    page.context.close()


def test_a_long_table_is_sorted_by_its_headings(tiny_report, browser, tmp_path):
    numbers = [3, 20, 100, -1, 1000, 7, 8, 9, 10, 11]
    rows = "".join(f"<tr><td>{number:,}</td><td>item {number}</td></tr>" for number in numbers)
    table = f"<table><thead><tr><th>n</th><th>name</th></tr></thead><tbody>{rows}</tbody></table>"
    text = tiny_report.index.read_text()
    text = text.replace("</article>", f"<p id='long'></p>{table}</article>")
    (tmp_path / "index.html").write_text(text)
    page, errors = open_page(browser, tmp_path / "index.html", 1280)
    column = page.locator("#long + table td:first-child")
    by_number, by_name = page.locator("#long + table th button").all()
    by_number.click()
    in_order = [f"{number:,}" for number in sorted(numbers)]
    assert column.all_inner_texts() == in_order
    assert page.locator("#long + table th").first.get_attribute("aria-sort") == "ascending"
    by_number.click()
    assert column.all_inner_texts() == in_order[::-1]
    by_name.click()
    assert column.all_inner_texts()[:3] == ["-1", "3", "7"], "numbers in names are no letters"
    assert not page.locator("figure.table th button").count(), "short tables are not sorted"
    assert not errors
    page.context.close()


@pytest.fixture
def page_of(tiny, tmp_path):
    """Makes a page of some HTML, beside plotly.js, and gives its path."""

    def make(html):
        report = Report(tmp_path / "one", describe(tiny), [], [], [], provenance=provenance())
        report.folder.mkdir()
        pages.write_assets(tmp_path)
        path, page = report.folder / "page.html", Page("page", "page", {})
        pages.write_page(path, [pages.as_part("page", "page", html)], report, page=page)
        return path

    return make


@pytest.fixture
def wide_table(page_of):
    """A page with a table of nine columns, as 07_search and 08_challenge have them."""
    names = [f"a_name_of_parts_{number}" for number in range(8)]
    heads = "".join(f"<th>{name}</th>" for name in ["system", *names])
    cells = "<td>one</td>" + "<td>[512, 256]</td>" * len(names)
    table = f"<thead><tr>{heads}</tr></thead><tbody><tr>{cells}</tr></tbody>"
    return page_of(f"<div class='rich' id='wide'><table>{table}</table></div>")


def test_a_row_keeps_its_name_where_a_wide_table_is_scrolled(browser, wide_table):
    page, errors = open_page(browser, wide_table, WIDTHS["narrow"])
    table = page.locator("#wide")
    first, last = table.locator("td").first, table.locator("td").last
    before = last.bounding_box()["x"]
    table.evaluate("(table) => table.scrollTo(table.scrollWidth, 0)")
    assert last.bounding_box()["x"] < before
    for cell in (first, table.locator("th").first):
        assert cell.bounding_box()["x"] == pytest.approx(table.bounding_box()["x"], abs=1)
    assert first.evaluate("(cell) => getComputedStyle(cell).backgroundColor") != "rgba(0, 0, 0, 0)"
    shadow = "(cell) => getComputedStyle(cell, '::after').backgroundImage"
    assert "gradient" in first.evaluate(shadow), "what lies below it is seen to go on"
    assert last.bounding_box()["height"] < 40, "a short cell stays in one line"
    assert not errors
    page.context.close()


def test_a_wide_table_does_not_make_the_printed_page_smaller(browser, wide_table):
    page, errors = open_page(browser, wide_table, 688)  # A4 less its margins, at 96 dpi
    page.emulate_media(media="print")
    assert page.evaluate("document.documentElement.scrollWidth") <= 688
    assert not errors
    page.context.close()


def test_titles_of_printed_panels_lie_on_no_other_panel(browser, page_of):
    trials = pd.DataFrame({"trial": [1, 2], "state": "finished", "auc": [0.5, 0.6]})
    names = ["learning_rate", *(f"parameter {number}" for number in range(6))]
    trials = trials.assign(**{name: [5e-4, 9e-3] for name in names})
    figure = figures.search.search_slices(trials, {name: name == names[0] for name in names})
    drawn = f"<script type='application/json'>{figure.to_json()}</script>"
    path = page_of(f"<div class='plotly-figure'><div></div>{drawn}</div>")
    page, errors = open_page(browser, path, 1280)
    page.evaluate("dispatchEvent(new Event('beforeprint'))")
    page.wait_for_function("document.querySelector('.plotly-figure .main-svg').clientWidth < 700")
    boxes = """(found) => found.map((one) => one.getBoundingClientRect())"""
    titles = page.locator(".infolayer text[class^=x][class$=title]").evaluate_all(boxes)
    panels = page.locator(".draglayer .nsewdrag").evaluate_all(boxes)
    assert len(titles) == len(panels) == len(names)
    for title in titles:
        assert not [p for p in panels if p["top"] < title["bottom"] and title["top"] < p["bottom"]]
    assert not errors
    page.context.close()


def test_long_names_leave_a_narrow_figure_half_of_its_width(browser, page_of):
    names = ["Transformer encoder, no products", "with similarity to the history", "2 heads"]
    table = pd.DataFrame({"strategy": names, "difference": [-0.2, 0.0, 0.1], "p_holm": 0.01})
    table = table.assign(low=table["difference"] - 0.01, high=table["difference"] + 0.01)
    drawn = figures.comparison.differences(table, "default").to_json()
    script = f"<script type='application/json'>{drawn}</script>"
    path = page_of(f"<div class='plotly-figure'><div></div>{script}</div>")
    page, errors = open_page(browser, path, WIDTHS["narrow"])
    plot = page.locator(".draglayer .nsewdrag").bounding_box()
    assert plot["width"] > 0.5 * page.locator(".plotly-figure").bounding_box()["width"]
    labels = page.locator(".ytick text, .yaxislayer-above text").all_text_contents()
    assert {label.strip() for label in labels} >= {"2 heads"}
    assert len(labels) == len(names), "each keeps its line"
    assert not errors
    page.context.close()


@pytest.mark.parametrize("width", WIDTHS)
def test_names_of_systems_cover_neither_each_other_nor_the_border(browser, page_of, width):
    systems = {  # AUC, seconds, parameters: two of the best are close, and two of the worst
        "default": (0.746, 30, 424_375),
        "paper": (0.750, 27, 507_351),
        "din": (0.637, 137, 2_191_618),
        "vq": (0.597, 222, 2_308_738),
        "momo-small": (0.659, 258, 2_107_585),
        "qin-small": (0.532, 74, 1_234_149),
        "mmctrers-small": (0.553, 67, 584_226),
    }
    columns = ["AUC", "seconds to its best", "parameters"]
    table = pd.DataFrame.from_dict(systems, orient="index", columns=columns)
    table = table.rename_axis("system").reset_index().assign(p_holm=0.01)
    drawn = figures.challenge.quality_against_cost(table).to_json()
    script = f"<script type='application/json'>{drawn}</script>"
    path = page_of(f"<div class='plotly-figure'><div></div>{script}</div>")
    page, errors = open_page(browser, path, WIDTHS[width])
    boxes = """(found) => found.map((one) => one.getBoundingClientRect())"""
    names = page.locator(".textpoint text").evaluate_all(boxes)
    (plot,) = page.locator(".draglayer .nsewdrag").evaluate_all(boxes)
    assert len(names) == len(systems)
    assert not page.locator("[clip-path]:has(.textpoint)").count(), "none is cut off above"
    for one in names:
        assert plot["left"] <= one["left"] and one["right"] <= plot["right"]
        for other in names:
            apart = (
                one["right"] <= other["left"] + 1
                or other["right"] <= one["left"] + 1
                or one["bottom"] <= other["top"] + 2
                or other["bottom"] <= one["top"] + 2
            )
            assert apart or one is other
    assert not errors
    page.context.close()


def test_tables_and_figures_are_saved_as_files(tiny_report, browser):
    page, errors = open_page(browser, tiny_report.index, 1280)
    table = page.locator("figure.table").first
    with page.expect_download() as saved:
        table.locator("a.csv").click()
    with Path(saved.value.path()).open(encoding="utf-8", newline="") as file:
        header, *lines = csv.reader(file)
    assert header[:2] == ["strategy", "AUC"]
    assert [line[:2] for line in lines] == [
        [cell.strip() for cell in row.locator("td").all_inner_texts()[:2]]
        for row in table.locator("tbody tr").all()
    ]
    page.goto((tiny_report.folder / "05_compare.html").as_uri())
    figure = page.locator(".plotly-figure").first
    figure.locator(".main-svg").first.wait_for(state="attached")
    bar = figure.locator(".modebar-group").first
    expect(bar).to_have_css("opacity", "0")
    figure.hover()
    expect(bar).to_have_css("opacity", "1")
    for kind, start in (("SVG", b"<svg"), ("PNG", b"\x89PNG")):
        with page.expect_download() as saved:
            figure.locator(f"[data-title='Download as {kind}']").click()
        assert Path(saved.value.path()).read_bytes().startswith(start)
        assert saved.value.suggested_filename == f"05_compare.{kind.lower()}"
    assert not errors
    page.context.close()


@pytest.mark.parametrize("packed", [True, False])
def test_what_nbconvert_makes_of_a_notebook_draws_its_figures(
    tiny_report, browser, tmp_path, packed
):
    """Alone, as papermill and JupyterLab leave it, and beside a report's own plotly.js."""
    executed = tiny_report.folder / "notebooks" / "05_compare.ipynb"
    notebook = nbformat.read(executed, as_version=4)
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    shown = [output["data"] for output in outputs if "data" in output]
    (library,) = (data for data in shown if pages.LIBRARY in data)
    assert len(library["text/html"]) < 10_000, "a report has plotly.js once for all"
    page_path = tmp_path / "one" / "notebooks" / "05_compare.html"
    page_path.parent.mkdir(parents=True)
    if packed:
        library["text/html"] = export.library_html()
    else:
        shutil.copytree(tiny_report.folder.parent / "assets", tmp_path / "assets")
    page_path.write_text(HTMLExporter().from_notebook_node(notebook)[0], encoding="utf-8")
    page, _ = open_page(browser, page_path, 1280)
    expect(page.locator(f".js-plotly-plot:has({MARKS})")).to_have_count(
        sum(pages.FIGURE in data for data in shown)
    )
    with page.expect_download() as saved:
        page.get_by_role("button", name="SVG").first.click()
    assert Path(saved.value.path()).read_bytes().startswith(b"<svg")
    page.screenshot(path=ARTIFACTS / "nbconvert.png")
    page.context.close()


def test_titles_that_are_html_are_shown_as_text(tiny_report, single_file, browser):
    for path in (*sorted(tiny_report.folder.glob("*.html")), single_file):
        page, errors = open_page(browser, path, 1280)
        assert not page.locator("img[src='x']").count()
        assert not errors, f"{path.name}: {errors}"
        if path.stem in ("01_explore", "04_attention", "report"):
            words = page.locator("article").all_inner_texts()
            assert all(any(attack in part for part in words) for attack in ATTACKS)
        page.context.close()


def test_titles_that_are_html_are_text_on_the_maps(tiny_report, browser):
    page, errors = open_page(browser, tiny_report.folder / "02_embeddings.html", 1280)
    for attack in ATTACKS:
        page.evaluate(
            """(title) => {
                for (const plot of document.querySelectorAll(".js-plotly-plot")) {
                    for (const [curveNumber, { text }] of plot.data.entries()) {
                        const pointNumber = [text].flat().findIndex(
                            (found) => String(found).split("<br>")[0] === title
                        );
                        if (pointNumber >= 0) {
                            Plotly.Fx.hover(plot, [{ curveNumber, pointNumber }]);
                            return;
                        }
                    }
                }
            }""",
            attack.replace("<", "&lt;").replace(">", "&gt;"),
        )
        page.locator(".hoverlayer").get_by_text(attack, exact=True).wait_for()
    assert not page.locator("img[src='x']").count()
    assert not errors
    page.context.close()


def test_titles_that_are_html_are_text_over_attention(tiny_report, browser):
    page, errors = open_page(browser, tiny_report.folder / "04_attention.html", 1280)
    seen = set()
    for plot in page.locator(".js-plotly-plot:has(.heatmaplayer image)").all():
        plot.scroll_into_view_if_needed()
        box = plot.locator(".heatmaplayer image").bounding_box()
        y = box["y"] + box["height"] - 5  # below the buttons that appear on hover
        titles = plot.evaluate("(plot) => plot.data[0].text[0]")
        for number, title in enumerate(titles[:8]):
            x = box["x"] + (number + 0.5) * box["width"] / len(titles)
            page.mouse.move(x, y)
            shown, own_id = title.split("<br>")  # a line each
            for line in (shown, own_id):
                plot.locator(".hoverlayer").get_by_text(unescape(line), exact=True).first.wait_for()
            seen.add(unescape(shown))
    assert seen >= set(ATTACKS)
    assert not page.locator("img[src='x']").count()
    assert not errors
    page.context.close()


def test_the_common_index_leads_to_every_page(tiny_report, browser):
    page, errors = open_page(browser, tiny_report.folder.parent / "index.html", 1280)
    page.get_by_role("link", name="05_compare").first.click()
    page.get_by_role("heading", name="Compare the strategies").wait_for()
    page.get_by_role("link", name="mmctr report").click()
    page.get_by_role("heading", name="Results on valid").wait_for()
    assert not errors
    page.context.close()
