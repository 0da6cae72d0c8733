"""Figures show the values that they are given, with axis titles and fixed colours."""

import inspect

import numpy as np
import pandas as pd
import plotly.graph_objects as go
import pytest

from mmctr.content.strategies import STRATEGIES
from mmctr.report import figures

ATTACK = '<script>alert(1)</script> & "quotes"'
GROUPS = pd.DataFrame(
    {"group": ["0", "1+"], "auc": [0.5, 0.7], "low": [0.4, 0.6], "high": [0.6, 0.8]}
    | {"rows": [10, 20], "system": "v1"}
)
HEADS = pd.DataFrame(
    {
        "head": [1, 1, 2, 2],
        "age": [1, 2, 1, 2],
        "item": [2, 1, 2, 1],
        "weight": [0.9, 0.1, 0.3, 0.7],
    }
)
TRIALS = pd.DataFrame(
    {
        "trial": [1, 2, 3, 4],
        "state": ["finished", "pruned", "diverged", "finished"],
        "auc": [0.6, 0.5, np.nan, 0.7],
        "best": [0.6, 0.6, 0.6, 0.7],
        "rate": [0.01, 0.001, 0.5, 0.003],
        "hidden": [[128, 64], [64], [64], [9, 8]],
    }
)
RATES = pd.DataFrame(
    {"value": ["a", "<b>"], "rows": [1200, 3], "rate": [0.25, 0.5]} | {"low": 0.2, "high": 0.6}
)
TESTED = pd.DataFrame(
    {"window": [1, 2] * 3, "time": pd.to_datetime(["2024-01-01", "2024-02-01"] * 3)}
    | {"system": np.repeat(["cold start", "warm start", "popularity"], 2), "group": "new"}
    | {"auc": [0.7, 0.8, 0.71, 0.79, 0.5, 0.6], "low": 0.4, "high": 0.9}
)
TILES = pd.DataFrame(
    {
        "by": ["all rows", "tag", "tag", "brand (item)"],
        "value": ["all rows", "<b>", "7", "a name that is longer than its place"],
        "rows": [1200, 900, 30, 3],
        "clicks": [600, 300, 9, 3],
        "auc": [0.7, 0.6, 0.9, np.nan],
        "auc_low": [0.68, 0.58, 0.5, np.nan],
        "auc_high": [0.72, 0.62, 1.0, np.nan],
        "logloss": [0.5, 0.4, 0.9, 0.1],
        "logloss_low": [0.4, 0.3, 0.8, 0.05],
        "logloss_high": [0.6, 0.51, 1.0, 0.2],
        "few": [False, False, True, True],
    }
)
EXAMPLES = {
    "tiles": lambda: figures.atlas.tiles(TILES, ["t0", "t1", "t2", "t3"]),
    "quality_against_cost": lambda: figures.challenge.quality_against_cost(
        pd.DataFrame(
            {
                "system": ["default", "momo", "din"],
                "AUC": [0.8, 0.9, 0.7],
                "seconds to its best": [10.0, 90.0, 30.0],
                "parameters": [100, 400, 100],
                "p_holm": [np.nan, 0.01, 0.5],
            }
        )
    ),
    "history_lengths": lambda: figures.data.history_lengths({"train": np.array([0, 1, 1, 3])}),
    "popularity": lambda: figures.data.popularity(np.array([5, 0, 9, 1])),
    "bars": lambda: figures.data.bars(
        pd.DataFrame({"a": [3, 1], "b": [1.0, 2.0]}), "a", "b", x_title="A", y_title="B"
    ),
    "explained_variance": lambda: figures.embeddings.explained_variance(
        {"v4": {"text": np.array([0.5, 0.9]), "image": np.array([0.4, 0.8])}}
    ),
    "next_click_hits": lambda: figures.embeddings.next_click_hits(
        pd.DataFrame(
            {"strategy": ["v1", "v1", "v5", "v5"], "group": ["new", "warm"] * 2, "clicks": 9}
            | {"hits": [0.1, 0.2, 0.3, 0.4], "low": 0.05, "high": 0.5}
        )
    ),
    "semantic_ids": lambda: figures.embeddings.semantic_ids(
        pd.DataFrame({"level": [1, 1, 2], "id": [2, 1, 1], "rank": [1, 2, 1], "items": [9, 3, 4]})
    ),
    "co_clicks": lambda: figures.embeddings.co_clicks(
        pd.DataFrame(
            {"strategy": ["v1", "v9"], "mean": [0.6, 0.55], "low": [0.5, 0.5], "high": [0.7, 0.6]}
        )
    ),
    "learning_curve": lambda: figures.training.learning_curve(
        pd.DataFrame({"epoch": [0.5, 1], "train_loss": [0.6, 0.5], "logloss": [0.7, 0.6]}).assign(
            auc=[0.6, 0.7]
        ),
        "v2",
    ),
    "time_split": lambda: figures.training.time_split(
        {"data": 1.0, "forward": 3.0, "backward": 4.0}
    ),
    "calibration": lambda: figures.training.calibration(
        dict.fromkeys(
            ("as trained", "corrected"),
            pd.DataFrame({"rows": [5, 5], "predicted": [0.1, 0.4], "observed": [0.2, 0.4]}),
        ),
        "v1",
        "click rate",
    ),
    "rates": lambda: figures.data.rates(
        {"brand (item)": RATES, ATTACK: RATES.assign(predicted=0.3)}, "Click rate (%)", 0.3
    ),
    "rate_bars": lambda: figures.data.rate_bars(
        RATES, 0.3, x_title="Hour", y_title="Click rate (%)"
    ),
    "auc_by_group": lambda: figures.training.auc_by_group(GROUPS, "Clicks"),
    "auc_by_newness": lambda: figures.new_items.auc_by_newness(
        pd.concat([GROUPS.assign(against=kind, clicks=[3, 4]) for kind in ("same", "all")])
    ),
    "attention_heads": lambda: figures.attention.attention_heads(
        HEADS, np.array(["", ATTACK, ""]), np.array(["", "<0007>", "x-2"])
    ),
    "lines_by_head": lambda: figures.attention.lines_by_head(
        HEADS, "age", "weight", x_title="Age", y_title="Weight"
    ),
    "field_weights": lambda: figures.attention.field_weights(
        pd.DataFrame({"field": ["id"], "mean": [0.5], "low": [0.4], "high": [0.6]})
    ),
    "importance": lambda: figures.attention.importance(
        pd.DataFrame({"field": ["id"], "mean": [0.05], "low": [0.04], "high": [0.06]})
    ),
    "histogram": lambda: figures.data.histogram(np.array([-0.5, 0.2, 0.9]), "Rank", low=-1, high=1),
    "distributions": lambda: figures.data.distributions({"a": np.arange(9.0)}, "Change"),
    "strategies": lambda: figures.comparison.strategies(
        pd.DataFrame({"strategy": ["v1", "v4"], "seed": [1, 1], "auc": [0.6, 0.7]}).assign(
            low=0.5, high=0.8
        ),
        {"popularity": 0.55},
    ),
    "auc_against_time": lambda: figures.comparison.auc_against_time(
        pd.DataFrame({"strategy": ["v4", "v1", "v4"], "seed": [1, 1, 2]}).assign(
            auc=[0.7, 0.6, 0.71], seconds=[30.0, 20.0, 34.0]
        )
    ),
    "search_history": lambda: figures.search.search_history(TRIALS, {"popularity": 0.55}),
    "search_curves": lambda: figures.search.search_curves(
        pd.DataFrame({"trial": [1, 1, 2], "state": ["finished", "finished", "pruned"]}).assign(
            validation=[1, 2, 1], auc=[0.6, 0.7, 0.5]
        ),
        1,
    ),
    "search_slices": lambda: figures.search.search_slices(TRIALS, {"rate": True, "hidden": False}),
    "auc_over_time": lambda: figures.backtest.auc_over_time(TESTED),
    "auc_by_group_over_time": lambda: figures.backtest.auc_by_group_over_time(
        pd.concat([TESTED, TESTED.assign(group="cold")])
    ),
    "differences_over_time": lambda: figures.backtest.differences_over_time(
        TESTED[:4].assign(difference=[0, 0, 0.01, -0.01], low=-0.02, high=0.02)
    ),
    "seconds_over_time": lambda: figures.backtest.seconds_over_time(
        TESTED[:4].assign(seconds=[1.0, 2.0, 1.0, 1.5], rows=10)
    ),
    "differences": lambda: figures.comparison.differences(
        pd.DataFrame(
            {"strategy": ["v1"], "difference": [-0.1], "low": [-0.2], "high": [-0.05]}
            | {"p_holm": [0.01]}
        ),
        "v4",
    ),
}


