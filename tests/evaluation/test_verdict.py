"""The answer of a comparison: what is claimed, and how surely."""

from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from mmctr.evaluation import compare
from mmctr.evaluation.verdict import Verdict, cost_in_words, in_words, verdict
from tests.evaluation.made import made_run

REAL = {"name": "clicks", "simulated": False}


@pytest.fixture(scope="module")
def rows():
    """Labels of 60 users with ten rows each."""
    label = np.random.default_rng(0).integers(0, 2, 600).astype(np.float32)
    return SimpleNamespace(user=np.repeat(np.arange(60), 10), label=label)


@pytest.fixture
def made(rows, tmp_path):
    """A function that makes runs by strategy: how noisy each is, with seeds 1 and 2."""

    def make(noises, **data):
        found = [
            made_run(tmp_path, name, seed, noise, rows)
            for name, noise in noises.items()
            for seed in (1, 2)
        ]
        for run in found:
            run.summary["dataset"] |= REAL | {"negatives": "shown"} | data
            run.summary["reference_auc"] = {"popularity": 0.55}
            run.summary["cost"] = {"samples_per_s": 1000.0 * run.seed}
            run.__dict__["history"] = pd.DataFrame({"epoch": [0.5, 2.0]})
        return found

    return make


def test_a_clear_lead_is_claimed_with_its_interval(made, rows):
    runs = made({"v1": 3.0, "v4": 1.0})
    found = verdict(runs)
    line = compare.paired_differences(runs, rows).iloc[0]
    assert found.clear
    assert found.headline.startswith("v4 ranks clicks best: valid AUC 0.")
    assert dict(found.facts)["lead"] == (
        f"{-line.difference:+.4f} AUC over v1 (95% interval {-line.high:+.4f} to "
        f"{-line.low:+.4f}): more than chance"
    )
    assert dict(found.facts)["data"] == (
        "clicks (real): 600 valid impressions of 60 users, seeds 1 and 2"
    )
    assert dict(found.facts)["negatives"] == "impressions that were not clicked"
    assert "better by more than chance than v1" in found.details
    assert dict(found.facts)["strategy"].startswith("v4, separate: half the width")
    assert dict(found.facts)["beside it"] == "AUC of guessing 0.5 and popularity 0.5500"


def test_a_lead_that_could_be_chance_is_no_victory(made):
    found = verdict(made({"v2": 1.01, "v4": 1.0}), "And more.")
    assert not found.clear
    assert "that could be chance" in found.headline
    assert "best" not in found.headline
    assert dict(found.facts)["lead"].endswith("could be chance")
    assert found.details.endswith("And more.")


def test_one_system_alone_leads_nobody(made):
    found = verdict(made({"v4": 1.0}, simulated=True))
    assert found.headline.startswith("v4 reaches a valid AUC of 0.")
    assert "lead" not in dict(found.facts)
    assert not found.clear
    assert "simulated, so this says nothing about real clicks" in dict(found.facts)["data"]


def test_cost_is_epochs_seconds_an_epoch_and_their_spread(made):
    runs = made({"v4": 1.0})  # 3 and 4 s of training, two epochs each
    assert cost_in_words(runs) == "2 epochs of 1.75 s (1.5 to 2), 1,500 rows a second"
    assert cost_in_words(runs[:1]) == "2 epochs of 1.5 s, 1,000 rows a second"
    del runs[0].summary["cost"]
    assert cost_in_words(runs[:1]) == "2 epochs of 1.5 s"
    runs[0].__dict__["history"] = pd.DataFrame({"epoch": [1.0]})
    assert cost_in_words(runs[:1]) == "1 epoch of 3 s"


def test_a_terminal_has_a_line_a_fact():
    found = Verdict("v4 leads", True, [("lead", "+0.1"), ("negatives", "shown")], "all")
    assert str(found).splitlines() == ["v4 leads", "  lead       +0.1", "  negatives  shown"]


def means_of(auc, seconds=(3.0, 2.0), seeds=(2, 2)):
    """A table as of strategy_table, with what a verdict reads."""
    spread = [0.004 if number > 1 else np.nan for number in seeds]
    table = {"strategy": ["v4", "v1"], "AUC": auc, "seeds": seeds, "seed spread": spread}
    return pd.DataFrame(table | {"training (s)": seconds, "fusion (s)": 1.0})


@pytest.mark.parametrize(
    ("low", "high", "p", "words"),
    [
        (
            -0.03,
            -0.01,
            0.01,
            "It is better by more than chance than v1 (by 0.0200, 95% interval 0.0100 to 0.0300, "
            "corrected p = 0.010).",
        ),
        # An interval without zero, yet too many strategies: the corrected p-value decides.
        (-0.04, -0.001, 0.08, "Its lead could be chance over v1 (by 0.0200, 95% interval 0.0010"),
        (-0.05, 0.01, 0.3, "95% interval -0.0100 to 0.0500, corrected p = 0.300): it is not shown"),
    ],
)
def test_verdict_in_words(low, high, p, words):
    line = {"strategy": ["v1"], "difference": [-0.02], "low": [low], "high": [high], "p_holm": [p]}
    references = {"popularity": 0.6, "oracle": 0.8}
    found = in_words(means_of([0.7, 0.68]), pd.DataFrame(line), REAL, references)
    assert found.startswith("On clicks (real) v4 has the highest valid AUC, 0.7000, the mean of 2 ")
    assert "beside it: popularity 0.6000 and oracle 0.8000." in found
    assert words in found
    assert "Seeds of one strategy differ by up to 0.0040." in found
    assert found.endswith("v4 takes 4 s of fusion and training, one of v1, the quickest, 3 s.")


def test_verdict_of_single_seeds_says_what_is_not_known():
    line = {"strategy": ["v1"], "difference": [-0.02], "low": [-0.1], "high": [0.0], "p_holm": [1]}
    means = means_of([0.7, 0.68], seconds=(2.0, 3.0), seeds=(1, 1))
    found = in_words(means, pd.DataFrame(line), REAL)
    assert "0.7000, with one seed." in found
    assert "How much another seed would change is not known." in found
    assert found.endswith("A run of v4 takes 3 s of fusion and training.")


def test_a_first_look_is_said_and_never_merged_with_whole_runs(made):
    runs = made({"v4": 1.0})
    assert "trained on" not in dict(verdict(runs).facts)
    runs[0].summary["learned_from"] = {"rows": 50, "of": 100}
    runs[0].config["training"]["rows"] = 50
    assert dict(verdict(runs).facts)["trained on"] == "50 of 100 train rows: a first look"
    assert compare.names_of(runs) == ["v4 rows=50", "v4"]
