"""Runs found below a folder, put beside those that they are comparable with, and told as text."""

import json
import shutil

import pandas as pd
import pytest

from mmctr.errors import RunError
from mmctr.evaluation import listing
from mmctr.runs.run import Run


@pytest.fixture
def place(tiny_run, tmp_path, monkeypatch):
    """A folder of runs, with a function that adds a copy of the tiny run, some of it changed."""
    monkeypatch.setenv("MMCTR_HOME", str(tmp_path))

    def add(name, **changes):
        folder = shutil.copytree(tiny_run.folder, tmp_path / "runs" / name)
        for part, values in changes.items():
            path = folder / f"{part}.json"
            path.write_text(json.dumps(json.loads(path.read_text()) | values))
        return Run.load(folder)

    (tmp_path / "runs").mkdir()
    add.folder = tmp_path / "runs"
    return add


def test_runs_at_any_depth_are_found_and_what_is_none_is_passed_over(place):
    for name in ("a", "ablation/b", ".hidden", "damaged", "x-unfinished", "scores"):
        place(name)
    (place.folder / "damaged" / "config.json").write_text("{")
    (place.folder / "x-unfinished" / "summary.json").unlink()
    table = pd.read_parquet(place.folder / "scores" / "predictions.parquet")
    table[1:].to_parquet(place.folder / "scores" / "predictions.parquet")
    (place.folder / "empty").mkdir()
    for kind in ("study", "backtest"):
        (place.folder / kind).mkdir()
        (place.folder / kind / f"{kind}.json").write_text("{}")
    runs, passed_over = listing.runs_below(place.folder)
    assert [run.address for run in runs] == ["a", "ablation/b"]
    assert passed_over.endswith("runs: damaged, empty, scores and x-unfinished.")
    assert listing.runs_below(place.folder / "a") == ([], "")


def test_many_unreadable_folders_are_one_line(place):
    for number in range(8):
        (place.folder / str(number)).mkdir()
    assert listing.runs_below(place.folder)[1].endswith("runs: 0, 1, 2, 3, 4 and 3 more.")


def test_comparable_are_runs_of_the_same_data_and_rows(place, tiny_run):
    first, same = place("first"), place("same")
    data = tiny_run.summary["dataset"]
    other = place("other", summary={"dataset": data | {"fingerprint": "0" * 16}})
    table = first.predictions.copy()
    table.loc[3, "label"] = 1 - table.loc[3, "label"]
    place("flipped")
    table.to_parquet(place.folder / "flipped" / "predictions.parquet")
    flipped = Run.load(place.folder / "flipped")
    runs = [first, other, flipped, same]
    assert listing.by_data(runs) == [[first, same], [other], [flipped]]
    listing.require_comparable([first, same])
    with pytest.raises(
        RunError, match=r"first and other cannot be compared.* found data \w+ and 0+"
    ):
        listing.require_comparable([first, other])
    with pytest.raises(
        RunError, match=r"first and flipped cannot be compared.* other rows of valid"
    ):
        listing.require_comparable([first, flipped])


def test_a_listing_says_of_each_run_what_it_is(place, tiny_run):
    model = {"model": tiny_run.config["model"] | {"heads": 8}}
    metrics = tiny_run.summary["metrics"] | {"auc": 0.9876, "auc_interval": [0.9, 0.99]}
    runs = [place("first"), place("second", config=model, summary={"metrics": metrics})]
    heading, columns, *lines = listing.listing(runs).splitlines()
    data = tiny_run.summary["dataset"]
    assert data["name"] in heading and data["fingerprint"] in heading and "simulated" in heading
    assert columns.split()[:2] == ["run", "strategy"]
    assert [line.split()[0] for line in lines] == ["second", "first"], "the best first"
    assert "heads=8" in lines[0] and "0.9876  0.9000 to 0.9900" in lines[0]
    assert "heads=2" in lines[1]


def test_dates_of_runs_are_by_one_clock(place):
    """Whatever the zone of the machine that trained; what is no date is shown as it is."""
    given = ["2026-03-01T01:30:00+02:00", "2026-02-28T18:30:00-05:00", "yesterday"]
    runs = [place(f"run{n}", summary={"date": date}) for n, date in enumerate(given)]
    _, columns, *lines = listing.listing(runs).splitlines()
    assert columns.endswith("date (UTC)")
    found = {line.split()[0]: line for line in lines}
    assert [found[f"run{n}"].endswith("2026-02-28 23:30") for n in (0, 1)] == [True, True]
    assert found["run2"].endswith("yesterday")


def test_a_table_is_aligned_and_holds_nothing_that_a_terminal_obeys():
    table = pd.DataFrame({"name": ["a\x1b[2Jb", "long\nname"], "n": [1, 10], "p": ["nan", "0.5"]})
    assert listing.as_text(table).splitlines() == [
        "name        n    p",
        "a [2Jb      1    –",
        "long name  10  0.5",
    ]
