"""Comparisons of hand-made runs against naive computations."""

from functools import partial
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import roc_auc_score

from mmctr import compare
from mmctr.training import metrics
from mmctr.training.checkpoint import Run


def made_run(folder, strategy, seed, noise, rows):
    """A run whose scores are the labels plus noise; its folder holds its predictions only."""
    rng = np.random.default_rng(seed + len(strategy) + ord(strategy[-1]))
    probability = 1 / (1 + np.exp(-(rows.label + rng.normal(0, noise, len(rows.label)))))
    auc = roc_auc_score(rows.label, probability)
    folder = folder / f"{strategy.replace(':', '-')}-{seed}"
    folder.mkdir()
    pd.DataFrame({"probability": probability}).to_parquet(folder / "predictions.parquet")
    sizes = {"content_width": 128, "n_items": 1000}
    return Run(
        folder=folder,
        config={"strategy": strategy, "training": {"seed": seed}, "sizes": sizes},
        summary={
            "metrics": {"auc": auc, "auc_interval": [auc - 0.1, auc + 0.1], "logloss": 0.5}
            | {"gauc": 0.6},
            "seconds": {"training": 2.0 + seed, "fusion": 1.0},
            "parameters": 10,
        },
    )


@pytest.fixture(scope="module")
def rows():
    """Labels of 60 users with ten rows each."""
    label = np.random.default_rng(0).integers(0, 2, 600).astype(np.float32)
    return SimpleNamespace(user=np.repeat(np.arange(60), 10), label=label)


@pytest.fixture(scope="module")
def runs(rows, tmp_path_factory):
    """v4 clearly better than v1, and v2 as good as v4; two seeds each."""
    noises, folder = {"v1": 3.0, "v2": 1.01, "v4": 1.0}, tmp_path_factory.mktemp("runs")
    return [
        made_run(folder, name, seed, noise, rows)
        for name, noise in noises.items()
        for seed in (1, 2)
    ]


def test_tables(runs, rows):
    lines = compare.run_table(runs)
    assert lines[["strategy", "seed"]].to_numpy().tolist()[:2] == [["v1", 1], ["v1", 2]]
    for run, line in zip(runs, lines.itertuples(), strict=True):
        expected = roc_auc_score(rows.label, run.predictions["probability"])
        assert (line.auc, line.high - line.auc) == pytest.approx((expected, 0.1))
        assert line.seconds == run.seed + 3  # two and the seed of training, one of fusion
    means = compare.strategy_table(runs).set_index("strategy")
    assert means.index[-1] == "v1"
    for name, part in lines.groupby("strategy"):
        assert means.loc[name, "AUC"] == pytest.approx(part["auc"].mean())
        assert means.loc[name, "seeds"] == 2
    assert means["AUC"].is_monotonic_decreasing
    assert means.loc["v4", ["logloss", "GAUC", "parameters"]].tolist() == [0.5, 0.6, 10]
    assert means.loc["v4", "training (s)"] == pytest.approx(3.5)
    assert means.loc["v4", "embedding (MB)"] == pytest.approx(128 * 4 * 1000 / 1e6)


def draws(users):
    """How often each user is drawn, in each of forty draws."""
    rng = np.random.default_rng(0)
    for _ in range(40):
        yield np.bincount(rng.integers(users, size=users), minlength=users)


def resampled_aucs(rows, scores, copies):
    """AUC of each system where users count as often as they were drawn."""
    weight = copies[rows.user]
    return [roc_auc_score(rows.label, score, sample_weight=weight) for score in scores]


def test_paired_differences_equal_the_naive_computation(runs, rows, monkeypatch):
    few = partial(metrics.bootstrap_auc, resamples=40)  # the naive computation is slow
    monkeypatch.setattr(compare, "bootstrap_auc", few)
    table = compare.paired_differences(runs, rows).set_index("strategy")
    best = compare.strategy_table(runs)["strategy"][0]
    assert best not in table.index
    for name in table.index:
        scores = [run.predictions["probability"] for run in runs if run.strategy in (name, best)]
        names = np.array([run.strategy for run in runs if run.strategy in (name, best)])
        aucs = [roc_auc_score(rows.label, score) for score in scores]
        mine = np.mean([a for a, n in zip(aucs, names, strict=True) if n == name])
        other = np.mean([a for a, n in zip(aucs, names, strict=True) if n == best])
        assert table.loc[name, "difference"] == pytest.approx(mine - other)
        samples = np.array([resampled_aucs(rows, scores, draw) for draw in draws(60)])
        samples = samples[:, names == name].mean(axis=1) - samples[:, names == best].mean(axis=1)
        low, high = np.quantile(samples, [0.025, 0.975])
        assert (table.loc[name, "low"], table.loc[name, "high"]) == pytest.approx((low, high))


