"""The simulation behind the demo: who is shown what, and clicks by the true probabilities."""

import itertools

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import roc_auc_score

from mmctr.data.demo_errors import planted


def groups(data, name):
    """The impression groups of a split, in the file's order: row numbers [groups, 4]."""
    return np.arange(len(data.split(name))).reshape(-1, 4)


@pytest.fixture(scope="module")
def shown(tiny):
    """All evaluation rows of the demo: label, true probability and popularity of the target."""
    parts = [tiny.valid, tiny.split("test")]
    return pd.DataFrame(
        {
            "label": np.concatenate([rows.label for rows in parts]),
            "probability": np.concatenate([rows.probability for rows in parts]),
            "popularity": tiny.train_clicks()[np.concatenate([rows.target for rows in parts])],
        }
    )


def test_rows_of_a_group_share_user_and_history(tiny):
    for name, rows in tiny.splits.items():
        by_group = groups(tiny, name)
        for column in (rows.user, rows.history_start, rows.history_end):
            assert (column[by_group] == column[by_group[:, :1]]).all()
        assert rows.history_length.max() <= 100


def test_a_later_history_extends_the_earlier_by_the_clicked_items(tiny):
    timeline = []
    for order, (name, rows) in enumerate(tiny.splits.items()):
        for group in groups(tiny, name):
            history = rows.history(group[0]).tolist()
            clicked = [int(rows.target[row]) for row in group if rows.label[row] == 1]
            # Of groups with one history, all but the last saw no click.
            key = (rows.user[group[0]], order, len(history), bool(clicked))
            timeline.append((key, history, clicked))
    timeline.sort(key=lambda entry: entry[0])
    followed = 0
    for (key, history, clicked), (later_key, later, _) in itertools.pairwise(timeline):
        if key[0] == later_key[0]:
            assert later == (history + clicked)[-100:]
            followed += 1
    # 3.125 groups a user on average: as many transitions, less one for each user.
    # One script has 16 more.
    assert followed == 240 * 25 // 8 - 240 + 16 - 1


def test_nobody_is_shown_an_item_twice(tiny):
    """Not within the groups of a user, and not from the history before them."""
    for name, rows in tiny.splits.items():
        for row, target in enumerate(rows.target):
            assert target not in rows.history(row), (name, row)
    users = np.concatenate([rows.user for rows in tiny.splits.values()])
    targets = np.concatenate([rows.target for rows in tiny.splits.values()])
    assert len(pd.MultiIndex.from_arrays([users, targets]).unique()) == len(users)


def test_click_rate_of_people_is_about_a_quarter(tiny):
    truth = planted(tiny.folder)
    scripts = truth.loc[truth["what"] == "user", "id"].astype(int)
    of_people = tiny.train.label[~np.isin(tiny.train.user, scripts)]
    assert of_people.mean() == pytest.approx(0.25, abs=0.03)


def test_time_runs_from_split_to_split_and_from_history_to_history(tiny):
    truth = planted(tiny.folder)
    late = truth.loc[truth["kind"] == "too-early", "id"].astype(int)
    train = tiny.train.select(np.flatnonzero(~np.isin(tiny.train.user, late)))
    parts = [train, tiny.valid, tiny.split("test")]
    for earlier, later in itertools.pairwise(parts):
        assert earlier.time.max() < later.time.min()
    for rows in parts:
        assert (rows.time.reshape(-1, 4) == rows.time[::4, None]).all(), "a group is shown at once"
        by_user = pd.DataFrame(
            {"user": rows.user, "time": rows.time, "length": rows.history_length}
        ).sort_values(["user", "time"], kind="stable")
        assert (by_user.groupby("user")["length"].diff().dropna() >= 0).all()


def test_labels_are_drawn_with_the_true_probabilities(tiny):
    """In all rows, and in fifths by probability, clicks stay within four standard deviations."""
    label = np.concatenate([rows.label for rows in tiny.splits.values()])
    probability = np.concatenate([rows.probability for rows in tiny.splits.values()])
    assert ((probability > 0) & (probability < 1)).all()
    for part in [np.arange(len(label)), *np.array_split(probability.argsort(), 5)]:
        deviation = (label[part] - probability[part]).sum()
        assert abs(deviation) < 4 * np.sqrt((probability * (1 - probability))[part].sum())


def test_oracle_beats_popularity(shown):
    oracle = roc_auc_score(shown["label"], shown["probability"])
    popularity = roc_auc_score(shown["label"], shown["popularity"])
    assert oracle > popularity + 0.05
    assert oracle > 0.75
