"""Runs are written whole, and never over others."""

import re
from datetime import datetime

import pandas as pd
import pytest
from safetensors import SafetensorError

from mmctr.errors import MMCTRError, RunError
from mmctr.runs import writing
from mmctr.runs.run import Run
from tests.runs.test_run import use_all_of


def test_runs_of_one_second_have_folders_of_their_own(tmp_path, monkeypatch, save):
    class Clock(datetime):
        @classmethod
        def now(cls, tz=None):
            return cls(2030, 1, 2, 3, 4, 5)

    monkeypatch.setattr(writing, "datetime", Clock)
    name = "tiny-v4-seed1-20300102-030405"
    assert [save().name for _ in range(3)] == [name, f"{name}-2", f"{name}-3"]
    assert len(list((tmp_path / "runs").iterdir())) == 3


@pytest.mark.parametrize(
    "strategy", ["provided:item_emb_d128", "provided:a/b", "provided:../up", "provided:a b:c"]
)
def test_any_strategy_makes_a_plain_folder_name(tmp_path, save, strategy):
    run = save(strategy)
    assert run.folder.parent == tmp_path / "runs"
    assert re.fullmatch(r"[\w.-]+", run.name)
    assert Run.load(run.folder).strategy == strategy


def test_a_taken_name_is_never_written_over(tmp_path):
    for number, expected in enumerate(["run", "run-2", "run-3"]):
        new = tmp_path / f".new{number}"
        new.mkdir()
        (new / "file").write_text(str(number))
        assert writing.move_to_free_name(new, tmp_path / "run").name == expected
    assert (tmp_path / "run" / "file").read_text() == "0"


@pytest.mark.parametrize(
    "step",
    [
        "mmctr.model.pretrained.save_file",
        "pandas.DataFrame.to_parquet",
        "pandas.DataFrame.to_json",
        "mmctr.runs.writing.write_json",
        "pathlib.Path.rename",
    ],
)
@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (OSError(28, "No space left on device"), MMCTRError),
        (SafetensorError("No space left on device"), MMCTRError),
        (KeyboardInterrupt(), KeyboardInterrupt),
    ],
)
def test_a_failed_write_leaves_nothing(tmp_path, monkeypatch, save, step, error, expected):
    def fail(*_, **__):
        raise error

    with monkeypatch.context() as patch:
        patch.setattr(step, fail)
        with pytest.raises(expected, match=r"could not be written .No space left on device|^$"):
            save()
    assert not list((tmp_path / "runs").iterdir())
    assert save().model()


def test_a_place_that_cannot_be_written_is_named(tmp_path, save):
    (tmp_path / "runs").touch()
    with pytest.raises(RunError, match=r"runs/tiny-v4-seed1.* could not be written"):
        save()


def test_earlier_runs_stay_readable_when_the_disk_is_full(tmp_path, monkeypatch, save):
    first = save()

    def full(*_, **__):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("pandas.DataFrame.to_parquet", full)
        with pytest.raises(RunError, match="No space left"):
            save()
    assert [path.name for path in (tmp_path / "runs").iterdir()] == [first.name]
    assert use_all_of(Run.load(first.folder))


def test_predictions_have_the_own_ids_of_users_and_items(named_run, named):
    table = pd.read_parquet(named_run.folder / "predictions.parquet")
    for name, number, own in (("user", "user_id", "user_id"), ("target", "item_id", "item_id")):
        file = named.folder / f"{own}s.parquet"
        expected = table[name].map(pd.read_parquet(file).set_index(number)["original_id"])
        assert table[own].tolist() == expected.tolist()
    assert {"user", "target", "label", "probability"} <= set(named_run.predictions)


def test_where_there_are_no_own_ids_the_numbers_stand_as_text(tiny_run):
    table = pd.read_parquet(tiny_run.folder / "predictions.parquet")
    assert table["user_id"].tolist() == [str(number) for number in table["user"]]
    assert table["item_id"].tolist() == [str(number) for number in table["target"]]
