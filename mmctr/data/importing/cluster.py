"""A Spark cluster: how it is reached, what it is asked, and what it says in a sentence."""

import errno
import importlib.util
import json
import logging
import os
import re
import shutil
import sys
import tempfile
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import pyarrow as pa

import mmctr
from mmctr import errors
from mmctr.errors import ConfigError, DataError, MMCTRError, first_line
from mmctr.files import LIBRARY

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

Thing, Result = TypeVar("Thing"), TypeVar("Result")
TOLD = re.compile(r"RuntimeError: mmctr says (\{.*\})")  # as an error comes from a worker
# What begins a reason among Spark's own words, the best one first.
REASONS = (r"Reason: (.*\w.*)", r"(?:Exception|Error): (.*\w.*)")
LOCAL = "local"  # what masters begin with that are this machine


@dataclass(frozen=True)
class Cluster:
    """Machines that run functions of mmctr, and see the folder `work` by the same name.

    memory: GB, of which DuckDB takes a quarter in each task. words: the file of what Spark says.
    """

    session: "SparkSession"
    work: Path
    memory: float
    words: Path

    def in_words(self) -> str:
        """Where it is, how much it does at once, and where to see how far it is."""
        context = self.session.sparkContext
        seen = f"; progress: {context.uiWebUrl}" if context.uiWebUrl else ""
        at_once = f"{context.defaultParallelism} tasks at once"
        return f"Spark {context.version} at {context.master}, {at_once}{seen}"

    def map(self, function: Callable[[Thing], Result], things: list[Thing]) -> list[Result]:
        """What a function gives for each thing, a task each, in order."""
        with self._told():
            return self._tasks(function, things).collect()

    def find(self, function: Callable[[Thing], Result], things: list[Thing]) -> Result | None:
        """The first that is not None; most things that are found are in the first."""
        for some in (things[:1], things[1:]):
            found = [one for one in self.map(function, some) if one is not None] if some else []
            if found:
                return found[0]
        return None

    def reduce(
        self,
        function: Callable[[Thing], Result],
        merge: Callable[[Result, Result], Result],
        things: list[Thing],
    ) -> Result:
        """What a function gives for each thing, merged by the workers."""
        with self._told():
            return self._tasks(function, things).treeReduce(merge)

    def by_user(
        self, files: Path, parts: int, function: Callable[[int, Iterator[pa.RecordBatch]], Result]
    ) -> list[Result]:
        """What a function gives for the rows of each range of user_id, in the users' order.

        Shorter ids come first. files: a folder of Parquet files. Results go as JSON.
        """
        from pyspark.sql.functions import length

        with self._told(), warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)  # of pandas 3, which is not used here
            rows = self.session.read.parquet(files.as_uri())
            ranges = rows.repartitionByRange(parts, length("user_id"), "user_id")
            found = ranges.mapInArrow(partial(_of_range, function), "number int, told string")
            return [json.loads(row.told) for row in sorted(found.collect())]

    def _tasks(self, function: Callable[[Thing], Result], things: list[Thing]) -> Any:
        tasks = self.session.sparkContext.parallelize(things, len(things))
        return tasks.map(partial(_asked, function))

    @contextmanager
    def _told(self) -> Iterator[None]:
        """Turn what goes wrong in a task, or with Spark, into a sentence."""
        from py4j.protocol import Py4JError
        from pyspark.errors import PySparkException

        try:
            yield
        except (Py4JError, PySparkException) as error:
            if not (told := TOLD.search(str(error))):
                raise MMCTRError(
                    f"Spark could not go on ({reason(error, self.words)}): see that its machines "
                    "are up, have this Python and enough memory (of each task -p memory=4, in GB), "
                    "or import without --engine spark."
                ) from error
            said = json.loads(told[1])
            if said["kind"] == "OSError":
                raise OSError(said["number"], os.strerror(said["number"])) from error
            kind = getattr(errors, said["kind"])
            raise kind(said["words"]) from RuntimeError(said["cause"])


@contextmanager
def cluster(master: str | None, work: Path, memory: float) -> Iterator[Cluster]:
    """The Spark session that there is already, or else one that is stopped at the end.

    master: as Spark names it, or else its own default.
    Raises MMCTRError where Spark cannot be had.
    """
    if importlib.util.find_spec("pyspark") is None:
        raise MMCTRError("--engine spark needs PySpark: install it with pip install 'pyspark>=4'.")
    home = os.environ.get("JAVA_HOME")
    if not (Path(home, "bin", "java").exists() if home else shutil.which("java")):
        place = f"at JAVA_HOME ({home})" if home else "on the path"
        raise MMCTRError(
            f"--engine spark needs Java, and found none {place}: install Java 17 and set JAVA_HOME."
        )
    from pyspark.sql import SparkSession

    there = SparkSession.getActiveSession()
    with tempfile.TemporaryDirectory(prefix="mmctr-spark-") as folder:
        words = Path(folder) / "words.txt"
        session = there or _session(master, words)
        try:
            logging.getLogger().addFilter(_is_told)
            yield Cluster(session, work, memory, words)
        finally:
            logging.getLogger().removeFilter(_is_told)
            if there is None:
                session.stop()


