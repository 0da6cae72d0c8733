"""Which clicks are for which split."""

import pandas as pd
import pytest

from mmctr.errors import ConfigError
from tests.data.importing.logs import imported


def test_last_two_are_the_last_two_and_date_splits_by_date(tmp_path):
    log = [("a", number, 10 + number) for number in range(6)]
    out, _ = imported(tmp_path, log)
    valid, test = (
        pd.read_parquet(out / "MicroLens_1M_x1" / f"{name}.parquet") for name in ("valid", "test")
    )
    assert valid["item_id"][0] == 5
    assert test["item_id"][0] == 6
    assert test["item_seq"][0].tolist() == [1, 2, 3, 4, 5]
    (tmp_path / "second").mkdir()
    log += [("b", number, 20 + number) for number in range(6)]
    out, facts = imported(tmp_path / "second", log, split="date", valid_from=15, test_from=22)
    counts = facts["counts"]
    assert (counts["train"], counts["valid"], counts["test"]) == (5, 3, 4)


def test_a_log_without_three_clicks_of_anyone_is_refused(tmp_path):
    """It would leave valid and test without rows, and a dataset that cannot be loaded."""
    with pytest.raises(ConfigError, match="No user has three clicks"):
        imported(tmp_path, [("a", 1, 1), ("a", 2, 2), ("b", 3, 3)])
    assert not (tmp_path / "out").exists()


def test_whatever_comes_from_the_border_of_test_on_is_test(tmp_path):
    log = [("a", number, 10 + number) for number in range(6)] + [("b", 1, 19), ("b", 2, 25)]
    _, facts = imported(tmp_path, log, split="date", valid_from=12, test_from=14, negatives=1)
    counts = facts["counts"]
    assert (counts["train"], counts["valid"], counts["test"]) == (2, 2, 4)
    (tmp_path / "late").mkdir()
    with pytest.raises(ConfigError, match="No click falls into valid"):
        imported(tmp_path / "late", log, split="date", valid_from=20, test_from=14)


def test_a_border_of_zero_is_a_time(tmp_path):
    log = [("a", number, number - 5) for number in range(10)]
    _, facts = imported(tmp_path, log, split="date", valid_from=0, test_from=2, negatives=1)
    counts = facts["counts"]
    assert (counts["train"], counts["valid"], counts["test"]) == (5, 2, 3)


@pytest.mark.parametrize(
    "border", ["2015-01-01T00:00:00+05:00", "2014-12-31 19:00:00Z", "2014-12-31T19:00"]
)
@pytest.mark.filterwarnings("error")
def test_a_border_may_have_a_zone(tmp_path, border):
    times = ["2014-12-31 18:59:59", "2014-12-31 19:00:00", "2014-12-31 23:00:00"]
    log = pd.DataFrame({"user_id": "u", "item_id": ["i1", "i2", "i3"], "timestamp": times})
    options = {"split": "date", "valid_from": border, "test_from": "2014-12-31T23"}
    counts = imported(tmp_path, log, negatives=0, **options)[1]["counts"]
    assert (counts["train"], counts["valid"], counts["test"]) == (1, 1, 1)