@pytest.mark.parametrize("simulated", [True, False])
def test_verdict_says_what_is_best_and_what_could_be_chance(runs, rows, simulated):
    dataset = SimpleNamespace(name="clicks", simulated=simulated)
    means, differences = compare.strategy_table(runs), compare.paired_differences(runs, rows)
    words = compare.verdict(means, differences, dataset)
    best = means["strategy"][0]
    assert f"{best} has the highest valid AUC, {means['AUC'][0]:.4f}" in words
    sentences = {part.split()[0]: part for part in words.split(". ")[1:]}
    assert "more than chance" in sentences["v1"]
    assert "could be chance" in sentences["v2" if best == "v4" else "v4"]
    assert ("says nothing about real clicks" in words) == simulated


def test_seeds_of_different_number_are_averaged_first(runs):
    means = compare.strategy_table([*runs[:3], runs[5]]).set_index("strategy")
    assert means["seeds"].to_dict() == {"v1": 2, "v2": 1, "v4": 1}
    assert means.loc["v2", "AUC"] == runs[2].summary["metrics"]["auc"]


def test_cost_is_averaged_over_the_seeds_that_measured_it(rows, tmp_path):
    runs = [
        made_run(tmp_path, name, seed, 1.0, rows)
        for name, seeds in {"v1": (1, 2, 3), "v2": (1,)}.items()
        for seed in seeds
    ]
    for run, (speed, memory) in zip(runs, [(100.0, 30.0), (300.0, 50.0)], strict=False):
        run.summary["cost"] = {"samples_per_s": speed, "peak_memory_mb": memory}
    found = compare.strategy_table(runs).set_index("strategy")[["samples/s", "peak memory (MB)"]]
    assert found.loc["v1"].tolist() == [200, 40]
    assert found.loc["v2"].isna().all()


def test_runs_without_cost_are_shown_with_a_dash(rows, tmp_path):
    older, newer = (made_run(tmp_path, name, 1, 1.0, rows) for name in ("v1", "v2"))
    newer.summary["cost"] = {"samples_per_s": 21400.2, "peak_memory_mb": 1240.0}
    page = compare.styled(compare.strategy_table([older, newer])).to_html()
    assert page.count(">–<") == 2  # the older one's speed and memory
    assert ">21,400<" in page
    assert ">1,240<" in page
    assert "nan" not in page
    assert compare.styled(compare.strategy_table([older])).to_html().count(">–<") == 2


@pytest.mark.parametrize(
    ("low", "high", "words"),
    [
        (-0.03, -0.01, "v1 is 0.0200 lower (95% interval 0.0100 to 0.0300), more than chance."),
        (-0.05, 0.01, "v1 is 0.0200 lower (95% interval -0.0100 to 0.0500), which could be chance"),
        (-0.04, 0.0, "v1 is 0.0200 lower (95% interval 0.0000 to 0.0400), which could be chance."),
    ],
)
def test_verdict_in_words(low, high, words):
    means = pd.DataFrame({"strategy": ["v4", "v1"], "AUC": [0.7, 0.68], "seeds": [1, 1]})
    line = {"strategy": ["v1"], "difference": [-0.02], "low": [low], "high": [high]}
    dataset = SimpleNamespace(name="clicks", simulated=False)
    found = compare.verdict(means, pd.DataFrame(line), dataset)
    assert found.startswith("On clicks (real) v4 has the highest valid AUC, 0.7000 as a mean over")
    assert "over 1 seed." in found
    assert words in found


def test_equal_strategies_differ_by_nothing(rows, tmp_path):
    runs = [made_run(tmp_path, name, 1, 1.0, rows) for name in ("provided:a", "provided:b")]
    for run in runs:
        run.__dict__["predictions"] = runs[0].predictions
        run.summary["metrics"]["auc"] = 0.7
    table = compare.paired_differences(runs, rows)
    assert table[["difference", "low", "high"]].to_numpy().tolist() == [[0, 0, 0]]
    dataset = SimpleNamespace(name="clicks", simulated=False)
    words = compare.verdict(compare.strategy_table(runs), table, dataset)
    assert "is 0.0000 lower (95% interval 0.0000 to 0.0000), which could be chance" in words


def test_one_strategy_alone_is_compared_with_nothing(runs, rows):
    alone = [run for run in runs if run.strategy == "v4"]
    assert compare.paired_differences(alone, rows).empty
    assert "v4 has the highest" in compare.verdict(
        compare.strategy_table(alone),
        compare.paired_differences(alone, rows),
        SimpleNamespace(name="clicks", simulated=False),
    )


def test_probabilities_are_averaged_over_seeds(runs):
    means = compare.mean_probabilities(runs)
    assert list(means) == ["v1", "v2", "v4"]
    both = [run.predictions["probability"] for run in runs if run.strategy == "v2"]
    np.testing.assert_allclose(means["v2"], (both[0] + both[1]) / 2)
