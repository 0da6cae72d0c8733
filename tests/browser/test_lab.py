"""The notebooks in a real JupyterLab: every cell runs, the explorers answer, titles stay text."""

import os
import re
import shutil
import socket
import subprocess
import sys
import threading
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from playwright.sync_api import expect, sync_playwright

from mmctr.content import fusion
from mmctr.data.dataset import Dataset
from mmctr.data.demo import write_demo
from mmctr.data.erroneous import errors_file, read_errors
from mmctr.data.impressions import Impressions
from mmctr.evaluation import explain, similarity
from mmctr.report.reports import Report
from mmctr.runs.provenance import describe
from mmctr.runs.run import Run
from mmctr.runs.train import train
from mmctr.training.config import configs

ROOT = Path(__file__).parents[2]
ARTIFACTS = ROOT / "tests" / "artifacts"
CHROMIUM = shutil.which("chromium")
HOSTILE = ('"><img src=x onerror=alert(1)> {}', "<script>alert(1)</script> {}")
SETTINGS = {
    "notebook-extension/tracker": '{"windowingMode": "none"}',  # every cell is in the page
    "apputils-extension/notification": '{"fetchNews": "false"}',
    "apputils-extension/themes": '{"theme": "JupyterLab Dark"}',
}


if CHROMIUM is None and os.environ.get("CI"):
    pytest.fail("chromium is not installed, so nobody tried the notebooks", pytrace=False)

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="chromium is not installed")


@dataclass
class Lab:
    """A running JupyterLab, its browser, and what it works on."""

    address: str
    browser: object
    dataset: Dataset
    run: Run

    def execute(self, name):
        """Open a notebook, run all cells, and return its page with the errors it shows."""
        page, errors = self.browser.new_page(viewport={"width": 1280, "height": 1400}), []
        page.on(
            "console",
            lambda message: (
                message.type == "error" and errors.append(f"{message.text} {message.location}")
            ),
        )
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.on("dialog", lambda dialog: answer(dialog, errors))
        page.goto(f"{self.address}/lab/tree/{name}.ipynb?reset&token=test")
        self.run_all(page)
        return page, errors

    def run_all(self, page):
        """Run all cells of the notebook that a page shows; none may fail."""
        page.get_by_text("Python 3 (ipykernel) | Idle").wait_for(timeout=60_000)
        page.get_by_role("menuitem", name="Run", exact=True).click()
        page.get_by_text("Run All Cells", exact=True).click()
        page.wait_for_function(
            """() => document.querySelector('[data-mime-type$="jupyter.error"]') ||
            [...document.querySelectorAll(".jp-CodeCell .jp-InputPrompt")].every(
              (prompt) => /\\d/.test(prompt.textContent))""",
            timeout=90_000,
        )
        assert page.locator('[data-mime-type$="jupyter.error"]').all_inner_texts() == []


def answer(dialog, errors):
    """Leave an unsaved notebook; any other dialog is a title that ran."""
    if dialog.type == "beforeunload":
        dialog.accept()
    else:
        errors.append("a title ran as code")
        dialog.dismiss()


def tab_to(page, place, limit=60):
    """Press Tab until an element has the focus, as whoever has no mouse does."""
    for _ in range(limit):
        if place.evaluate("(element) => element === document.activeElement"):
            return
        page.keyboard.press("Tab")
    raise AssertionError(f"Tab does not reach {place}")


def retype(page, text):
    """Type over what stands in the field that has the focus."""
    page.keyboard.press("Control+A")
    page.keyboard.type(text)


def take_item(page, explorer, number):
    """Search for an item by its number and take it, by keyboard."""
    tab_to(page, explorer.get_by_label("Item", exact=True))
    retype(page, f"no {number}.")
    found = explorer.locator(f"button[data-value='{number}']").first
    found.wait_for()
    tab_to(page, found)
    page.keyboard.press("Enter")


def demo_with_hostile_titles(folder):
    """The smallest demo, its titles such as only an attacker would write."""
    write_demo(folder, seed=1, items=200, users=64)
    path = folder / "item_feature.parquet"
    table = pq.read_table(path)
    ids = table["item_id"].to_pylist()
    titles = pa.array([HOSTILE[number % 2].format(f"no {number}.") for number in ids])
    column = table.schema.get_field_index("item_title")
    pq.write_table(table.set_column(column, "item_title", titles), path)
    return Dataset.load(folder)