SHOW_THEM = {"explained_variance", "next_click_hits", "co_clicks", "learning_curve", "calibration"}
SHOW_THEM |= {"auc_by_group", "auc_by_newness", "strategies", "auc_against_time", "differences"}


def test_every_figure_has_an_example():
    found = {
        name
        for module in figures.__all__
        for name, function in inspect.getmembers(getattr(figures, module), inspect.isfunction)
        if function.__module__ == f"{figures.__name__}.{module}" and not name.startswith("_")
    }
    helpers = {"strategy_color", "assign_colors", "as_text", "new_figure", "error_bars"}
    helpers |= {"symbols", "in_words", "marks_meta", "add_references", "log_ticks"}
    helpers |= {"add_groups"}
    assert found - helpers - {"item_maps"} == set(EXAMPLES)


@pytest.mark.parametrize("name", EXAMPLES)
def test_figures_are_labelled_and_leave_the_background_to_the_page(name):
    figure = EXAMPLES[name]()
    assert isinstance(figure, go.Figure)
    assert figure.data
    assert any(axis.title.text for axis in figure.select_xaxes())  # of panels, the lowest
    # Names on an axis speak for themselves; numbers need a title.
    named = all(isinstance(value, str) for trace in figure.data for value in trace.y)
    assert named or figure.layout.yaxis.ticktext or figure.layout.yaxis.title.text
    assert figure.layout.template.layout.paper_bgcolor == "rgba(0, 0, 0, 0)"
    assert figure.to_json()


