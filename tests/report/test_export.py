"""What leaves a notebook: tables as CSV, figures that a page draws, names of files."""

import base64
import gzip
import io
import json
import re

import pandas as pd
from plotly.offline import get_plotlyjs

from mmctr.report import export

HOSTILE = '</script><img src=x onerror=alert(1)>", "b'


def test_a_table_goes_along_as_csv_with_all_its_digits():
    table = pd.DataFrame({"title": [HOSTILE, "b"], "AUC": [2 / 3, 1.0]})
    link = export.table_link(table, "The best, at 0.67")
    name, held = re.fullmatch(
        r'<a download="(.+)" href="data:text/csv;base64,([\w+/=]+)">CSV</a>', link
    ).groups()
    assert name == "the-best-at-0-67.csv"
    pd.testing.assert_frame_equal(pd.read_csv(io.BytesIO(base64.b64decode(held))), table)


def test_a_figure_cannot_end_the_script_that_holds_it():
    figure = {"data": [{"text": [HOSTILE]}], "layout": {"height": 123}}
    html = export.figure_html(figure)
    assert "min-height: 123px" in html
    assert "<img" not in html
    held = re.search(r'<script type="application/json">(.*?)</script>', html)[1]
    assert json.loads(held) == figure


def test_plotly_is_packed_whole():
    packed = re.search(r'id="mmctr-plotly">([\w+/=]+)</script>', export.library_html())[1]
    assert gzip.decompress(base64.b64decode(packed)).decode() == get_plotlyjs()
    assert len(packed) < 2.2e6


def test_names_of_files_hold_letters_digits_and_hyphens():
    name = export.file_name("Où? <b>AUC</b> of 'v1' & v4: a very long caption")
    assert name == "où-b-auc-b-of-v1"
    assert export.file_name("?!") == "figure"
    assert 'data-name="figure"' in export.figure_buttons("…")
