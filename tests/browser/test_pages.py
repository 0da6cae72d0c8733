"""Reports in a real browser with the network off: figures drawn, nothing cut off, no error."""

import os
import shutil
from pathlib import Path

import pytest
from playwright.sync_api import sync_playwright

ARTIFACTS = Path(__file__).parents[1] / "artifacts"
CHROMIUM = shutil.which("chromium")
WIDTHS = {"wide": 1280, "narrow": 400}

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
    page.goto(path.as_uri())
    figures = page.locator(".plotly-figure")
    for number in range(figures.count()):
        figures.nth(number).locator(".main-svg, canvas").first.wait_for(state="attached")
    return page, errors


def drawn_marks(page):
    """How many marks each figure shows: lines, points, bars, boxes and heat maps."""
    marks = ".scatterlayer path, .barlayer path, .boxlayer path, .heatmaplayer image"
    return [figure.locator(marks).count() for figure in page.locator(".plotly-figure").all()]


@pytest.mark.parametrize(("width", "scheme"), [("wide", "light"), ("narrow", "dark")])
def test_pages(tiny_report, browser, width, scheme):
    names = ["index", *(page.name for page in tiny_report.pages)]
    for name in names:
        path = tiny_report.folder / f"{name}.html"
        page, errors = open_page(browser, path, WIDTHS[width], scheme)
        marks = drawn_marks(page)
        assert all(marks), f"{name}: an empty figure among {marks}"
        assert name == "index" or marks, f"{name} has no figures"
        overflow = page.evaluate("document.documentElement.scrollWidth - innerWidth")
        assert overflow <= 0, f"{name} is {overflow} px too wide at {width}"
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


def test_the_common_index_leads_to_every_page(tiny_report, browser):
    page, errors = open_page(browser, tiny_report.folder.parent / "index.html", 1280)
    page.get_by_role("link", name="05_compare").first.click()
    page.get_by_role("heading", name="Compare the strategies").wait_for()
    page.get_by_role("link", name="mmctr report").click()
    page.get_by_role("heading", name="Results on valid").wait_for()
    assert not errors
    page.context.close()
