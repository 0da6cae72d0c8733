"""What valid rows can show, by hand, and from runs by the paired bootstrap."""

import math
from dataclasses import replace

import numpy as np
import pytest

from mmctr.evaluation import compare
from mmctr.evaluation.ledger import Ledger
from tests.evaluation.test_compare import made_run, rows  # noqa: F401 (a fixture)

HAND = Ledger(
    better=("v4", 0.71),
    other=("v1", 0.70),
    users=400,
    seeds=2,
    by_users=0.008,
    by_seeds=0.0121,
    popularity=0.6,
)


def with_popularity(run, auc=0.6):
    return replace(run, summary=run.summary | {"reference_auc": {"popularity": auc}})


def test_by_hand():
    assert HAND.smallest == pytest.approx(0.0145054, abs=1e-6)  # sqrt(0.000064 + 0.00014641)
    # Seeds alone are uncertain by 0.0121, which is more than 0.01: no number of users is enough.
    assert HAND.users_needed is None
    # Of 0.0001 users leave 0.000036 to seeds, which take 2 * 0.00014641 / 0.000036 = 8.1.
    assert HAND.seeds_needed == 9
    assert HAND.words == (
        "Popularity alone ranks these rows with an AUC of 0.6000, v4 with 0.7100. These 400 "
        "users can tell two AUCs apart, at 95%, that differ by about 0.0080 or more (0.0145 if "
        "other seeds are to say the same): the 0.0100 between v4 and v1 is enough with these "
        "seeds; with others it would take 9 seeds."
    )


def test_users_scale_by_the_square():
    # Half of what shows takes four times as many users: 4 * 400, rounded up.
    one = replace(HAND, seeds=1, by_users=0.0201, by_seeds=math.nan)
    assert one.smallest == 0.0201
    assert one.users_needed == 1617  # 400 * 4.0401 = 1616.04
    assert one.seeds_needed is None
    assert one.words.endswith(
        "or more (other seeds not counted): the 0.0100 between v4 and v1 is too little: it would "
        "take about 1,700 users."
    )
    # At the number that is needed the difference is just as large as what shows.
    again = replace(one, by_users=0.0201 * math.sqrt(400 / 1617), users=1617)
    assert again.smallest == pytest.approx(again.difference, rel=1e-3)
    assert again.smallest <= again.difference


def test_both_may_be_too_few_and_none_may_be_needed():
    both = replace(HAND, by_users=0.02, by_seeds=0.02)
    assert (both.users_needed, both.seeds_needed) == (None, None)
    assert both.words.endswith("would take both more users and more seeds.")
    same = replace(HAND, other=("v1", 0.71))
    assert (same.users_needed, same.seeds_needed) == (None, None)
    clear = replace(HAND, other=("v1", 0.6))
    assert clear.words.endswith("say the same): the 0.1100 between v4 and v1 is enough.")
    either = replace(HAND, by_users=0.009, by_seeds=0.009)
    assert either.words.endswith("with others it would take about 1,800 users or 9 seeds.")


def test_of_runs_it_is_half_the_paired_interval_of_the_two_best(rows, tmp_path):  # noqa: F811
    noises = {"v1": 3.0, "v2": 1.01, "v4": 1.0}
    runs = [
        with_popularity(made_run(tmp_path, name, seed, noise, rows))
        for name, noise in noises.items()
        for seed in (1, 2, 3)
    ]
    differences = compare.paired_differences(runs, rows)
    found = Ledger.of(runs, differences)
    aucs = {
        name: [run.summary["metrics"]["auc"] for run in runs if run.strategy == name]
        for name in noises
    }
    ranked = sorted(aucs, key=lambda name: -np.mean(aucs[name]))
    assert (found.better[0], found.other[0]) == tuple(ranked[:2])
    assert found.better[1] == pytest.approx(np.mean(aucs[ranked[0]]))
    line = differences.set_index("strategy").loc[ranked[1]]
    assert found.difference == pytest.approx(-line["difference"])
    assert found.by_users == pytest.approx((line["high"] - line["low"]) / 2)
    errors = [np.var(aucs[name], ddof=1) / 3 for name in ranked[:2]]
    assert found.by_seeds == pytest.approx(1.96 * math.sqrt(sum(errors)), rel=1e-4)
    assert (found.users, found.seeds, found.at_most) == (60, 3, False)


@pytest.mark.parametrize("popularity", [0.3, 0.99])
def test_of_one_run_it_is_an_upper_bound_from_its_interval(rows, tmp_path, popularity):  # noqa: F811
    run = with_popularity(made_run(tmp_path, "v4", 1, 1.0, rows), popularity)
    found = Ledger.of([run])
    auc = run.summary["metrics"]["auc"]
    assert found.by_users == pytest.approx(0.1 * math.sqrt(2)), "its interval is 0.1 to each side"
    assert found.difference == pytest.approx(abs(auc - popularity))
    assert (found.better[0] == "popularity") == (popularity > auc)
    assert math.isnan(found.by_seeds)
    assert f"AUC of {popularity:.4f}, v4 with {auc:.4f}" in found.words
    assert "differ by about 0.1414 or more, maybe by less (other seeds not" in found.words