def test_strategies_have_fixed_colours_of_their_own():
    colors = [figures.style.strategy_color(name) for name in STRATEGIES]
    assert len(set(colors)) == len(STRATEGIES)
    assert figures.style.strategy_color("provided:x") == figures.style.strategy_color("provided:x")
    assert figures.style.strategy_color("provided:x") not in colors


@pytest.mark.parametrize("ground", ["#ffffff", "#14171c"])  # of pages, light and dark
def test_colours_of_strategies_stand_out_from_either_ground(ground):
    def luminance(color):
        """As WCAG 2.2 has it."""
        parts = [int(color[place : place + 2], 16) / 255 for place in (1, 3, 5)]
        linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in parts]
        return float(np.dot([0.2126, 0.7152, 0.0722], linear))

    for name in STRATEGIES:
        pair = sorted([luminance(figures.style.strategy_color(name)), luminance(ground)])
        assert (pair[1] + 0.05) / (pair[0] + 0.05) > 2, name


def test_colours_of_strategies_are_nothing_elses():
    """One palette, one meaning: what is no strategy has no strategy's colour, on any page."""
    of_strategies = {figures.style.strategy_color(name) for name in STRATEGIES}
    others = {name: make().to_json() for name, make in EXAMPLES.items() if name not in SHOW_THEM}
    assert not {
        name: color for name, text in others.items() for color in of_strategies if color in text
    }
    assert not of_strategies & {*figures.style.PALETTE}


@pytest.mark.parametrize("column", ["x", "a", "b", "c", "item_emb_d128"])
def test_the_oracle_has_a_colour_of_its_own(column):
    colors = [figures.style.strategy_color(name) for name in (*STRATEGIES, f"provided:{column}")]
    assert figures.style.strategy_color("oracle") not in colors


@pytest.mark.parametrize(
    "name", ["co_clicks", "learning_curve", "calibration", "strategies", "auc_against_time"]
)
def test_a_strategy_has_its_colour_in_every_figure(name):
    colors = {
        trace.marker.color or trace.line.color
        for trace in EXAMPLES[name]().data
        if trace.name not in ("perfect", "train")
    }
    assert colors <= {figures.style.strategy_color(strategy) for strategy in (*STRATEGIES, "v9")}


def test_both_axes_of_a_learning_curve_are_named_and_the_best_is_marked():
    figure = EXAMPLES["learning_curve"]()
    layout = figure.layout
    assert layout.xaxis.title.text == layout.xaxis2.title.text == "Epoch"
    assert "nats" in layout.yaxis.title.text
    assert "AUC" in layout.yaxis2.title.text
    traces = {trace.name: trace for trace in figure.data}
    assert list(traces["train"].y) == [0.6, 0.5]
    assert list(traces["valid"].y) == [0.7, 0.6]
    assert (list(traces["best (kept)"].x), list(traces["best (kept)"].y)) == ([1], [0.7])


