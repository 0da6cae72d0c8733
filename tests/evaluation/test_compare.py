"""Comparisons of hand-made runs against naive computations."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import roc_auc_score

from mmctr.evaluation import compare
from mmctr.evaluation.verdict import in_words
from mmctr.runs.run import Run
from tests.evaluation.made import made_run


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
    monkeypatch.setattr(compare, "RESAMPLES", 40)  # the naive computation is slow
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
        rarer = min(sum(samples <= 0), sum(samples >= 0))
        assert table.loc[name, "p"] == pytest.approx(min(1, 2 * (rarer + 1) / 41))


@pytest.mark.parametrize(
    ("draws", "expected"),
    [
        ([-1] * 99, 2 / 100),  # all on one side: the draw that was made counts too
        ([-1] * 95 + [1] * 4, 2 * 5 / 100),
        ([1] * 95 + [0] * 4, 2 * 5 / 100),
        ([0] * 99, 1),
        ([-1] * 9 + [np.nan] * 90, 2 / 10),
    ],
)
def test_p_value_by_hand(draws, expected):
    assert compare.p_value(np.array(draws, dtype=float)) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("p", "corrected"),
    [
        # Sorted 0.01, 0.02, 0.03, 0.5: times 4, 3, 2, 1, and never less than the one before.
        ([0.03, 0.01, 0.5, 0.02], [0.06, 0.04, 0.5, 0.06]),
        ([0.4, 0.5], [0.8, 0.8]),
        ([0.9, 0.7, 0.8], [1, 1, 1]),
        ([0.02], [0.02]),
        ([], []),
    ],
)
def test_holm_by_hand(p, corrected):
    assert compare.holm(np.array(p)).tolist() == pytest.approx(corrected)


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
    page = compare.styled(compare.strategy_table([older, newer])[compare.COST]).to_html()
    assert page.count(">–<") == 2  # the older one's speed and memory
    assert ">21,400<" in page
    assert ">1,240<" in page
    assert "nan" not in page
    alone = compare.strategy_table([older])
    assert compare.styled(alone[compare.COST]).to_html().count(">–<") == 2
    assert compare.styled(alone[compare.QUALITY]).to_html().count(">–<") == 1  # the seed spread


def test_setting_names_the_data_and_what_else_differs(tiny, tiny_run, tmp_path):
    def trained(**changes):
        training = tiny_run.config["training"] | changes
        return Run(tiny_run.folder, tiny_run.config | {"training": training}, tiny_run.summary)

    found = compare.setting([trained(seed=1), trained(seed=2)], tiny)
    users = len(set(tiny.valid.user.tolist()))
    assert f"{len(tiny.valid):,} impressions of {users} users and 300 items" in found
    assert "with seeds 1 and 2, up to 1 epoch. All runs share every parameter but" in found
    drawn = replace(tiny, folder=tmp_path)
    (tmp_path / "dataset.json").write_text('{"negatives": "sampled"}')
    assert f"{len(tiny.valid):,} rows of {users} users" in compare.setting([trained()], drawn)
    found = compare.setting([trained(), trained(epochs=2)], tiny)
    assert "Beware: the runs also differ in epochs." in found


def test_equal_strategies_differ_by_nothing(rows, tmp_path):
    runs = [made_run(tmp_path, name, 1, 1.0, rows) for name in ("provided:a", "provided:b")]
    for run in runs:
        run.__dict__["predictions"] = runs[0].predictions
        run.summary["metrics"]["auc"] = 0.7
    table = compare.paired_differences(runs, rows)
    assert table[["difference", "low", "high"]].to_numpy().tolist() == [[0, 0, 0]]
    assert table[["p", "p_holm"]].to_numpy().tolist() == [[1, 1]]
    words = in_words(compare.strategy_table(runs), table, {"name": "clicks", "simulated": False})
    assert "(by 0.0000, 95% interval 0.0000 to 0.0000, corrected p = 1.000): it is not" in words


def test_one_strategy_alone_is_compared_with_nothing(runs, rows):
    alone = [run for run in runs if run.strategy == "v4"]
    assert compare.paired_differences(alone, rows).empty


def test_probabilities_are_those_of_each_seed(runs):
    found = compare.probabilities(runs)
    assert list(found) == ["v1", "v2", "v4"]
    both = [run.predictions["probability"] for run in runs if run.strategy == "v2"]
    np.testing.assert_allclose(found["v2"], np.stack(both))


@pytest.fixture(scope="module")
def mixed(rows, tmp_path_factory):
    """v4 with two seeds, v4 of other heads with one, and v1."""
    folder = tmp_path_factory.mktemp("mixed")
    made = [("v4", 1, {}), ("v4", 1, {"heads": 2}), ("v4", 2, {}), ("v1", 1, {})]
    return [made_run(folder, name, seed, 1.0, rows, **model) for name, seed, model in made]


def test_runs_that_differ_in_more_than_their_seed_are_no_line_together(mixed, rows):
    expected = {"v4": [0, 2], "v4 heads=2": [1], "v1": [3]}
    found = compare.systems_of(mixed)
    assert found == {name: [mixed[place] for place in own] for name, own in expected.items()}
    assert compare.run_table(mixed)["strategy"].tolist() == ["v4", "v4 heads=2", "v4", "v1"]
    means = compare.strategy_table(mixed).set_index("strategy")
    assert means["seeds"].to_dict() == {"v4": 2, "v4 heads=2": 1, "v1": 1}
    for name, own in expected.items():
        aucs = [mixed[place].summary["metrics"]["auc"] for place in own]
        assert means.loc[name, "AUC"] == pytest.approx(np.mean(aucs))
    assert {name: len(own) for name, own in compare.probabilities(mixed).items()} == {
        name: len(own) for name, own in expected.items()
    }


def test_what_all_runs_share_is_not_in_their_names(mixed, rows, tmp_path):
    heads = [made_run(tmp_path, name, 1, 1.0, rows, heads=2) for name in ("v1", "v4")]
    assert list(compare.systems_of(heads)) == ["v1", "v4"]
    assert list(compare.systems_of(mixed[1:2])) == ["v4"]


@pytest.mark.parametrize(
    ("one", "two", "names"),
    [
        # The same kinds, yet other items were left out; the same name, yet other weights.
        ({"excluded": {"kinds": ["dark"], "covers": ["1"]}}, None, ["v4 exclude=dark", "v4"]),
        (
            {"excluded": {"kinds": ["dark"], "covers": ["1"]}},
            {"excluded": {"kinds": ["dark"], "covers": ["2"]}},
            ["v4", "v4 (2)"],
        ),
        (
            {"origin": {"name": "a", "folder": "x", "weights_sha256": "1"}},
            {"origin": {"name": "b", "folder": "x", "weights_sha256": "1"}},
            ["v4 from=a", "v4 from=b"],
        ),
    ],
)
def test_what_was_left_out_and_where_training_started_tell_runs_apart(mixed, one, two, names):
    first = mixed[0]
    runs = [replace(first, config=first.config | (more or {})) for more in (one, two)]
    assert compare.names_of([*runs, runs[0]]) == [*names, names[0]]


def test_a_comparison_joins_both_tables(mixed, rows, monkeypatch):
    monkeypatch.setattr(compare, "RESAMPLES", 40)
    mixed[1].summary["parameters"] = 7
    table = compare.comparison(mixed)
    means = compare.strategy_table(mixed)
    assert table["strategy"].tolist() == means["strategy"].tolist()
    best = table.iloc[0]
    assert table[compare.DIFFERENCE].iloc[0].isna().all()
    expected = compare.paired_differences(mixed, rows)
    pd.testing.assert_frame_equal(
        table[["strategy", *compare.DIFFERENCE]][1:].reset_index(drop=True), expected
    )
    of = table.set_index("strategy")
    assert of["more_parameters"].to_dict() == (of["parameters"] - best["parameters"]).to_dict()
    assert of.loc["v4 heads=2", "parameters"] == 7
    each = compare.comparison(mixed[:3:2], by="run")
    assert set(each["run"]) == {str(run.folder) for run in mixed[:3:2]}


def test_what_differs_in_the_configurations(mixed):
    table = compare.differing(mixed).set_index("parameter")
    assert table.loc["heads"].to_dict() == {"v4": "4", "v4 heads=2": "2", "v1": "4"}
    assert set(table.index) == {"strategy", "heads"}
    seeds = compare.differing(mixed[:3:2], by="run").set_index("parameter")
    assert seeds.loc["seed"].tolist() == ["1", "2"]
    assert seeds.index.tolist() == ["seed"]


def test_disagreements_are_those_of_a_naive_loop(tiny, tiny_run):
    rng, n = np.random.default_rng(0), len(tiny.valid)
    runs = []
    for heads, seed in ((2, 1), (2, 2), (1, 1)):
        model = tiny_run.config["model"] | {"heads": heads}
        config = tiny_run.config | {"model": model, "training": {"seed": seed}}
        runs.append(replace(tiny_run, config=config))
        vars(runs[-1])["predictions"] = pd.DataFrame({"probability": rng.random(n)})
    found = compare.disagreements(runs, tiny, count=5)
    one, two, other = (run.predictions["probability"] for run in runs)
    apart = [abs((one[row] + two[row]) / 2 - other[row]) for row in range(n)]
    rows = sorted(range(n), key=lambda row: -apart[row])[:5]
    names = ["v4 heads=2", "v4 heads=1"]
    assert found.columns.tolist() == ["user", "item", "title", "label", "target", *names]
    for row, line in zip(rows, found.to_dict("records"), strict=True):
        item = tiny.valid.target[row]
        assert (line["user"], line["item"]) == (str(tiny.valid.user[row]), str(item))
        assert (line["title"], line["label"]) == (tiny.catalog.titles[item], tiny.valid.label[row])
        assert line["v4 heads=2"] == pytest.approx((one[row] + two[row]) / 2)
        assert line["v4 heads=1"] == pytest.approx(other[row])
    assert compare.disagreements(runs[:1] * 2, tiny).empty