@pytest.fixture(scope="module")
def lab(tmp_path_factory):
    """JupyterLab on a copy of the notebooks, with a demo dataset and a small run."""
    home = tmp_path_factory.mktemp("lab")
    dataset = demo_with_hostile_titles(home / "data" / "demo")
    small = configs(epochs=1, embedding_dim=8, heads=2, hidden=(16,))
    run = train(dataset, "v4", *small, home / "runs")
    folder, date = home / "reports" / "one", run.summary["date"]
    folder.mkdir(parents=True)
    runs = [os.path.relpath(run.folder, folder)]
    Report(folder, describe(dataset), ["v4"], [1], [], date, runs).save()
    for name, text in SETTINGS.items():
        path = home / "settings" / "@jupyterlab" / f"{name}.jupyterlab-settings"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    folders = {
        "JUPYTERLAB_SETTINGS_DIR": "settings",
        "JUPYTERLAB_WORKSPACES_DIR": "workspaces",
        "JUPYTER_CONFIG_DIR": "config",
        "JUPYTER_RUNTIME_DIR": "runtime",
        "IPYTHONDIR": "ipython",
        "MMCTR_HOME": ".",
    }
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    options = ["--no-browser", "--allow-root", f"--port={port}", "--ServerApp.port_retries=0"]
    options += ["--IdentityProvider.token=test"]
    server = subprocess.Popen(
        [sys.executable, "-m", "mmctr", "lab", *options],
        env=os.environ | {name: str(home / folder) for name, folder in folders.items()},
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        log = []
        for line in server.stderr:
            log.append(line)
            if "is running at" in line:
                break
        assert server.poll() is None, "".join(log)
        threading.Thread(target=server.stderr.read, daemon=True).start()  # a full pipe would block
        with sync_playwright() as playwright:
            browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
            yield Lab(f"http://127.0.0.1:{port}", browser, dataset, run)
            browser.close()
    finally:
        server.terminate()
        server.wait(20)


def shown_numbers(page):
    """The numbers of the explorer by name: Predicted, Now, Label, Truth."""
    facts = page.locator(".jp-OutputArea .fact").all_inner_texts()
    return {name: float(number) for name, number, _ in (fact.splitlines() for fact in facts)}


def expected_probability(lab, target, history):
    """What the model says of a target and a history."""
    one = {"user": np.array([1]), "label": None, "history_items": np.array(history, np.int32)}
    ends = {"history_start": np.array([0]), "history_end": np.array([len(history)])}
    rows = Impressions(target=np.array([target], np.int32), **one, **ends)
    return explain.sigmoid(explain.logits(lab.run.model(), rows))[0]


def test_attention_explorer(lab):
    page, errors = lab.execute("04_attention")
    valid = lab.dataset.valid
    users = pd.Series(valid.user)[valid.history_length >= 3]
    user = users.iloc[0]
    row = int(np.flatnonzero(valid.user == user)[0])
    history = valid.history(row)[-64:].tolist()

    page.get_by_label("Case").focus()  # from here on the keyboard alone
    tab_to(page, page.get_by_label("User"))
    retype(page, str(user))
    predicted = expected_probability(lab, valid.target[row], history)
    number = page.locator(".jp-OutputArea .fact .number")
    expect(number.first).to_have_text(f"{predicted:.3f}")
    assert shown_numbers(page)["Label"] == valid.label[row]
    clicks = page.locator(".jp-OutputArea .item:has(.weight)")
    assert clicks.count() == len(history)
    table = explain.leave_one_out(lab.run.model(), valid.select(np.array([row])))
    without = explain.sigmoid(table["logit"] - table["effect"]) - explain.sigmoid(table["logit"])
    notes = clicks.locator(".effect").all_inner_texts()[::-1]  # the latest is the table's first
    changes = [note.split(": ")[1].replace("−", "-").split() for note in notes]
    in_points = [float(change[0]) if len(change) == 1 else 0.0 for change in changes]
    assert in_points == pytest.approx((100 * without).tolist(), abs=0.051)

    tab_to(page, page.get_by_role("button", name="Remove").nth(1))
    page.keyboard.press("Enter")
    del history[1]
    expect(clicks).to_have_count(len(history))
    now = expected_probability(lab, valid.target[row], history)
    assert shown_numbers(page)["Now"] == pytest.approx(now, abs=6e-4)
    assert page.evaluate("document.activeElement.className") == "remove", "the focus is kept"

    tab_to(page, page.get_by_label("Swap for"), limit=200)
    retype(page, "no 17.")
    swap = page.locator("[data-action=swap][data-value='17']")
    swap.wait_for()
    tab_to(page, swap)
    page.keyboard.press("Enter")
    now = expected_probability(lab, 17, history)
    expect(number.nth(1)).to_have_text(f"{now:.3f}")
    assert HOSTILE[1].format("no 17.") in page.locator(".head .title").first.inner_text()
    page.locator(".jp-OutputArea .head").first.scroll_into_view_if_needed()
    page.screenshot(path=ARTIFACTS / "lab-04_attention.png")

    # Nothing was saved: its outputs are gone, but the kernel knows what was explored.
    page.reload()
    lab.run_all(page)
    expect(number.nth(1)).to_have_text(f"{now:.3f}")
    expect(page.get_by_label("User")).to_have_value(str(user))
    expect(clicks).to_have_count(len(history))

    page.get_by_label("Swap for").focus()
    tab_to(page, page.get_by_role("button", name="Undo all changes"))
    page.keyboard.press("Enter")
    expect(number).to_have_count(3)
    assert number.first.inner_text() == f"{predicted:.3f}"
    assert page.locator('img[src="x"]').count() == 0
    assert errors == []
    page.close()


def test_item_explorer(lab):
    page, errors = lab.execute("02_embeddings")
    explorer = page.locator(".jp-OutputArea .widget-vbox")
    point = explorer.locator(".scatterlayer .point").nth(7)
    point.scroll_into_view_if_needed()
    box = point.bounding_box()
    middle = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
    page.mouse.move(*middle)
    hover = explorer.locator(".hoverlayer .nums").first
    hover.wait_for()
    item = int(re.search(r"no (\d+)", hover.text_content())[1])
    assert HOSTILE[item % 2].format(f"no {item}.") in hover.text_content()
    page.mouse.click(*middle)
    expect(explorer.locator("h4")).to_have_text(HOSTILE[item % 2].format(f"no {item}."))
    columns = explorer.locator(".columns > div")
    for number, strategy in enumerate(("v1", "v2", "v3", "v4")):
        assert columns.nth(number).locator("h5").inner_text() == strategy
        embedding = fusion.item_embeddings(lab.dataset, strategy)
        near = similarity.nearest(embedding, item, 6)
        lines = columns.nth(number).locator("button")
        found = [int(line.get_attribute("data-value")) for line in lines.all()]
        assert found == near.tolist()
    page.screenshot(path=ARTIFACTS / "lab-02_embeddings.png")

    explorer.get_by_label("Map of").focus()  # from here on the keyboard alone
    points = explorer.locator(".js-plotly-plot").evaluate(
        """(plot) => plot.data.filter((trace) => trace.customdata).flatMap(
            ({ x, y, customdata: items }) => Array.from(x, (at, n) => [+items[n], at, y[n]]))"""
    )
    here = next(point for point in points if point[0] == item)
    steps = []
    for key, name, axis, sign in (("←", "Left", 1, -1), ("→", "Right", 1, 1), ("↓", "Down", 2, -1)):
        ahead = []
        for point in points:
            along = sign * (point[axis] - here[axis])
            across = abs(point[3 - axis] - here[3 - axis])
            if along > 0 and along >= across:
                ahead.append((along**2 + across**2, point[0]))
        step = explorer.locator(f"button[data-key='{key}']")
        expect(step).to_have_count(1 if ahead else 0)
        if ahead:
            nearest = min(ahead)[1]
            title = HOSTILE[nearest % 2].format(f"no {nearest}.")
            assert step.get_attribute("aria-label").startswith(f"{name} on the map: {title}")
            steps.append((step, nearest, title))
    step, item, title = steps[0]
    tab_to(page, step)
    page.keyboard.press("Enter")
    expect(explorer.locator("h4")).to_have_text(title)
    live = explorer.locator("[aria-live=polite]:has(h4)")
    expect(live).to_contain_text("Its nearest neighbours")  # what screen readers say
    tab_to(page, columns.nth(0).locator("button").first)
    page.keyboard.press("Enter")
    follow = columns.nth(0).locator("button").first
    expect(explorer.locator(f"button[data-value='{item}']").first).to_be_attached()
    assert follow.is_visible()
    explorer.get_by_label("Map of").focus()
    page.keyboard.press("ArrowUp")
    tab_to(page, page.get_by_label("Find"))
    retype(page, "no 23.")
    expect(explorer.locator("h4")).to_have_text(HOSTILE[1].format("no 23."))
    assert page.locator('img[src="x"]').count() == 0
    assert errors == []
    page.close()


def test_error_gallery(lab):
    page, errors = lab.execute("01_explore")
    gallery = page.locator(".jp-OutputArea .widget-vbox")
    kind = gallery.get_by_label("Kind")
    kind.focus()  # from here on the keyboard alone
    page.keyboard.type("placeholder")
    tiles = gallery.locator("button[data-action=tick]")
    expect(tiles).to_have_count(6)
    assert not errors_file(lab.dataset.folder).exists(), "looking changes nothing"
    gallery.scroll_into_view_if_needed()
    tab_to(page, tiles.nth(1))
    page.keyboard.press("Space")
    expect(gallery).to_contain_text("5 of 6 left out")
    expect(tiles.nth(1)).to_have_attribute("aria-pressed", "false")
    page.screenshot(path=ARTIFACTS / "lab-01_explore.png")
    kept = read_errors(lab.dataset.folder).query("not excluded")
    assert kept[["what", "kind"]].to_numpy().tolist() == [["cover", "placeholder"]]
    item = lab.dataset.catalog.numbers(kept["id"])[0]
    assert lab.dataset.catalog.titles[item] in tiles.nth(1).inner_text()

    page.keyboard.press("Enter")  # the focus is kept
    expect(gallery).to_contain_text("6 of 6 left out")
    assert read_errors(lab.dataset.folder)["excluded"].all()
    kind.focus()
    page.keyboard.type("sweep")
    expect(tiles).to_have_count(1)
    expect(tiles).to_contain_text("user ")
    assert page.locator('img[src="x"]').count() == 0
    assert errors == []
    page.close()


def test_new_item_explorer(lab):
    page, errors = lab.execute("09_new_items")
    explorer = page.locator(".jp-OutputArea .widget-vbox")
    explorer.get_by_label("Title", exact=True).focus()  # from here on the keyboard alone
    take_item(page, explorer, 23)
    expect(explorer.locator("h4")).to_have_text(HOSTILE[1].format("no 23."))
    tags = [lab.dataset.catalog.tag_name(tag) for tag in lab.dataset.catalog.tags[23] if tag]
    expect(explorer).to_contain_text(f"Tags: {', '.join(tags)}.")
    mean = explorer.locator(".fact").first.inner_text()
    assert mean.startswith("Mean score")
    explorer.scroll_into_view_if_needed()
    page.screenshot(path=ARTIFACTS / "lab-09_new_items.png")
    # Another item's text alone: the tags stay, and so does what they add.
    explorer.get_by_label("Take", exact=True).focus()
    page.keyboard.type("the te")
    take_item(page, explorer, 40)
    expect(explorer.locator("h4")).to_have_text(HOSTILE[0].format("no 40."))
    expect(explorer).to_contain_text(f"Tags: {', '.join(tags)}.")
    assert explorer.locator(".fact").first.inner_text() != mean
    explorer.get_by_label("Title", exact=True).focus()
    retype(page, "a title of no item")
    page.keyboard.press("Enter")
    expect(explorer).to_contain_text("The title changes nothing yet.")
    assert page.locator('img[src="x"]').count() == 0
    assert errors == []
    page.close()


@pytest.mark.parametrize("name", ["03_train", "05_compare"])
def test_notebook_without_explorer(lab, name):
    page, errors = lab.execute(name)
    for kind, start in (("SVG", b"<svg"), ("PNG", b"\x89PNG"), ("CSV", b"")):
        with page.expect_download() as saved:
            role = "link" if kind == "CSV" else "button"
            page.get_by_role(role, name=kind, exact=True).first.focus()
            page.keyboard.press("Enter")
        content = Path(saved.value.path()).read_bytes()
        assert content.startswith(start)
        assert saved.value.suggested_filename.endswith(f".{kind.lower()}")
    assert content.decode().splitlines()[0].split(",")[0] in ("metric", "strategy")
    drawn = page.locator(".jp-RenderedPlotly .main-svg")
    assert drawn.count(), "JupyterLab draws figures by plotly's own renderer"
    page.screenshot(path=ARTIFACTS / f"lab-{name}.png")
    if name == "03_train":
        line = page.locator(".mmctr-panel details summary").first
        line.focus()
        page.keyboard.press("Enter")
        expect(page.locator(".mmctr-panel details[open] .item").first).to_be_visible()
    assert page.locator('img[src="x"]').count() == 0
    assert errors == []
    page.close()
