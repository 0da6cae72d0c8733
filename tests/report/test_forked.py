"""Kernels are forked from a process that has imported the library, and end with it."""

import json
import os
import sys
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from threading import Event

import pytest

from mmctr.report import execution, forked, kernel, make, pages
from mmctr.report.make import make_page
from tests.report.conftest import write_notebooks

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="Linux forks safely")
CODE = (
    "import gc, os, sys\n"
    "facts = {'imported': 'mmctr.report.notebook' in before, 'parent': os.getppid()}\n"
    "facts |= {'threads': os.environ['OMP_NUM_THREADS'], 'folder': os.getcwd()}\n"
    "facts['frozen'] = gc.get_freeze_count()\n"
    f"display({{{pages.RECORD!r}: facts}}, raw=True)"
)


@pytest.fixture
def page(tmp_path, tiny, monkeypatch):
    """Makes a page of a small notebook; returns what its kernel says of itself."""
    code = f"import sys\nbefore = set(sys.modules)\n{CODE}"
    notebooks = write_notebooks(tmp_path / "notebooks", **{"01_explore": code})
    monkeypatch.setattr(make, "NOTEBOOKS", notebooks)

    def made():
        path = make_page("01_explore", tiny, {"data": "x"}, tmp_path / "out" / "page")
        executed = path.parent / "notebooks" / "01_explore.ipynb"
        return execution.recorded(json.loads(executed.read_text()))

    made.notebooks = notebooks
    return made


def test_a_kernel_begins_with_the_library_imported(page):
    found = page()
    server = forked._server(found["threads"]).process
    assert found["imported"]
    assert found["frozen"] > 100_000, "its collector of garbage passes over what was imported"
    assert found["parent"] == server.pid, "it ends with that process"
    assert found["folder"] == str(page.notebooks)
    assert server.poll() is None, "for the next page"


def test_without_that_process_a_kernel_imports_for_itself(page, monkeypatch):
    monkeypatch.setattr(forked, "SERVE", "")
    monkeypatch.setattr(forked, "_started", lambda threads: forked.Server(dict(os.environ)))
    found = page()
    assert not found["imported"]
    assert found["parent"] == os.getpid()


def test_a_kernel_ends_with_the_process_that_forked_it(tmp_path, monkeypatch):
    monkeypatch.setattr(forked, "SERVE", "from mmctr.report.forked import serve; serve(())")
    server = forked.Server(dict(os.environ))
    monkeypatch.setattr(forked, "_started", lambda threads: server)
    command = [*kernel.get_kernel_dict()["argv"][:-1], str(tmp_path / "kernel.json")]
    one = forked.ForkedKernel(command, dict(os.environ), str(tmp_path))
    assert one.poll() is None
    server.process.stdin.close()
    assert server.process.wait() == 0
    assert one.wait() == 0
    one.kill()  # of one that has ended nothing is asked


def test_pages_that_begin_together_share_it(monkeypatch):
    begun, made, all_there = [], [], Event()

    def begin(threads):
        begun.append(threads)
        if len(begun) == 4:
            all_there.set()
        return forked._server(threads)

    def made_when_all_wait(environment):
        all_there.wait()
        made.append(environment)
        return environment

    monkeypatch.setattr(forked, "Server", made_when_all_wait)
    monkeypatch.setattr(forked, "_started", cache(forked._started.__wrapped__))
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(begin, ["3"] * 4))
    assert len(made) == 1
    assert all(one is found[0] for one in found)
