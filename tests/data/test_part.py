"""A part of train: whole users, the same for everyone, and nothing else changed."""

import re
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest

from mmctr.data.dataset import Dataset
from mmctr.data.part import part_of_train
from mmctr.errors import ConfigError
from tests.data.folders import histories


def test_a_part_holds_whole_users_in_their_order(tiny):
    whole, part = tiny.train, part_of_train(tiny, 500)
    found, rows = part.train, Counter(whole.user.tolist())
    most = max(rows.values())
    assert 500 - most < len(found) <= 500
    assert Counter(found.user.tolist()) == {user: rows[user] for user in set(found.user.tolist())}
    place = [row for row, user in enumerate(whole.user.tolist()) if user in set(found.user)]
    assert found.target.tolist() == whole.target[place].tolist()
    assert histories(found) == [whole.history(row).tolist() for row in place]
    assert part.valid is tiny.valid
    assert part.fingerprint == tiny.fingerprint


def test_a_smaller_part_lies_in_a_larger_one_and_all_get_the_same(tiny):
    small, large = (set(part_of_train(tiny, rows).train.user) for rows in (200, 500))
    assert small < large
    assert set(part_of_train(Dataset.load(tiny.folder), 200).train.user) == small
    assert part_of_train(tiny, None) is tiny


@pytest.mark.parametrize("rows", [1, 10**6])
def test_a_part_that_is_none_is_refused_in_one_sentence(tiny, rows):
    count = len(tiny.train)
    expected = f"fewer than the {count:,} rows" if rows > 1 else "at least "
    with pytest.raises(ConfigError, match=f"^Parameter 'rows' is {rows}, expected {expected}"):
        part_of_train(tiny, rows)


@pytest.mark.parametrize("common", [0, 1])
def test_a_part_holds_clicks_and_non_clicks_or_says_how_many_rows_do(tiny, common):
    train = tiny.train
    label = np.full_like(train.label, common)
    label[train.user == train.user[len(train) // 2]] = 1 - common
    uneven = replace(tiny, splits=tiny.splits | {"train": replace(train, label=label)})
    with pytest.raises(ConfigError, match=r"^Parameter 'rows' is 1, expected at least ") as refused:
        part_of_train(uneven, 1)
    least = int(re.search(r"at least ([\d,]+)", str(refused.value))[1].replace(",", ""))
    assert set(part_of_train(uneven, least).train.label) == {0, 1}
    with pytest.raises(ConfigError, match=f"'rows' is {least - 1}, expected at least {least:,}:"):
        part_of_train(uneven, least - 1)


def test_one_row_less_than_all_is_a_part(tiny):
    _, counts = np.unique(tiny.train.user, return_counts=True)
    found = part_of_train(tiny, len(tiny.train) - 1).train
    assert len(tiny.train) - len(found) in counts
