"""Every page says where negatives come from, and calls rates what they are."""

from typing import get_args

import pytest

from mmctr.data.schema import NegativesFrom
from mmctr.data.wording import stated, wording_of
from tests.data.folders import load_changed


@pytest.mark.parametrize("source", get_args(NegativesFrom))
def test_what_was_not_shown_is_neither_impression_nor_click_rate(source):
    words = wording_of(source, 3)
    said = " ".join(vars(words).values())
    assert ("impression" in said) == ("click rate" in said) == (source == "shown")
    assert "shown" not in said
    assert words.axis == words.axis.capitalize()
    assert bool(words.caveat) == (source in ("sampled", "unknown"))
    assert ("not known" in words.negatives) == (source == "unknown")


@pytest.mark.parametrize(
    ("per_click", "expected"),
    [
        (3, "3 negatives were drawn for each click"),
        (1, "1 negative was drawn for each click"),
        (None, "negatives were drawn for each click"),
    ],
)
def test_drawn_negatives_are_counted(per_click, expected):
    words = wording_of("sampled", per_click)
    assert words.rate_in_full == f"share of clicks ({expected})"
    assert words.caveat == f"Calibration and logloss are about an artificial rate: {expected}."
    assert f"({expected})" in words.negatives


def test_an_outcome_is_a_like():
    words = wording_of("outcome")
    assert (words.axis, words.clicked) == ("Share liked (%)", "liked")


def test_an_older_statement_does_not_know_unless_it_is_simulated():
    assert stated({"simulated": False}) == wording_of("unknown")
    assert stated({"simulated": True}) == wording_of("shown")
    assert stated({"negatives": "sampled", "negatives_per_click": 2}) == wording_of("sampled", 2)


@pytest.mark.parametrize(("clicks", "per_click"), [(1, 3), (2, 1)])
def test_a_dataset_counts_what_was_drawn(tmp_path, clicks, per_click):
    data = load_changed(tmp_path, {"train": {"label": [1] * clicks + [0] * (4 - clicks)}})
    assert data.wording == wording_of("unknown")
    assert data.negatives_per_click is None
    (tmp_path / "dataset.json").write_text('{"negatives": "sampled"}')
    again = load_changed(tmp_path, {"train": {"label": [1] * clicks + [0] * (4 - clicks)}})
    assert again.wording == wording_of("sampled", per_click)
    assert "share of clicks" in again.summary()
