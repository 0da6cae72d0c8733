"""Shares of clicks by what is known of a row, counted by loops."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binomtest

from mmctr.data import rates
from mmctr.data.fields import Field
from tests.data.folders import load_with_fields


@given(st.integers(1, 500), st.data())
def test_intervals_are_those_of_wilson(rows, data):
    clicks = data.draw(st.integers(0, rows))
    low, high = rates.wilson(np.array([clicks / rows]), np.array([rows]))
    expected = binomtest(clicks, rows).proportion_ci(0.95, method="wilson")
    assert (low[0], high[0]) == pytest.approx((expected.low, expected.high), abs=1e-6)


@given(st.lists(st.tuples(st.integers(0, 4), st.integers(0, 1), st.floats(0, 1)), min_size=1))
def test_rates_equal_a_loop(drawn):
    codes, label, predicted = (np.array(column) for column in zip(*drawn, strict=True))
    table = rates.rates_by_value(codes, list("abcde"), label, predicted).set_index("value")
    assert set(table.index) == {"abcde"[code] for code in codes}
    for value, line in table.iterrows():
        mine = [row for row in drawn if "abcde"[row[0]] == value]
        assert line["rows"] == len(mine)
        assert line["rate"] == pytest.approx(sum(row[1] for row in mine) / len(mine))
        assert line["predicted"] == pytest.approx(sum(row[2] for row in mine) / len(mine))


def test_each_field_of_each_owner_is_there(tmp_path):
    data = load_with_fields(tmp_path)
    tables = rates.rates_by_field(data, data.train, np.array([0.1, 0.2, 0.3, 0.4]))
    assert list(tables) == ["brand (item)", "country (user)", "device (context)", "pos (context)"]
    # Targets 2, 3, 4 and 1 of brands b, a, unknown and a; labels 0, 1, 0 and 1.
    brand = tables["brand (item)"].set_index("value")
    assert brand["rows"].to_dict() == {"a": 2, "unknown": 1, "b": 1}
    assert brand["rate"].to_dict() == {"a": 1, "unknown": 0, "b": 0}
    assert brand["predicted"].to_dict() == pytest.approx({"a": 0.3, "unknown": 0.3, "b": 0.1})
    assert tables["country (user)"]["rows"].tolist() == [2, 2]
    assert tables["pos (context)"]["value"].tolist() == ["below 2", "from 2"]
    assert rates.position_field(data) == "pos (context)"
    assert list(rates.rates_by_field(data, data.train, least=3)) == ["device (context)"]


def test_drawn_negatives_have_their_clicks_user_context_and_hour(tmp_path):
    data = load_with_fields(tmp_path, negatives="sampled")
    assert list(rates.rates_by_field(data, data.train)) == ["brand (item)"]
    assert rates.rates_by_hour(data, data.train).empty


def test_hours_are_those_of_the_clock(tmp_path):
    data = load_with_fields(tmp_path)
    table = rates.rates_by_hour(data, data.train)
    # 2024-01-01 at 05:30, 05:59, 23:00 and 05:00 UTC.
    assert table["value"].tolist() == ["05", "23"]
    assert table["rows"].tolist() == [3, 1]
    assert rates.rates_by_hour(data, data.train.select(np.array([0, 1]))).empty, "one hour only"


def codes_of(values, size):
    """A field's table for rows that have each value as often as its place from the end."""
    codes = np.repeat(np.arange(1, size + 1), np.arange(size, 0, -1))
    labels = Field("f", "item", values=tuple(values)).labels()
    return rates._in_order(rates.rates_by_value(codes, labels, np.zeros(len(codes))))


def test_the_most_frequent_of_many_values_are_taken():
    table = codes_of([f"v{number}" for number in range(40)], 40)
    assert table["value"].tolist() == [f"v{number}" for number in range(rates.MOST)]


def test_values_that_are_numbers_stand_in_their_order():
    assert codes_of(["10", "9", "00"], 3)["value"].tolist() == ["00", "9", "10"]
    assert codes_of(["10", "x", "00"], 3)["value"].tolist() == ["10", "x", "00"]


@pytest.mark.parametrize("name", ["position", "item_pos", "Rank", "shownPosition", "slot rank"])
def test_a_position_is_known_by_its_name(tmp_path, name):
    data = load_with_fields(tmp_path, position=name)
    assert rates.position_field(data) == f"{name} (context)"


@pytest.mark.parametrize("name", ["posture", "pranks", "composition"])
def test_other_names_are_no_positions(tmp_path, name):
    assert rates.position_field(load_with_fields(tmp_path, position=name)) is None