def test_values_survive():
    bars = EXAMPLES["bars"]().data[0]
    assert (list(bars.x), list(bars.y)) == (["3", "1"], [1.0, 2.0])
    share = EXAMPLES["history_lengths"]().data[0]
    assert list(share.y) == [100, 75, 25, 25]
    ranks = EXAMPLES["popularity"]().data[0]
    assert (list(ranks.x), list(ranks.y)) == ([1, 2, 3], [9, 5, 1])
    heat = EXAMPLES["attention_heads"]().data[0]
    assert np.asarray(heat.z).tolist() == [[0.1, 0.9], [0.7, 0.3]]
    older, latest = np.asarray(heat.text)[0]
    assert older.endswith("<br>item &lt;0007&gt;") and latest == "item x-2"
    error = EXAMPLES["differences"]().data[0].error_x
    assert (error.array[0], error.arrayminus[0]) == pytest.approx((0.05, 0.1))
    strategies = [bar.base + bar.y[0] for bar in EXAMPLES["co_clicks"]().data]
    assert strategies == pytest.approx([60, 55])
    chance = EXAMPLES["co_clicks"]().layout.shapes[0]
    assert (chance.y0, chance.line.dash) == (50, "dot"), "what the caption calls dotted"
    curve = EXAMPLES["explained_variance"]().data[0]
    assert (list(curve.x), list(curve.y)) == ([1, 2], [50, 90])
    calibrated = EXAMPLES["calibration"]().data[1]
    assert (list(calibrated.x), list(calibrated.y)) == ([0.1, 0.4], [0.2, 0.4])
    groups = EXAMPLES["auc_by_group"]().data[0]
    assert (list(groups.customdata), list(groups.y)) == (["0", "1+"], [0.5, 0.7])
    assert list(groups.error_y.array) == pytest.approx([0.1, 0.1])
    newness = EXAMPLES["auc_by_newness"]()
    assert [list(trace.y) for trace in newness.data] == [[0.5, 0.7], [0.5, 0.7]]
    assert [trace.showlegend for trace in newness.data] == [True, False]
    assert newness.layout.xaxis2.ticktext == ("0<br>3 clicks", "1+<br>4 clicks")
    box = EXAMPLES["distributions"]().data[0]
    parts = (box.lowerfence, box.q1, box.median, box.q3, box.upperfence)
    assert [part[0] for part in parts] == pytest.approx([0.4, 2, 4, 6, 7.6])
    head = EXAMPLES["lines_by_head"]().data[1]
    assert (head.name, list(head.x), list(head.y)) == ("head 2", [1, 2], [0.3, 0.7])
    field = EXAMPLES["field_weights"]().data[0]
    assert (list(field.x), list(field.y)) == ([0.5], ["id"])
    run = EXAMPLES["strategies"]()
    assert [trace.y[0] for trace in run.data] == [0.6, 0.7]
    assert run.layout.annotations[0].text == "popularity<br>0.5500"


def test_tiles_are_coloured_against_all_rows_and_lead_to_their_place():
    figure = EXAMPLES["tiles"]()
    heat = figure.data[0]
    # Lines: all rows, a heading, two tags, a heading, a brand.
    nothing = [np.nan, np.nan]
    expected = [[0, 0], nothing, [-1, 1], [0, 0], nothing, [0, 0]]
    np.testing.assert_allclose(np.asarray(heat.z, dtype=float), expected)
    shown = np.asarray(heat.text).tolist()
    assert shown[0] == ["0.700", "0.500"]
    assert shown[2] == ["<b>0.600</b>", "0.400"], "bold where all rows are outside the interval"
    assert shown[3] == ["(0.900)", "(0.900)"], "in brackets where few"
    assert shown[5] == ["–", "(0.100)"]
    assert np.asarray(heat.customdata)[:, 0].tolist() == ["t0", "", "t1", "t2", "", "t3"]
    labels = dict(zip(figure.layout.yaxis.tickvals, figure.layout.yaxis.ticktext, strict=True))
    assert [labels[line] for line in range(5)] == [
        *("all rows", "<b>tag</b>", "&lt;b&gt;", "7", "<b>brand (item)</b>")
    ]
    assert labels[5] == "a name that is longer tha…"
    assert (
        "900 rows, 300 clicks<br>AUC: 0.6000<br>95% interval 0.5800 to 0.6200"
        in (np.asarray(heat.hovertext)[2, 0])
    )


