"""Kernels are forked from a process that has imported the library, and end with it."""

import json
import os
import sys

import pytest

from mmctr.report import execution, forked, kernel, make, pages
from mmctr.report.make import make_page
from tests.report.conftest import write_notebooks

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="Linux forks safely")
CODE = (
    "import os, sys\n"
    "facts = {'imported': 'mmctr.report.notebook' in before, 'parent': os.getppid()}\n"
    "facts |= {'threads': os.environ['OMP_NUM_THREADS'], 'folder': os.getcwd()}\n"
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
    assert found["parent"] == server.pid, "it ends with that process"
    assert found["folder"] == str(page.notebooks)
    assert server.poll() is None, "for the next page"


def test_without_that_process_a_kernel_imports_for_itself(page, monkeypatch):
    monkeypatch.setattr(forked, "SERVE", "")
    forked._server.cache_clear()
    found = page()
    forked._server.cache_clear()
    assert not found["imported"]
    assert found["parent"] == os.getpid()


def test_a_kernel_ends_with_the_process_that_forked_it(tmp_path):
    server = forked.Server(os.environ | {"OMP_NUM_THREADS": "1"})
    forked._server.cache_clear()
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(forked, "_server", lambda threads: server)
        command = [*kernel.get_kernel_dict()["argv"][:-1], str(tmp_path / "kernel.json")]
        one = forked.ForkedKernel(command, dict(os.environ), str(tmp_path))
    assert one.poll() is None
    server.process.stdin.close()
    assert server.process.wait() == 0
    assert one.wait() == 0
    one.kill()  # of one that has ended nothing is asked
