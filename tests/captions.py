"""What a caption says of its figure, compared with what the figure draws.

Looks that are told (dotted, hollow, star, blue ...) must be drawn, and what compares or bounds (a
dotted line, an interval) must be told; systems that are named must be there; a number must be one
of the figure's, rounded, but for those that define a term.
"""

import base64
import json
import re
from itertools import pairwise

import numpy as np

from mmctr.report.pages import CAPTION, FIGURE

TERMS = (  # whose numbers are definitions, not results
    "95%",
    "middle 90%",
    r"p below 0\.05",
    "1 to 4",
    "5 or more",
    "fewer than 5",
    "20 items",
    "at least 30 valid rows",
    r"\d+ most frequent",
    "2 to 3, is from 2 on and below 3",
    "0: unknown",
    r"\(\d+ negatives? (was|were) drawn for each click\)",
)
COLOURS = {"blue": "#4A9FD8", "orange": "#E08A00"}
SYSTEMS = r"\b(?:v[1-6]|oracle|cosine of (?:text|image)|popularity(?= alone))\b"


def captioned(notebook):
    """Figures (plotly's JSON) of an executed notebook, each with its caption; None without one."""
    found = []
    for cell in notebook.cells:
        shown = [output.get("data", {}) for output in cell.get("outputs", [])]
        for data, following in pairwise([*shown, {}]):
            if FIGURE in data:
                found.append((data[FIGURE], following.get(CAPTION)))
    return found


def require_true_captions(notebook):
    """Raise AssertionError that names every caption which its figure does not bear out."""
    wrong = [
        f"{caption!r}: {problem}"
        for figure, caption in captioned(notebook)
        for problem in (problems(figure, caption) if caption else ["there is no caption"])
    ]
    assert not wrong, "\n".join(wrong)


def problems(figure, caption):
    """What a caption says of a figure that is not drawn, and what it leaves untold."""
    traces, layout = figure["data"], figure["layout"]
    words, text = caption.lower(), json.dumps(figure)
    shapes = [shape for shape in layout.get("shapes", []) if shape["line"].get("dash") == "dot"]
    dotted = shapes or [t for t in traces if (t.get("line") or {}).get("dash") == "dot"]
    symbols = {
        str(symbol)
        for trace in traces
        if "symbol" in (trace.get("marker") or {})
        for symbol in np.ravel(trace["marker"]["symbol"])
    }
    bars = [t for t in traces if "array" in (t.get("error_x") or t.get("error_y") or {})]
    bounds = bool(bars) or any(trace["type"] == "box" for trace in traces)
    hover = str([trace.get("hovertext") for trace in traces])
    drawn = {
        "dotted": bool(dotted),
        "hollow": any(symbol.endswith("-open") for symbol in symbols),
        "filled": any(not symbol.endswith("-open") for symbol in symbols),
        "star": "star" in symbols,
        "diamond": any(symbol.startswith("diamond") for symbol in symbols),
        "bold": "<b>" in str([trace.get("text") for trace in traces]),
        "in brackets": "(0." in str([trace.get("text") for trace in traces]),
        "interval": bool(bars) or "interval" in hover,
        "whiskers": any(trace["type"] == "box" for trace in traces),
        **{name: code in text for name, code in COLOURS.items()},
    }

    def told(look):
        return re.search(rf"\b{look}s?\b", words)

    found = [f"nothing is {look}" for look, there in drawn.items() if told(look) and not there]
    if shapes and "dotted" not in words:
        found.append("a dotted line is not told")
    if bounds and not re.search("interval|lines?|whiskers", words):
        found.append("what bars or boxes bound is not told")
    if drawn["hollow"] and not re.search("hollow|diamond", words):
        found.append("hollow marks are not told")
    names = text.replace("\\u003c", "<")
    found += [f"{name} is not drawn" for name in re.findall(SYSTEMS, words) if name not in names]
    values = numbers_of(figure)
    for term in TERMS:
        words = re.sub(term, "", words)
    words = re.sub(SYSTEMS, "", words).replace(":00", "")
    for number in re.findall(r"(?<![\w.-])\d[\d,]*(?:\.\d+)?", words):
        value, decimals = float(number.replace(",", "")), len(number.partition(".")[2])
        if not (np.abs(values - value) <= 0.5001 * 10.0**-decimals).any():
            found.append(f"{number} is not in the figure")
    return found


def numbers_of(figure):
    """All numbers that a figure draws or writes: values, ends of bars, sums of bars, and words."""
    found = [np.zeros(0)]
    for trace in figure["data"]:
        for name in ("x", "y", "z", "customdata", "q1", "median", "q3"):
            found.append(_numbers(trace.get(name)))
        for axis in ("x", "y"):
            error, middle = trace.get(f"error_{axis}") or {}, _numbers(trace.get(axis))
            if "base" in trace and axis == "y":
                middle = middle + trace["base"]
            found.append(middle)
            for end, sign in (("array", 1), ("arrayminus", -1)):
                if end in error:
                    found.append(middle + sign * _numbers(error[end]))
            if trace["type"] == "bar":
                found.append(np.cumsum(middle))
        found.append(_written([trace.get("text"), trace.get("name"), trace.get("hovertext")]))
    layout = figure["layout"]
    axes = [value for name, value in layout.items() if re.match("[xy]axis", name)]
    titles = [[axis.get("title"), axis.get("ticktext")] for axis in axes]
    notes = [note["text"] for note in layout.get("annotations", []) if "text" in note]
    names = [shape.get("name") for shape in layout.get("shapes", [])]
    return np.concatenate([*found, _written([titles, notes, names])])


def _numbers(values):
    """Plotly's array, plain or in base64, as floats; words give the numbers that they hold."""
    if isinstance(values, dict):
        raw = np.frombuffer(base64.b64decode(values["bdata"]), values["dtype"])
        return raw.astype(float)
    flat = np.ravel(np.asarray(values or [], dtype=object)).tolist()
    plain = [float(value) for value in flat if isinstance(value, int | float)]
    return np.concatenate([plain, _written([v for v in flat if isinstance(v, str)])])


def _written(words):
    found = re.findall(r"\d[\d,]*(?:\.\d+)?", str(words))
    return np.array([float(number.replace(",", "")) for number in found])
