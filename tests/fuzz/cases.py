"""Run one case: spoil files by name and seed, use them, and judge what came of it."""

import resource
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from mmctr.data.audit import describe
from mmctr.data.dataset import Dataset, check
from mmctr.errors import MMCTRError
from tests.fuzz import datasets, naive

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
    """Let the process grow by no more than ROOM: what would allocate more fails at once."""
    if sys.platform != "linux":
        yield
        return
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    before = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + ROOM, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, before)


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
                describe(whole)
                dict(encoders(whole))
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


def encoders(dataset: Dataset) -> dict:
    """What a dataset says of its encoders; nothing if that is refused."""
    try:
        return dataset.encoders
    except MMCTRError as error:
        one_sentence(str(error), dataset.folder)
        return {}


def names_fault(message: str, file: str, column: str) -> bool:
    """Whether a message names the file and the column of a fault."""
    return (not file or f"{file}.parquet" in message) and column in message


def one_sentence(message: str, folder: Path) -> None:
    """A message that a user can act on: one line that says where."""
    if "\n" in message or not message.endswith(".") or str(folder) not in message:
        raise LostError(f"not a sentence that says where: {message!r}")


KINDS = {"dataset": dataset_case}
MUTATIONS = {"dataset": sorted(datasets.TABLES | datasets.BYTES)}


def run(case: Case) -> str:
    """"loaded" or "refused"; LostError or whatever else was raised if the case is lost."""
    return KINDS[case.kind](case.names, case.seed)
