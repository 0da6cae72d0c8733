"""Reports run in the environment of mmctr, whatever kernels Jupyter would find."""

import json
import shutil
import sys

import papermill.engines

from mmctr import files
from mmctr.report import execution, make, pages
from mmctr.report.kernel import OwnKernel
from mmctr.report.make import make_page
from tests.report.conftest import write_notebooks


def test_another_environment_s_python3_does_not_run_the_notebooks(tmp_path, tiny, monkeypatch):
    """Jupyter looks for kernels in JUPYTER_PATH and the user's folders first."""
    kernel = {"argv": [shutil.which("false"), "{connection_file}"], "display_name": "Another"}
    for name in ("JUPYTER_PATH", "JUPYTER_DATA_DIR"):
        folder = tmp_path / name / "kernels" / "python3"
        folder.mkdir(parents=True)
        (folder / "kernel.json").write_text(json.dumps(kernel | {"language": "python"}))
        monkeypatch.setenv(name, str(tmp_path / name))
    code = f"import sys\ndisplay({{{pages.RECORD!r}: {{'python': sys.executable}}}}, raw=True)"
    notebooks = write_notebooks(tmp_path / "notebooks", **{"01_explore": code})
    monkeypatch.setattr(make, "NOTEBOOKS", notebooks)
    page = make_page("01_explore", tiny, {"data": "x"}, tmp_path / "out" / "page")
    executed = json.loads((page.parent / "notebooks" / "01_explore.ipynb").read_text())
    assert execution.recorded(executed) == {"python": sys.executable}
    kernels = tmp_path / "JUPYTER_DATA_DIR" / "kernels"
    assert list(kernels.iterdir()) == [kernels / "python3"], "nothing is left behind"


def test_a_notebook_is_written_at_its_beginning_and_its_end(tmp_path, tiny, monkeypatch):
    """What a dead kernel leaves is in test_execution."""
    begun, write = [], papermill.engines.write_ipynb

    def counted(notebook, path):
        cells = [cell for cell in notebook.cells if cell.metadata.papermill.get("start_time")]
        begun.append(len(cells))
        write(notebook, path)

    monkeypatch.setattr(papermill.engines, "write_ipynb", counted)
    monkeypatch.setattr(make, "NOTEBOOKS", write_notebooks(tmp_path / "notebooks"))
    make_page("01_explore", tiny, {"data": "x"}, tmp_path / "out" / "page")
    assert begun == [0, 4], "cells begun: a word, the parameters, those given, the code"


def test_a_kernel_knows_where_the_report_is_made(tmp_path, monkeypatch):
    """It works in the folder of the notebooks, which an installed wheel has among packages."""
    monkeypatch.delenv("MMCTR_HOME", raising=False)
    monkeypatch.setattr(files, "SOURCE", None)
    monkeypatch.chdir(tmp_path)
    assert OwnKernel().kernel_spec.env["MMCTR_HOME"] == str(tmp_path)
