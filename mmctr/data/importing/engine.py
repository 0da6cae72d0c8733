"""DuckDB: what it may read and take, how far it is, how it is stopped, and what it says."""

import os
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from pathlib import Path
from threading import Event, Thread
from typing import TYPE_CHECKING, Any, TypeVar

from tqdm.auto import tqdm

from mmctr.errors import DataError, first_line
from mmctr.files import FULL

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

Result = TypeVar("Result")
ADVICE = {
    "csv": "write it again, or set -p delimiter=... or -p encoding=latin-1",
    "json": "write it again as JSON Lines, an object a line",
    "parquet": "write it again",
}


@contextmanager
def engine(
    files: list[Path],
    workplace: Path,
    memory: float,
    ordered: bool = False,
    threads: int | None = None,
) -> "Iterator[DuckDBPyConnection]":
    """A DuckDB that reads these files alone, and spills into the workplace.

    memory: GB, of which it takes a quarter, and somewhat more while it sorts. ordered: rows come
    in the order of their file. threads: as many as there are processors if not given.
    """
    import duckdb

    settings = {"autoinstall_known_extensions": False, "autoload_known_extensions": False}
    settings |= {"python_enable_replacements": False}
    settings |= {"temp_directory": str(workplace), "memory_limit": f"{memory * 250:.0f}MB"}
    settings |= {"preserve_insertion_order": ordered}
    settings |= {"threads": threads} if threads else {}
    with duckdb.connect(config=settings) as connection:
        connection.execute("SET TimeZone = 'UTC'")
        connection.execute("SET enable_progress_bar = true")
        connection.execute("SET enable_progress_bar_print = false")  # `progress` shows it
        # A Parquet file's statistics leave NaN out, and isnan would be false for all of its rows.
        connection.execute("SET disabled_optimizers = 'statistics_propagation'")
        connection.execute(f"SET allowed_directories = {literal([str(workplace)])}")
        connection.execute(f"SET allowed_paths = {literal([str(path) for path in files])}")
        connection.execute("SET enable_external_access = false")
        connection.execute("SET lock_configuration = true")
        yield connection


@contextmanager
def progress(connection: "DuckDBPyConnection", description: str) -> Iterator[None]:
    """A bar of how much DuckDB has done of a query, which a thread asks it for."""
    done = Event()
    form = "{desc}: {percentage:3.0f}%|{bar}| [{elapsed}<{remaining}]"
    with tqdm(total=100, desc=description, bar_format=form) as bar, ThreadPoolExecutor(1) as pool:

        def watch() -> None:
            while not done.wait(0.2):
                bar.update(max(0, connection.query_progress() - bar.n))

        watching = pool.submit(watch)
        try:
            yield
        finally:
            done.set()
            watching.result()
        bar.update(100 - bar.n)


def interruptible(connection: "DuckDBPyConnection", call: Callable[[], Result]) -> Result:
    """What a call of DuckDB gives, which Ctrl-C ends.

    In a thread of its own: DuckDB does not look for signals as long as the calling thread has
    nothing to do, while another reads a packed file, say.
    """
    asked: Future[Result] = Future()

    def ask() -> None:
        if asked.set_running_or_notify_cancel():
            try:
                asked.set_result(call())
            except BaseException as error:  # raised where the result is asked for
                asked.set_exception(error)

    try:
        Thread(target=ask).start()
        # Again and again: a signal just before a wait does not end it, and is seen after it.
        while not asked.done():
            wait([asked], 0.1)
    except KeyboardInterrupt:
        # Here too: DuckDB forgets an interruption that comes before its query has begun.
        while not (asked.cancel() or asked.done()):
            connection.interrupt()
            wait([asked], 0.1)
        raise
    return asked.result()


@contextmanager
def readable(name: str, form: str) -> Iterator[None]:
    """Turn what DuckDB says of a file into a sentence, or into what Python says of the same."""
    import duckdb

    try:
        yield
    except duckdb.OutOfMemoryException as error:
        raise DataError(
            f"{name} needs more memory or disk than there is ({first_line(error)}): free some "
            "space, or raise it with -p memory=8 (GB)."
        ) from error
    except duckdb.Error as error:
        # A full disk is no matter of the table that was read.
        if full := next((n for n in FULL if os.strerror(n) in str(error)), None):
            raise OSError(full, os.strerror(full)) from error
        damaged = isinstance(error, duckdb.IOException)  # as a packed file that was cut off
        advice = "write it again" if damaged else ADVICE[form]
        raise DataError(
            f"{name} is not a readable table ({first_line(error)}): {advice}."
        ) from error


def literal(value: Any) -> str:
    """A text, or a list of texts, in SQL."""
    if isinstance(value, list):
        return "[" + ", ".join(map(literal, value)) + "]"
    return "'" + str(value).replace("'", "''") + "'"
