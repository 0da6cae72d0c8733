"""DuckDB shows how far it is, and stops when it is asked to."""

import os
import signal
import threading
from threading import Event

import pytest
from tqdm.auto import tqdm

from mmctr.data.importing import engine as engines
from mmctr.data.importing.engine import engine, interruptible, progress


def test_a_bar_shows_how_far_duckdb_is(monkeypatch):
    """A query that is at 40%, then not running (-1), and done in the end."""
    shown, seen, told = [], Event(), iter([40.0, -1.0])

    class Connection:
        def query_progress(self):
            if (percent := next(told, None)) is None:
                seen.set()
            return percent or 40.0

    class Bar(tqdm):
        def update(self, n=1):
            self.n += n
            shown.append(self.n)

    monkeypatch.setattr(engines, "tqdm", Bar)
    with progress(Connection(), "sort"):
        assert seen.wait(60)
    assert shown[0] == 40 and shown[-1] == 100 and shown == sorted(shown)


@pytest.mark.parametrize("attempt", range(5))
def test_an_endless_query_ends_with_ctrl_c_whenever_it_comes(tmp_path, attempt):
    """Its only task is another thread's: the one that asked has nothing to do, and sees nothing."""
    endless = "SELECT count(*) FROM range(1_000_000_000_000_000) WHERE hash(range) = 1"
    with engine([], tmp_path, 1.0) as connection:

        def send():
            while attempt and connection.query_progress() < 0:
                pass  # the first attempt is not even sure to find it begun
            os.kill(os.getpid(), signal.SIGINT)

        sending = threading.Thread(target=send)

        def ask():
            sending.start()
            return connection.sql(endless).fetchall()

        with pytest.raises(KeyboardInterrupt):
            interruptible(connection, ask)
        sending.join()
        assert interruptible(connection, lambda: connection.sql("SELECT 7").fetchall()) == [(7,)]