def test_quality_against_cost_joins_what_no_other_beats():
    line, marks = EXAMPLES["quality_against_cost"]().data
    assert (list(line.x), list(line.y)) == ([10, 90], [0.8, 0.9])
    assert list(marks.text) == ["default", "momo", "din"]
    assert list(marks.marker.symbol) == ["circle", "circle", "circle-open"]
    assert marks.marker.size[1] == max(marks.marker.size) > marks.marker.size[0]


def test_a_search_shows_every_trial_by_what_became_of_it():
    figure = EXAMPLES["search_history"]()
    marks = {trace.name: (list(trace.x), list(trace.y)) for trace in figure.data}
    assert marks == {
        "finished": ([1, 4], [0.6, 0.7]),
        "pruned": ([2], [0.5]),
        "best so far": ([1, 2, 3, 4], [0.6, 0.6, 0.6, 0.7]),
    }
    assert "popularity" in figure.layout.annotations[0].text
    curves = {trace.name: list(trace.y) for trace in EXAMPLES["search_curves"]().data}
    assert curves == {"trial 1, the best": [0.6, 0.7], "pruned": [0.5]}
    slices = EXAMPLES["search_slices"]()
    panels = {(trace.name, trace.xaxis): list(trace.x) for trace in slices.data}
    assert panels == {
        ("finished", "x"): [0.01, 0.003],
        ("pruned", "x"): [0.001],
        ("finished", "x2"): ["128, 64", "9, 8"],
        ("pruned", "x2"): ["64"],
    }
    assert (slices.layout.xaxis.type, slices.layout.xaxis2.type) == ("log", "category")
    assert list(slices.layout.xaxis2.categoryarray) == ["9, 8", "64", "128, 64"]


@pytest.mark.parametrize(
    ("values", "ticks"),
    [
        ([7e-4, 8e-3], ["0.0003", "0.001", "0.003", "0.01"]),
        ([2e-5, 5e-3], ["1e-5", "0.0001", "0.001", "0.01"]),
        ([1e-6, 1e-2], ["1e-6", "0.0001", "0.01"]),
        ([27, 2580], ["10", "30", "100", "300", "1,000", "3,000"]),
    ],
)
def test_logarithmic_axes_have_few_ticks_written_out_and_more_than_one(values, ticks):
    axis = figures.style.log_ticks(pd.Series(values))
    low, high = values[0] / 3, values[1] * 2
    shown = zip(axis["ticktext"], axis["tickvals"], strict=True)
    assert [text for text, value in shown if low <= value <= high] == ticks
    written = [float(text.replace(",", "")) for text in axis["ticktext"]]
    assert written == pytest.approx(list(axis["tickvals"]))
    assert figures.style.log_ticks(pd.Series([2.0, 3.0])) == {}, "plotly counts 2, 2.2, 2.4 ..."


def test_words_of_two_references_that_are_close_do_not_hide_each_other():
    table = pd.DataFrame({"strategy": ["v1"], "seed": 1, "auc": 0.7, "low": 0.6, "high": 0.8})
    close = figures.comparison.strategies(
        table, {"oracle": 0.9, "defaults": 0.54, "popularity": 0.53}
    )
    anchors = {note.text[:6]: note.yanchor for note in close.layout.annotations}
    assert anchors == {"popula": "top", "defaul": "bottom", "oracle": "middle"}
    alone = figures.comparison.strategies(table, {"popularity": 0.53})
    assert [note.yanchor for note in alone.layout.annotations] == ["middle"]


def test_the_time_is_split_into_shares_of_the_whole_and_the_longest_stands_out():
    bar = EXAMPLES["time_split"]().data[0]
    assert list(bar.y) == ["data", "forward", "backward"]
    assert list(bar.x) == pytest.approx([12.5, 37.5, 50])
    assert sum(bar.x) == pytest.approx(100)
    assert bar.text[2] == "50% (4.0 s)"
    assert [color == figures.style.MAIN for color in bar.marker.color] == [False, False, True]