def _is_told(record: logging.LogRecord) -> bool:
    """Whether a record is for people: not that Ctrl-C came while Java was waited for."""
    return "while sending command" not in record.getMessage()


def _session(master: str | None, words: Path) -> "SparkSession":
    from py4j.protocol import Py4JError
    from pyspark.errors import PySparkException
    from pyspark.sql import SparkSession

    builder = SparkSession.builder.appName("mmctr data import")
    settings = {"spark.ui.showConsoleProgress": "false", "spark.executorEnv.TQDM_DISABLE": "1"}
    if master is not None:
        builder = builder.master(master)
    if (master or LOCAL).startswith(LOCAL):
        settings["spark.ui.enabled"] = "false"
        # Its workers are this Python, with this library.
        os.environ.setdefault("PYSPARK_PYTHON", sys.executable)
        path = [str(LIBRARY.parent), *filter(None, [os.environ.get("PYTHONPATH")])]
        settings["spark.executorEnv.PYTHONPATH"] = os.pathsep.join(path)
    try:
        with _words_into(words), warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)
            return builder.config(map=settings).getOrCreate()
    except (Py4JError, PySparkException) as error:
        raise ConfigError(
            f"Spark did not start at --master {master or 'that it has by default'} "
            f"({reason(error, words)}): name one such as spark://host:7077, yarn or local[2], and "
            "see that it is up."
        ) from error


def require_workers(found: Cluster) -> None:
    """Raise MMCTRError unless all workers that answer have mmctr and DuckDB as here, and `work`."""
    import duckdb

    context, place = found.session.sparkContext, str(found.work)

    # Within a function, so that it reaches a worker that lacks mmctr.
    def look(_: int) -> tuple[str, str, str, bool]:
        import importlib
        import os
        import socket

        def version(name: str) -> str:
            try:
                return importlib.import_module(name).__version__
            except ImportError:
                return "none"

        return socket.gethostname(), version("mmctr"), version("duckdb"), os.access(place, os.W_OK)

    tasks = 2 * context.defaultParallelism
    with found._told():
        seen = sorted(set(context.parallelize(range(tasks), tasks).map(look).collect()))
    for host, own, engine, there in seen:
        for name, theirs, ours in (
            ("mmctr", own, mmctr.__version__),
            ("duckdb", engine, duckdb.__version__),
        ):
            if theirs != ours:
                has = "lacks" if theirs == "none" else f"has {theirs} of"
                raise MMCTRError(
                    f"Spark's worker on {host} {has} {name}: install {name} {ours} for its Python, "
                    "or name another Python with PYSPARK_PYTHON."
                )
        if not there:
            raise DataError(
                f"Spark's worker on {host} does not see {found.work.parent.parent}, or may not "
                "write to it: choose --out in a folder that all machines share."
            )


def reason(error: BaseException, words: Path) -> str:
    """Why Spark failed, as a part of a sentence: in its own words, or in those of the error."""
    said = f"{words.read_text(errors='replace')}\n{error}" if words.exists() else str(error)
    found = next(filter(None, (re.findall(form, said) for form in REASONS)), None)
    return found[-1].strip().rstrip(".!") if found else first_line(error)


@contextmanager
def _words_into(path: Path) -> Iterator[None]:
    """Have processes that are started write what they say into a file, as long as they live."""
    sys.stderr.flush()
    kept = os.dup(2)
    try:
        with path.open("ab") as file:
            os.dup2(file.fileno(), 2)
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)


def _asked(function: Callable[[Thing], Result], thing: Thing) -> Result:
    """In a worker: what a function gives, or an error that `Cluster` understands."""
    try:
        return function(thing)
    except (MMCTRError, OSError) as error:
        said = {"kind": type(error).__name__, "words": str(error)}
        said["cause"] = str(error.__cause__ or error)
        if isinstance(error, OSError):
            said |= {"kind": "OSError", "number": error.errno or errno.EIO}
        raise RuntimeError(f"mmctr says {json.dumps(said)}") from None


def _of_range(
    function: Callable[[int, Iterator[pa.RecordBatch]], Result], batches: Iterator[pa.RecordBatch]
) -> Iterator[pa.RecordBatch]:
    """In a worker: what a function gives for the rows of a range, if there are any."""
    from pyspark import TaskContext

    first = next(batches, None)
    if first is not None:
        number = TaskContext.get().partitionId()
        told = json.dumps(_asked(lambda rows: function(number, rows), _chained(first, batches)))
        columns = [pa.array([number], pa.int32()), pa.array([told])]
        yield pa.RecordBatch.from_arrays(columns, names=["number", "told"])


def _chained(first: pa.RecordBatch, others: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    yield first
    yield from others
