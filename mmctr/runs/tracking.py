"""A run for TensorBoard: an event file in its folder, where tensorboard --logdir runs finds it."""

import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mmctr.errors import ConfigError
from mmctr.files import atomic_path
from mmctr.runs.forms import SUMMARY
from mmctr.runs.run import Run

EVENTS = "events.out.tfevents.mmctr"  # TensorBoard knows its files by the middle of the name
CURVES = {
    "train_loss": "train/loss",
    "learning_rate": "train/learning_rate",
    "auc": "valid/auc",
    "logloss": "valid/logloss",
}
EPOCH = 1000  # steps of an epoch, whatever the size of its batches: runs lie on one axis


def track(run: Run) -> Path:
    """Write a run's curves, parameters and final metrics, whole or not at all; the file's path.

    What was written before is replaced. Raises ConfigError if TensorBoard is not installed.
    """
    import_tensorboard()
    from tensorboard.summary.writer.record_writer import RecordWriter

    path = run.folder / EVENTS
    with atomic_path(path) as temporary, temporary.open("wb") as file:
        writer = RecordWriter(file)
        for event in _events(run):
            writer.write(event.SerializeToString())
    return path


def import_tensorboard() -> Any:
    """PyTorch's words for TensorBoard; ConfigError if that is not installed."""
    try:
        from torch.utils.tensorboard import summary
    except ImportError:
        raise ConfigError(
            "TensorBoard's files need the extra track, which is not installed: run python -m pip "
            "install 'tensorboard>=2.21' in the environment of mmctr."
        ) from None
    return summary


def _events(run: Run) -> Iterator[Any]:
    from tensorboard.compat.proto.event_pb2 import Event

    words, history = import_tensorboard(), run.history
    # The summary is written when training has ended, and seconds count from its beginning.
    end = (run.folder / SUMMARY).stat().st_mtime
    begin, metrics = end - history["seconds"].max(), _metrics(run)
    yield Event(wall_time=begin, file_version="brain.Event:2")
    for part in words.hparams(_parameters(run), dict.fromkeys(metrics, 0.0)):
        yield Event(wall_time=begin, summary=part)
    for record in history.to_dict("records"):
        at = {"wall_time": begin + record["seconds"], "step": round(record["epoch"] * EPOCH)}
        for name, tag in CURVES.items():
            if math.isfinite(record[name]):
                yield Event(summary=words.scalar(tag, record[name]), **at)
    for tag, value in metrics.items():
        yield Event(summary=words.scalar(tag, value), **at | {"wall_time": end})


def _parameters(run: Run) -> dict[str, int | float | str]:
    """All that the run was given: numbers and words as they are, the rest as JSON has it."""
    data = run.summary["dataset"].get("name", "")
    given = {"data": data, "seed": run.seed, **run.configuration}
    return {
        name: value if type(value) in (int, float, str) else json.dumps(value)
        for name, value in given.items()
        if value is not None
    }


def _metrics(run: Run) -> dict[str, float]:
    """The final metrics of valid by tag, those that could be taken."""
    found = dict(run.summary["metrics"])
    found["auc_low"], found["auc_high"] = found.pop("auc_interval")
    return {
        f"final/{name}": value
        for name, value in found.items()
        if isinstance(value, float) and math.isfinite(value)
    }