def test_quality_stands_beside_cost_with_a_mark_a_seed():
    figure = EXAMPLES["auc_against_time"]()
    marks = {trace.name: (list(trace.x), list(trace.y)) for trace in figure.data}
    assert marks == {"v4": ([30, 34], [0.7, 0.71]), "v1": ([20], [0.6])}
    assert list(figure.data[0].text) == ["seed 1", "seed 2"]
    assert figure.layout.xaxis.rangemode == "tozero"


def test_intervals_are_drawn_on_bars_that_have_them():
    table = pd.DataFrame({"a": ["x"], "b": [2.0], "low": [1.5], "high": [4.0]})
    bar = figures.data.bars(table, "a", "b", x_title="A", y_title="B").data[0]
    assert (bar.error_y.array[0], bar.error_y.arrayminus[0]) == (2.0, 0.5)
    assert EXAMPLES["bars"]().data[0].error_y.array is None


def test_histograms_count_every_row_once():
    values = np.random.default_rng(0).uniform(-1, 1, 400)
    bar = figures.data.histogram(values, "Rank", low=-1, high=1).data[0]
    assert sum(bar.y) == pytest.approx(100)
    for middle, share in zip(bar.x, bar.y, strict=True):
        inside = (values >= middle - 0.05) & (values < middle + 0.05)
        assert share == pytest.approx(inside.mean() * 100)


def test_points_of_a_map_name_their_item_if_it_is_known():
    table = pd.DataFrame({"x": [0.0, 1], "y": [3.0, 4], "tag": ["7", "8"], "title": "a"})
    traces = figures.embeddings.item_maps({"v1": table.assign(item=[30, 40])}).data
    assert [list(trace.customdata) for trace in traces] == [[30], [40]]


def test_points_of_a_map_tell_their_items_own_id():
    table = pd.DataFrame({"x": [0.0], "y": [3.0], "tag": ["Drama"], "title": "<a>", "id": "<7>"})
    trace = figures.embeddings.item_maps({"v1": table}).data[0]
    assert list(trace.text) == ["&lt;a&gt;<br>item &lt;7&gt;"]


def test_names_of_tags_are_shown_as_text():
    """In the legend, on hovering, where %{x} would be a number, and below bars."""
    names = ["<b>Drama", "%{x}"]
    table = pd.DataFrame({"x": [0.0, 1], "y": [3.0, 4], "tag": names, "title": "a"})
    for trace in figures.embeddings.item_maps({"v1": table}).data:
        assert trace.name in ("&lt;b&gt;Drama", "%{x}")
        assert trace.hovertemplate == "%{text}<extra>tag %{fullData.name}</extra>"
    bars = figures.data.bars(table, "tag", "y", x_title="Tag", y_title="Items").data[0]
    assert list(bars.x) == ["&lt;b&gt;Drama", "%{x}"]


def test_a_tag_named_other_is_a_tag():
    table = pd.DataFrame({"x": [0.0, 1], "y": [3.0, 4], "tag": ["other", None], "title": "a"})
    traces = figures.embeddings.item_maps({"v1": table}).data
    assert [trace.name for trace in traces] == ["other", "none of these"]
    assert [trace.marker.color == figures.style.QUIET for trace in traces] == [False, True]


def test_maps_show_every_item_once_a_strategy():
    table = pd.DataFrame({"x": [0.0, 1, 2], "y": [3.0, 4, 5], "tag": ["7", None, "7"]})
    figure = figures.embeddings.item_maps(
        {name: table.assign(title="a") for name in ("v1", "v2", "v3")}
    )
    points = [point for trace in figure.data for point in zip(trace.x, trace.y, strict=True)]
    assert sorted(points) == sorted(3 * list(zip(table["x"], table["y"], strict=True)))
    assert [note.text for note in figure.layout.annotations] == ["v1", "v2", "v3"]
    assert [trace.name for trace in figure.data if trace.showlegend] == ["7", "none of these"]


def test_text_is_escaped_once():
    assert figures.style.as_text(ATTACK) == ('&lt;script&gt;alert(1)&lt;/script&gt; &amp; "quotes"')
    assert figures.style.as_text("&lt;") == "&amp;lt;"


def test_titles_are_shown_as_text():
    maps = {
        "v1": pd.DataFrame({"x": [0.0, 1], "y": [0.0, 1], "tag": ["3", "other"], "title": ATTACK})
    }
    for figure in (figures.embeddings.item_maps(maps), EXAMPLES["attention_heads"]()):
        assert "<script>" not in figure.to_json().replace("\\u003c", "<")
        assert "&lt;script&gt;" in figure.to_json().replace("\\u0026", "&")


