"""What TensorBoard reads back of a run is what the run says."""

import json
import os
import shutil
import sys

import numpy as np
import pytest

from mmctr.errors import ConfigError, MMCTRError
from mmctr.runs.run import Run
from mmctr.runs.tracking import EVENTS, track
from mmctr.runs.verify import verify


@pytest.fixture
def run(tiny_run, tmp_path):
    """A run of its own, to be written into."""
    return Run.load(shutil.copytree(tiny_run.folder, tmp_path / "runs" / "mine"))


@pytest.fixture
def read():
    """What TensorBoard's own reader finds in a folder; these tests need the extra track."""
    reader = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")

    def found(folder):
        return reader.EventAccumulator(str(folder)).Reload()

    return found


def test_curves_are_the_records_of_training(run, read):
    assert track(run) == run.folder / EVENTS
    found = read(run.folder)
    for tag, name in {
        "train/loss": "train_loss",
        "train/learning_rate": "learning_rate",
        "valid/auc": "auc",
        "valid/logloss": "logloss",
    }.items():
        events = found.Scalars(tag)
        np.testing.assert_allclose([one.value for one in events], run.history[name], rtol=1e-6)
        # 10 batches an epoch, of which 4 validations come after 2, 5, 8 and 10.
        assert [one.step for one in events] == [200, 500, 800, 1000], "thousandths of an epoch"
        times = np.diff([one.wall_time for one in events])
        np.testing.assert_allclose(times, np.diff(run.history["seconds"]), atol=1e-3)


def test_final_metrics_and_parameters_are_the_runs(run, read):
    track(run)
    found, metrics = read(run.folder), run.summary["metrics"]
    expected = {name: value for name, value in metrics.items() if name != "auc_interval"}
    expected["auc_low"], expected["auc_high"] = metrics["auc_interval"]
    for name, value in expected.items():
        assert [one.value for one in found.Scalars(f"final/{name}")] == [pytest.approx(value)]
    plugin = pytest.importorskip("tensorboard.plugins.hparams.plugin_data_pb2")
    content = found.summary_metadata["_hparams_/session_start_info"].plugin_data.content
    given = plugin.HParamsPluginData.FromString(content).session_start_info.hparams
    assert given["strategy"].string_value == "v4"
    assert given["data"].string_value == "tiny"
    assert (given["seed"].number_value, given["heads"].number_value) == (1, 2)
    assert json.loads(given["hidden"].string_value) == [16]
    assert given["senet"].string_value == "true"
    assert given["learning_rate"].number_value == run.config["training"]["learning_rate"]
    wanted = {name for name, value in run.configuration.items() if value is not None}
    assert set(given) == wanted | {"seed", "data"}
    content = found.summary_metadata["_hparams_/experiment"].plugin_data.content
    experiment = plugin.HParamsPluginData.FromString(content).experiment
    assert {one.name.tag for one in experiment.metric_infos} == {f"final/{n}" for n in expected}


def test_tensorboard_finds_the_run_by_its_name_below_runs(run):
    multiplexer = pytest.importorskip(
        "tensorboard.backend.event_processing.plugin_event_multiplexer"
    )
    track(run)
    found = multiplexer.EventMultiplexer().AddRunsFromDirectory(str(run.folder.parent))
    assert list(found.Reload().Runs()) == ["mine"]


def test_a_run_that_is_tracked_is_the_same_run(tiny, run):
    pytest.importorskip("tensorboard")
    before = {path.name: path.read_bytes() for path in run.folder.iterdir()}
    track(run)
    first = (run.folder / EVENTS).read_bytes()
    track(run)
    assert (run.folder / EVENTS).read_bytes() == first, "written again, not once more"
    after = {path.name: path.read_bytes() for path in run.folder.iterdir()}
    assert after.pop(EVENTS) and after == before
    assert verify(Run.load(run.folder), tiny) == ([], [])


def test_measures_that_could_not_be_taken_are_left_out(run, read):
    path = run.folder / "summary.json"
    summary = json.loads(path.read_text())
    summary["metrics"]["gauc"] = None
    path.write_text(json.dumps(summary))
    os.utime(path, (1e9, 1e9))
    track(Run.load(run.folder))
    found = read(run.folder)
    assert "final/gauc" not in found.Tags()["scalars"]
    assert found.Scalars("final/auc")[0].wall_time == 1e9


def test_without_tensorboard_it_says_what_to_install(run, monkeypatch):
    for name in [name for name in sys.modules if name.startswith("torch.utils.tensorboard")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "tensorboard", None)
    with pytest.raises(ConfigError, match=r"need the extra track.*pip install 'tensorboard>="):
        track(run)
    assert not (run.folder / EVENTS).exists()


def test_a_full_disk_leaves_the_old_file(run, monkeypatch):
    records = pytest.importorskip("tensorboard.summary.writer.record_writer")
    track(run)
    before = (run.folder / EVENTS).read_bytes()

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(records.RecordWriter, "write", full)
    with pytest.raises(MMCTRError, match=rf"{EVENTS} could not be written .No space left"):
        track(run)
    assert (run.folder / EVENTS).read_bytes() == before
    assert not [path for path in run.folder.iterdir() if path.name.startswith(".")]
