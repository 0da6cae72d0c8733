"""Run one case: spoil files by name and seed, use them, and judge what came of it."""

import contextlib
import io
import os
import re
import resource
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from unittest import mock

import numpy as np

from mmctr import cli
from mmctr.data.audit import describe
from mmctr.data.dataset import Dataset, check
from mmctr.data.importing.steps import import_dataset
from mmctr.errors import ConfigError, MMCTRError
from mmctr.evaluation.compare import run_table, strategy_table
from mmctr.runs.run import Run
from mmctr.training.prediction import predict, write_predictions
from tests.fuzz import commands, datasets, logs, naive, runs

ROOM = 512 << 20  # bytes that a case may take; every file here is below 100 kB


class LostError(AssertionError):
    """A case that ended in another exception, a wrong result or a message that does not help."""


@dataclass(frozen=True)
class Case:
    """What is spoilt: the kind of input, the names of its mutations, and a seed."""

    kind: str
    names: tuple[str, ...]
    seed: int


@contextmanager
def limited_memory() -> Iterator[None]:
    """Let the process grow by no more than ROOM: what would allocate more fails at once.

    Only what can be written counts: a thread that PyArrow starts reserves 128 MB of addresses.
    """
    if sys.platform != "linux":
        yield
        return
    status = Path("/proc/self/status").read_text()
    used = int(re.search(r"VmData:\s+(\d+) kB", status)[1]) << 10
    before = resource.getrlimit(resource.RLIMIT_DATA)
    resource.setrlimit(resource.RLIMIT_DATA, (used + ROOM, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_DATA, before)


def dataset_case(names: tuple[str, ...], seed: int) -> str:
    """Load a spoilt dataset; "loaded" if it is what a naive reader finds, or "refused"."""
    with tempfile.TemporaryDirectory() as place:
        folder = datasets.write_dataset(Path(place) / "data", list(names), seed)
        expected = naive.Reader(folder)
        dataset, message = None, ""
        with limited_memory():
            try:
                dataset = Dataset.load(folder)
            except MMCTRError as error:
                message = str(error)
            whole, errors = check(folder)
            if whole is not None:
                for use in (describe, lambda data: data.encoders):
                    try:
                        use(whole)
                    except MMCTRError as error:
                        one_sentence(str(error), folder)
        if (whole is not None) and dataset is None:
            raise LostError(f"check finds nothing, load says {message}")
        if dataset is not None:
            if expected.faults:
                raise LostError(f"loaded in spite of {expected.faults}")
            if wrong := naive.difference(dataset, expected.values):
                raise LostError(wrong)
            return "loaded"
        if not expected.faults:
            raise LostError(f"refused without a fault: {message}")
        for text in (message, *errors):
            one_sentence(text, folder)
        if not any(names_fault(message, *fault) for fault in expected.faults):
            raise LostError(f"{message!r} names none of {expected.faults}")
        return "refused"


def names_fault(message: str, file: str, column: str) -> bool:
    """Whether a message names the file and the column of a fault."""
    return (not file or f"{file}.parquet" in message) and column in message


def one_sentence(message: str, folder: Path) -> None:
    """A message that a user can act on: one line that says where."""
    if "\n" in message or not message.endswith(".") or str(folder) not in message:
        raise LostError(f"not a sentence that says where: {message!r}")


def run_case(names: tuple[str, ...], seed: int) -> str:
    """Read and use a spoilt run; "loaded" if its files say the same when read by hand."""
    dataset, sound = runs.base()
    with tempfile.TemporaryDirectory() as place:
        folder = runs.write_run(Path(place) / "run", list(names), seed)
        try:
            with limited_memory():
                run = Run.load(folder)
                used = run.history, run.predictions, run_table([run]), strategy_table([run])
                model = run.model()
                run.require_fit(dataset)
                probability = predict(model, dataset.valid)
                write_predictions(folder / "out.csv", dataset, dataset.valid, probability)
        except MMCTRError as error:
            if "probability of row" not in str(error):
                one_sentence(str(error), folder)
            if not any(name in str(error) for name in (*sound, "trained", "probability of row")):
                raise LostError(f"{error} names no file") from error
            if not names:
                raise LostError(f"refused a sound run: {error}") from error
            return "refused"
        if wrong := runs.difference(run):
            raise LostError(wrong)
        if not np.isfinite(probability).all() or len(used[0]) < 1:
            raise LostError(f"predicts {probability}")
        return "loaded"


def log_case(names: tuple[str, ...], seed: int) -> str:
    """Import a spoilt log; "loaded" if the dataset holds the clicks that plain Python finds."""
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place) / "tables"
        log, items, recipe = logs.write_tables(folder, list(names), seed)
        wanted = logs.expected(log, items, recipe)
        out = Path(place) / "out"
        try:
            with limited_memory():
                import_dataset([log], [items], None, out, recipe)
        except MMCTRError as error:
            if not isinstance(error, ConfigError):
                one_sentence(str(error), folder)
            if wanted is not None and not any(map(logs.contradicts_itself, (log, items))):
                raise LostError(f"refused without a fault: {error}") from error
            if list(Path(place).iterdir()) != [folder]:
                raise LostError("something half-written is left") from error
            return "refused"
        if wanted is None:
            if any(map(logs.contradicts_itself, (log, items))):
                return "loaded"  # by DuckDB alone, which goes by the rows
            raise LostError("imported tables that cannot be used")
        if wrong := logs.difference(out, wanted, recipe):
            raise LostError(wrong)
        return "loaded"


def command_case(names: tuple[str, ...], seed: int) -> str:
    """A command line with odd values on spoilt input: status 0, one sentence, or a usage error."""
    with tempfile.TemporaryDirectory() as place:
        words = commands.command(Path(place), list(names), seed)
        streams = io.StringIO(), io.StringIO()
        with (
            mock.patch.dict(os.environ, {"MMCTR_HOME": place}),
            mock.patch.object(sys, "argv", ["mmctr", *words]),
            contextlib.redirect_stdout(streams[0]),
            contextlib.redirect_stderr(streams[1]),
            limited_memory(),
        ):
            try:
                cli.main()
                status = 0
            except SystemExit as end:
                status = end.code or 0
        said = streams[1].getvalue()
        if status == 1:
            lines = said[said.rindex("mmctr: ") :].strip().splitlines()
            if len(lines) > 1 and words[:2] != ["data", "check"]:  # which lists what it finds
                raise LostError(f"{words}: {said}")
        elif status not in (0, 2):
            raise LostError(f"{words}: status {status}, {said}")
        return "loaded" if status == 0 else "refused"


KINDS = {"command": command_case, "dataset": dataset_case, "log": log_case, "run": run_case}
MUTATIONS = {
    "command": sorted(commands.COMMANDS),
    "dataset": sorted(datasets.TABLES | datasets.BYTES),
    "log": sorted(datasets.TABLES | datasets.BYTES),
    "run": sorted(runs.MUTATIONS),
}


def run(case: Case) -> str:
    """ "loaded" or "refused"; LostError or whatever else was raised if the case is lost."""
    return KINDS[case.kind](case.names, case.seed)