def test_ready_made_columns_have_colours_of_their_own(monkeypatch):
    monkeypatch.setattr(figures.style, "STRATEGY_COLORS", dict(figures.style.STRATEGY_COLORS))
    columns = ["provided:a", "provided:b", "provided:c"]
    fixed = ["v1", "v2", "v3", "v4", "ids"]
    before = [figures.style.strategy_color(name) for name in fixed]
    figures.style.assign_colors(["v1", "v4", *columns])
    assert [figures.style.strategy_color(name) for name in fixed] == before
    colors = {figures.style.strategy_color(name) for name in [*fixed, *columns, "oracle"]}
    assert len(colors) == 9


def test_rates_show_one_field_at_a_time():
    figure = EXAMPLES["rates"]()
    brand, observed, predicted = figure.data
    assert [trace.visible for trace in figure.data] == [True, False, False]
    assert (list(brand.x), list(predicted.x)) == ([25, 50], [30, 30])
    assert list(brand.error_x.array) == pytest.approx([35, 10])
    assert list(brand.error_x.arrayminus) == pytest.approx([5, 30])
    assert list(brand.y) == list(observed.y) == ["a", "&lt;b&gt;"]
    assert list(brand.text) == ["1,200 rows", "3 rows"]
    (menu,) = figure.layout.updatemenus
    assert [button.args[0]["visible"] for button in menu.buttons] == [
        [True, False, False],
        [False, True, True],
    ]
    assert "<script>" not in menu.buttons[1].label
    alone = figures.data.rates({"brand (item)": RATES}, "Click rate (%)", 0.3)
    assert not alone.layout.updatemenus


def test_rates_as_bars_tell_their_rows():
    (bar,) = EXAMPLES["rate_bars"]().data
    assert (list(bar.y), list(bar.text)) == ([25, 50], ["1,200 rows", "3 rows"])
    assert bar.error_y.array == pytest.approx([35, 10])


def test_calibration_has_a_plot_for_each_table():
    figure = EXAMPLES["calibration"]()
    assert [note.text for note in figure.layout.annotations] == ["as trained", "corrected"]
    assert figure.layout.yaxis.title.text == "Observed click rate"
    assert [trace.name for trace in figure.data if trace.showlegend] == ["perfect", "model, v1"]


def test_a_backtest_keeps_its_colours_and_windows_apart():
    figure = EXAMPLES["auc_over_time"]()
    lines = {trace.name: trace for trace in figure.data}
    assert list(lines["warm start"].y) == [0.71, 0.79]
    assert list(lines["cold start"].error_y.array) == pytest.approx([0.2, 0.1])
    assert lines["popularity"].line.dash == "dot" and lines["popularity"].error_y.array is None
    shift = lines["warm start"].x - lines["cold start"].x
    assert (shift > np.timedelta64(0)).all() and (shift < np.timedelta64(1, "D")).all()
    panels = EXAMPLES["auc_by_group_over_time"]()
    assert [note.text for note in panels.layout.annotations] == ["new", "cold"]
    assert sum(trace.showlegend for trace in panels.data) == 3
    for name in ("differences_over_time", "seconds_over_time"):
        colors = {trace.name: trace.line.color for trace in EXAMPLES[name]().data}
        assert colors == {n: lines[n].line.color for n in ("cold start", "warm start")}


def test_systems_of_a_strategy_share_its_colour_and_differ_in_their_marks():
    names = ["v4", "v4 heads=2", "v1", "ids preset=paper", "provided:a b"]
    figures.style.assign_colors(["provided:a", "provided:a b"])
    color = figures.style.strategy_color
    assert color("v4 heads=2") == color("v4") != color("v1")
    assert color("ids preset=paper") == color("ids")
    assert color("provided:a b heads=2") == color("provided:a b") != color("provided:a")
    symbols = figures.style.symbols([*names, "v4"])
    assert [symbols[name] for name in names] == ["circle", "diamond", "circle", "circle", "circle"]
    table = pd.DataFrame({"strategy": names[:3], "seed": 1, "auc": 0.7, "seconds": 1.0})
    marks = [trace.marker for trace in figures.comparison.auc_against_time(table).data]
    assert [mark.symbol for mark in marks] == ["circle", "diamond", "circle"]
    assert marks[0].color == marks[1].color
