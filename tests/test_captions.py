"""Captions are made from what is drawn, and what compares them finds what is not."""

import json

import pytest

from mmctr.report.figures.style import in_words
from tests.captions import problems
from tests.report.test_figures import EXAMPLES


@pytest.mark.parametrize("name", EXAMPLES)
def test_what_a_figure_says_of_itself_is_drawn(name):
    figure = EXAMPLES[name]()
    found = json.loads(figure.to_json())
    wrong = problems(found, in_words(figure))
    # That intervals are there is for the notebook's own words.
    assert set(wrong) <= {"what bars or boxes bound is not told", "hollow marks are not told"}


@pytest.mark.parametrize(
    ("name", "caption", "problem"),
    [
        ("bars", "Dotted: chance.", "nothing is dotted"),
        ("importance", "AUC lost, with intervals.", "a dotted line is not told"),
        ("auc_by_group", "AUC. Dotted: chance.", "what bars or boxes bound is not told"),
        ("co_clicks", "With intervals; dotted: chance. v1 60.3%.", "60.3 is not in the figure"),
        ("strategies", "Intervals. Dotted: the oracle.", "oracle is not drawn"),
        ("differences", "Intervals. Dotted: zero. Hollow: chance.", "nothing is hollow"),
        ("learning_curve", "The diamond is kept.", "nothing is diamond"),
        ("bars", "Orange: worse.", "nothing is orange"),
    ],
)
def test_a_caption_of_what_is_not_drawn_is_found(name, caption, problem):
    assert problem in problems(json.loads(EXAMPLES[name]().to_json()), caption)


@pytest.mark.parametrize(
    ("name", "caption"),
    [
        ("co_clicks", "v1 60.0% (95% interval 50.0 to 70.0). Dotted: chance."),
        ("learning_curve", "Kept at the star: epoch 1.00, AUC 0.7."),
        ("quality_against_cost", "Dotted: the best. Hollow: chance."),
    ],
)
def test_a_true_caption_passes(name, caption):
    assert problems(json.loads(EXAMPLES[name]().to_json()), caption) == []
