"""What leaving out is worth: differences against a loop, and a figure that shows each of them."""

import re
from xml.etree import ElementTree

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import roc_auc_score

from benchmarks.excluding import COLOURS, compared, figure

GAINS = pd.DataFrame(
    [
        (0, "new", 90, 0.7, 0.71, 0.01, -0.02, 0.04),
        (0, "all", 900, 0.7, 0.7, 0.0, -0.01, 0.01),
        (10, "new", 90, 0.6, 0.65, 0.05, 0.01, 0.09),
        (10, "all", 900, 0.7, 0.69, -0.01, -0.03, 0.01),
    ],
    columns=["errors", "items", "clicks", "kept", "left out", "gain", "low", "high"],
)


def test_worth_is_the_difference_of_the_aucs(tiny):
    rows, rng = tiny.valid, np.random.default_rng(0)
    kept, out = (rng.random((2, len(rows))) + add * rows.label for add in (0.2, 1.0))
    groups = {"all": np.ones(len(rows), bool), "none": np.zeros(len(rows), bool)}
    (line,) = compared(rows, {"kept": list(kept), "left out": list(out)}, groups)
    for name, scores in (("kept", kept), ("left out", out)):
        expected = np.mean([roc_auc_score(rows.label, score) for score in scores])
        assert line[name] == pytest.approx(expected)
    assert line["gain"] == pytest.approx(line["left out"] - line["kept"])
    assert 0 < line["low"] < line["gain"] < line["high"]
    assert line["clicks"] == rows.label.sum()


def test_the_figure_shows_gains_with_intervals():
    tables = {"one": GAINS, "<two>": GAINS[GAINS["errors"] == 10]}
    drawn = ElementTree.fromstring(figure(tables))
    space = "{http://www.w3.org/2000/svg}"
    circles = drawn.findall(f"{space}circle")
    assert len(circles) == 6
    lines = {
        (float(x), line.get("style")[7:14]): (float(top), float(bottom))
        for line in drawn.findall(f"{space}path")
        for x, top, bottom in re.findall(r"M([\d.]+) ([\d.]+)V([\d.]+)", line.get("d"))
    }
    assert len(lines) == 6
    # By hand: 0.12 of AUC, from -0.03 to 0.09, are as high as all of the drawing.
    first = [circle for circle in circles if circle.get("fill") == COLOURS[0]]
    (new_0, new_10), y = first[:2], {c: float(c.get("cy")) for c in first}
    assert (y[new_0] - y[new_10]) / 224 == pytest.approx(0.04 / 0.12, abs=1e-3)
    for circle in circles:
        low, high = lines[float(circle.get("cx")), circle.get("fill")]
        assert min(low, high) < float(circle.get("cy")) < max(low, high)
    text = "".join(drawn.itertext())
    assert "<two>" in text
    assert "gain in AUC" in text
    assert "(90 and 90 clicks)" in text
