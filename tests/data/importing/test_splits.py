"""Which clicks are for which split."""

import re
import tempfile
from pathlib import Path

import pandas as pd
import pytest
from hypothesis import event, given, settings
from hypothesis import strategies as st

from mmctr.data.dataset import Dataset
from mmctr.errors import ConfigError, MMCTRError
from tests.data.importing.logs import imported, splits_of


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


new_logs = st.lists(
    st.tuples(st.sampled_from("abcdefghij"), st.integers(0, 11), st.integers(1, 9), st.booleans()),
    min_size=25,
    max_size=60,
)


@settings(max_examples=25)
@given(new_logs, st.booleans(), st.sampled_from(["random", "first-click"]), st.integers(0, 3))
def test_new_items_are_never_seen_before_their_split(log, labelled, new_by, seed):
    frame = pd.DataFrame(log, columns=["user_id", "item_id", "timestamp", "clicked"])
    frame = frame.assign(item_id="i" + frame["item_id"].astype(str), clicked=frame["clicked"] * 1)
    options = {"split": "new-items", "new_share": 0.3, "new_by": new_by, "seed": seed}
    options |= {"label_column": "clicked"} if labelled else {"negatives": 1}
    with tempfile.TemporaryDirectory() as name:
        try:
            out, facts = imported(Path(name), frame, **options)
        except MMCTRError as error:
            expected = "clicked every|nothing but clicks|has no click|No user has three|'new_share'"
            assert re.search(expected, str(error))
            event("refused")
            return
        frames, held_out = splits_of(out), Dataset.load(out).catalog.held_out[1:]
    clicks = [(f"i{item}", time) for _, item, time, label in log if label or not labelled]
    first = {}
    for item, time in clicks:
        first[int(item[1:])] = min(time, first.get(int(item[1:]), 99))
    shares = [{item for item in range(12) if held_out[item] == share} for share in range(3)]
    assert len(shares[1]) == len(shares[2]) == round(0.3 * len(first))
    assert shares[1] | shares[2] <= set(first), "of clicked items"
    if new_by == "first-click":
        times = [[first[item] for item in share if item in first] for share in shares]
        assert max(times[0]) <= min(times[1]) and max(times[1]) <= min(times[2])
    rows = pd.concat([table.assign(split=place) for place, table in enumerate(frames.values())])
    rows["item"], new = rows["item_id"] - 1, shares[1] | shares[2]
    assert not new & {item - 1 for history in rows["item_seq"] for item in history}
    for row in rows.itertuples():
        assert row.split == held_out[row.item] or not held_out[row.item]
    if not labelled:
        pairs = rows.assign(share=held_out[rows["item"]])["share"].to_numpy().reshape(-1, 2)
        assert (pairs[:, 0] == pairs[:, 1]).all(), "against items of their own share"
        chosen = {(row.user_id, row.item) for row in rows.itertuples() if row.label}
        assert not any(
            (row.user_id, row.item) in chosen for row in rows.itertuples() if not row.label
        )
    # What is not new is split as if nothing else had happened, which is told by a naive loop.
    warm = rows[(held_out[rows["item"]] == 0)]
    for _, mine in warm.groupby("user_id"):
        asked = mine[mine["label"] == 1].sort_values(["time", "item"])
        if labelled:
            steps = sorted(set(asked["time"]))
            late = [sum(time < row.time for time in steps) for row in mine.itertuples()]
            wanted = [max(0, min(2, before - len(steps) + 3)) for before in late]
            wanted = wanted if len(steps) > 2 else [0] * len(mine)
            assert mine["split"].tolist() == wanted
        else:
            some = len(asked) - 2 if len(asked) > 2 else len(asked)
            assert asked["split"].tolist() == [0] * some + [1, 2][: len(asked) - some]
    assert sum(facts["counts"][split] for split in frames) * (1 if labelled else 2) == len(rows)


@pytest.mark.parametrize(("share", "count"), [(0.01, 0), (0.49, 3)])
def test_a_share_that_leaves_nothing_is_one_sentence(tmp_path, share, count):
    log = [(user, item, item) for user in "ab" for item in range(6)]
    message = f"'new_share' is {share:g}, which is {count} of 6 clicked items"
    with pytest.raises(ConfigError, match=message):
        imported(tmp_path, log, split="new-items", new_share=share)
    with pytest.raises(ConfigError, match=r"'new_share' is 0\.5"):
        imported(tmp_path, log, split="new-items", new_share=0.5)


def test_who_clicked_every_new_item_is_told_what_helps(tmp_path):
    log = [("a", item, item) for item in range(10)] + [("b", item, item) for item in range(4)]
    with pytest.raises(ConfigError, match=r"User a clicked every new item .* a larger --new-share"):
        imported(tmp_path, log, split="new-items", new_share=0.1)


def test_new_items_by_first_click_by_hand(tmp_path):
    log = [("a", n, n + 1) for n in range(10)] + [("b", 9, 30), ("b", 0, 40), ("c", 8, 5)]
    options = {"new_by": "first-click", "new_share": 0.2, "negatives": 0}
    out, _ = imported(tmp_path, log, split="new-items", **options)
    held_out = Dataset.load(out).catalog.held_out
    # i8 was first clicked by c at 5, so i5 to i7 and i9 are the latest; i9 and i7 are of test.
    assert held_out[1:].tolist() == [0, 0, 0, 0, 0, 1, 1, 2, 0, 2, 0, 0]
    found = {
        name: [(row.user_id, row.item_id - 1, [*(row.item_seq - 1)]) for row in table.itertuples()]
        for name, table in splits_of(out).items()
    }
    before = [0, 1, 2, 3, 4]
    assert found["train"] == [(1, n, before[:n]) for n in range(4)] + [(2, 0, []), (3, 8, [])]
    assert found["valid"] == [(1, 4, before[:4]), (1, 5, before), (1, 6, before)]
    assert found["test"] == [(1, 7, before), (1, 8, before), (1, 9, [*before, 8]), (2, 9, [])]


def test_a_split_by_date_needs_clicks_in_each(tmp_path):
    rows = [("a", n, n, n != 5) for n in range(8)]
    log = pd.DataFrame(rows, columns=["user_id", "item_id", "timestamp", "clicked"])
    log = log.assign(item_id="i" + log["item_id"].astype(str), clicked=log["clicked"] * 1)
    with pytest.raises(ConfigError, match="No click falls into valid"):
        options = {"split": "date", "valid_from": 5, "test_from": 6}
        imported(tmp_path, log, label_column="clicked", **options)
