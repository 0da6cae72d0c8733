"""Notebooks executed by papermill, and taken over where nothing changed that they depend on."""

import json
import logging
import re
import shutil
from hashlib import sha256
from pathlib import Path
from typing import Any

from mmctr.errors import MMCTRError, RunError
from mmctr.files import LIBRARY
from mmctr.report.pages import RECORD
from mmctr.report.reports import Page, Report, all_reports
from mmctr.runs.run import Run

# What papermill says of a kernel that was ended would tear the progress bar; the page says it.
logging.getLogger("papermill").addHandler(logging.NullHandler())
PLACES = {"data", "report", "run", "study"}  # parameters of notebooks that name a folder


def recorded(notebook: dict[str, Any]) -> dict[str, Any]:
    """The values that an executed notebook recorded (mmctr.report.notebook.record)."""
    values: dict[str, Any] = {}
    for cell in notebook["cells"]:
        for output in cell.get("outputs", []):
            values |= output.get("data", {}).get(RECORD, {})
    return values


def without_places(parameters: dict[str, Any]) -> dict[str, Any]:
    """What a page depends on of its parameters: of data, runs and reports the name, not the place.

    What they hold is counted among the inputs beside them.
    """
    places = {name: Path(parameters[name]).name for name in PLACES & parameters.keys()}
    return parameters | places


def reuse(page: Page, inputs: str, report: Report, out: Path) -> bool:
    """Take a page over from the report's own folder or an earlier one, if its inputs are these."""
    candidates = [(report, page)] + [(other, p) for other in all_reports(out) for p in other.pages]
    for other, found in candidates:
        executed = other.executed(found)
        if found.inputs != inputs or found.status != "ok" or not executed.exists():
            continue
        try:
            if page.notebook == "03_train":
                page.run = report.relative(Run.load((other.folder / found.run).resolve()))
        except MMCTRError:
            continue  # the run was deleted since
        if executed != report.executed(page):
            shutil.copyfile(executed, report.executed(page))
        page.seconds, page.answer, page.error, page.inputs = found.seconds, found.answer, "", inputs
        page.ledger = found.ledger
        return True
    return False


def execute(page: Page, executed: Path, notebooks: Path) -> None:
    from papermill import execute_notebook

    from mmctr.report.kernel import OwnKernel, WritesAtTheEnd

    execute_notebook(
        notebooks / f"{page.notebook}.ipynb",
        executed,
        page.parameters,
        engine_name=WritesAtTheEnd.name,
        kernel_name="python3",
        kernel_manager_class=OwnKernel,
        progress_bar=False,
        # papermill's own cwd would be that of the whole process, in which other pages are made.
        resources={"metadata": {"path": str(notebooks)}},
        # The kernel's own remarks would tear the progress bar: on its start, and on its end, before
        # which it is interrupted.
        extra_arguments=["--log-level=CRITICAL"],
    )


def reason_of(error: Exception, executed: Path) -> str:
    """Why a notebook failed: the cell, the error and its message."""
    from papermill.exceptions import PapermillExecutionError

    if isinstance(error, PapermillExecutionError):
        message = f"Cell {error.cell_index + 1}: {error.ename}: {error.evalue}"
        return re.sub(r"\x1b\[[\d;]*[A-Za-z]", "", message)
    return f"{_last_begun(executed)}{type(error).__name__}: {error}"


def hash_of(*parts: Any) -> str:
    return sha256(json.dumps(parts, sort_keys=True, default=str).encode()).hexdigest()[:16]


def library_hash() -> str:
    """A hash of the library's source; templates decide how a page looks, not what it says."""
    paths = [path for kind in ("*.py", "*.js", "*.css") for path in sorted(LIBRARY.rglob(kind))]
    paths = [path for path in paths if path.parent.name != "templates"]
    return hash_of(*(path.read_text(encoding="utf-8") for path in paths))


def source_of(notebook: Path) -> list[str]:
    """What a notebook's cells say, whatever outputs were saved with them."""
    cells = json.loads(notebook.read_text(encoding="utf-8"))["cells"]
    return ["".join(cell["source"]) for cell in cells]


def recorded_run(executed: Path) -> Run:
    """The run that an executed notebook recorded; RunError if there is none, or it is damaged."""
    values = recorded(json.loads(executed.read_text(encoding="utf-8")))
    if "run" not in values:
        raise RunError("The notebook finished, but recorded no run: notebook.record(run=...).")
    return Run.load(values["run"])


def _last_begun(executed: Path) -> str:
    """The cell that ran when a notebook was cut off, as "Cell 5: "; empty if none had begun."""
    cells = json.loads(executed.read_text(encoding="utf-8"))["cells"] if executed.exists() else []
    begun = [cell["metadata"].get("papermill", {}).get("start_time") is not None for cell in cells]
    return f"Cell {sum(begun)}: " if any(begun) else ""
