"""Notebooks that fail, die, are killed, or need not run again."""

import contextlib
import json
import os
import re
import shutil
import signal
import sys
from functools import partial
from pathlib import Path

import nbformat
import pytest

from mmctr import cli
from mmctr.report import execution, forked, make, pages, reports
from mmctr.report.kernel import at_once
from mmctr.report.make import make_report
from mmctr.report.reports import Report, latest_report
from tests.forks import PROCESSES
from tests.report.conftest import write_notebooks


def test_a_failing_notebook_leaves_the_others(tmp_path, tiny_folder, monkeypatch):
    monkeypatch.setenv("MMCTR_HOME", str(tmp_path))
    notebooks = write_notebooks(
        tmp_path / "notebooks", **{"03_train": "raise ValueError('<b>no</b> luck')"}
    )
    out = tmp_path / "reports"
    report = make_report(tiny_folder, ["v4"], [1], out, notebooks=notebooks)
    assert [page.name for page in report.failed] == [
        "03_train_v4_seed1",
        "04_attention",
        "05_compare",
        "09_new_items",
    ]
    overview = (out / "index.html").read_text()
    assert "Cell 4: ValueError: &lt;b&gt;no&lt;/b&gt; luck" in overview
    assert "No training finished" in overview
    assert (report.folder / "01_explore.html").exists()
    page = (report.folder / "03_train_v4_seed1.html").read_text()
    assert "This notebook failed" in page
    assert "<b>no</b>" not in page


def test_a_dead_kernel_is_named_with_its_cell_and_papermill_s_notices_are_not_shown(
    tmp_path, tiny_folder
):
    failures = {
        "01_explore": "import os\nos._exit(1)",
        "02_embeddings": "raise OSError('\x1b[31mno')",
    }
    notebooks = write_notebooks(tmp_path / "notebooks", **failures)
    report = make_report(tiny_folder, ["v4"], [1], tmp_path / "reports", notebooks=notebooks)
    dead, raised, train_page = report.pages[:3]
    assert dead.error == "Cell 4: DeadKernelError: Kernel died"
    assert raised.error == "Cell 4: OSError: no"
    assert train_page.status == "failed"
    executed = nbformat.read(report.folder / "notebooks" / "02_embeddings.ipynb", as_version=4)
    assert executed.cells[3].outputs[0].ename == "OSError"
    assert "papermill" not in (report.folder / raised.file).read_text()


def test_a_report_that_is_asked_for_again_runs_nothing(again, capsys):
    first, executed = again()
    assert executed == [page.name for page in first.pages]
    before = (first.folder / "09_new_items.html").read_text()
    capsys.readouterr()
    second, executed = again()
    assert executed == []
    assert second.folder == first.folder
    assert second.runs == first.runs
    assert len(second.load_runs()) == 2
    assert (second.folder / "09_new_items.html").read_text() == before
    told = capsys.readouterr().err
    assert all(f"{page.name}: reused" in told for page in second.pages)


def test_a_killed_report_goes_on_where_it_was(again):
    report, _ = again()
    manifest = report.folder / reports.MANIFEST
    values = json.loads(manifest.read_text())
    for page in values["pages"][3:]:  # as _publish left it after the third page
        page |= {"status": "pending", "inputs": "", "seconds": 0.0}
    values["runs"] = values["runs"][:1]
    manifest.write_text(json.dumps(values))
    resumed, executed = again()
    assert resumed.folder == report.folder
    assert executed == ["03_train_v1_seed1", "04_attention", "05_compare", "09_new_items"]
    assert resumed.runs == report.runs


def test_a_failed_page_is_tried_again(again):
    report, _ = again()
    manifest = report.folder / reports.MANIFEST
    values = json.loads(manifest.read_text())
    values["pages"][1] |= {"status": "failed", "error": "the disk was full"}
    manifest.write_text(json.dumps(values))
    resumed, executed = again()
    assert executed == ["02_embeddings"]
    assert not resumed.failed


def test_only_what_depends_on_a_changed_input_runs(again):
    report, _ = again()
    # A changed notebook: a new report, which takes over the other pages.
    path = again.notebooks / "02_embeddings.ipynb"
    notebook = nbformat.read(path, as_version=4)
    notebook.cells[2].source += "\nprint('changed')"
    nbformat.write(notebook, path)
    changed, executed = again()
    assert changed.folder != report.folder
    assert executed == ["02_embeddings", "05_compare", "09_new_items"]  # those name their report
    assert "changed" in (changed.folder / "02_embeddings.html").read_text()
    assert (changed.folder / "notebooks" / "01_explore.ipynb").exists()
    # Outputs that were saved with a notebook are no change of it.
    notebook.cells[2].outputs = [nbformat.v4.new_output("stream", text="saved")]
    nbformat.write(notebook, path)
    assert again()[1] == []
    # A parameter of training: what trains, and what names the report. (04 looks at the same run.)
    _, executed = again(parameters={"epochs": 2})
    assert executed == ["03_train_v4_seed1", "03_train_v1_seed1", "05_compare", "09_new_items"]
    # Fewer strategies: the runs are there already, but another one is the best.
    worse = min(report.load_runs(), key=lambda run: run.summary["metrics"]["auc"])
    _, executed = again([worse.strategy])
    assert executed == ["04_attention", "05_compare", "09_new_items"]


def test_a_run_that_was_deleted_is_trained_again(again):
    report, _ = again()
    shutil.rmtree(report.load_runs()[1].folder)
    resumed, executed = again()
    assert "03_train_v1_seed1" in executed
    assert "03_train_v4_seed1" not in executed
    # Nothing is trained here, so the page finds no run; the others go on.
    assert [page.name for page in resumed.failed] == ["03_train_v1_seed1"]
    assert "is not a finished run" in resumed.failed[0].error


def test_a_changed_library_runs_everything(again, monkeypatch):
    monkeypatch.setattr(execution, "library_hash", lambda: "changed")
    assert len(again()[1]) == 7


def test_a_home_that_was_moved_keeps_its_reports(tmp_path, tiny_folder, made, monkeypatch):
    """Data, runs, a study and reports in it; what is made anew there uses the new places alone."""
    home, moved = tmp_path / "home", tmp_path / "on another disk" / "new home"
    shutil.copytree(tiny_folder, home / "data" / "mine")
    shutil.copytree(made[1].parent / "runs", home / "runs")
    study = home / "runs" / "search"
    study.mkdir()
    about = {"dataset": {"fingerprint": made[0].dataset["fingerprint"]}}
    (study / "study.json").write_text(json.dumps(about))
    (study / "trials.db").write_text("two trials")
    notebooks = write_notebooks(tmp_path / "notebooks")
    shutil.copy(notebooks / "01_explore.ipynb", notebooks / "07_search.ipynb")
    executed = []

    def execute(page, path, folder):
        executed.append(page.name)
        for name in execution.PLACES & page.parameters.keys():
            assert Path(page.parameters[name]).is_dir(), f"{name} is not there"
        notebook = nbformat.read(folder / f"{page.notebook}.ipynb", as_version=4)
        if page.notebook == "03_train":
            run = Path(page.parameters["data"]).parents[1] / "runs" / page.parameters["strategy"]
            output = nbformat.v4.new_output("display_data", data={pages.RECORD: {"run": str(run)}})
            notebook.cells[2].outputs = [output]
        nbformat.write(notebook, path)

    def make(home):
        executed.clear()
        monkeypatch.setenv("MMCTR_HOME", str(home))
        words = home / "data" / "mine", ["v4", "v1"], [1], home / "reports"
        return make_report(*words, notebooks=notebooks)

    monkeypatch.setattr(execution, "execute", execute)
    first = make(home)
    assert executed and not first.failed
    moved.parent.mkdir()
    home.rename(moved)
    again = make(moved)
    assert executed == []
    assert again.folder == moved / "reports" / first.folder.name
    assert again.run_folders == [moved / "runs" / "v4", moved / "runs" / "v1"]
    for path in (again.index, moved / "reports" / "index.html"):
        links = re.findall(r'(?:href|src)="([^"#]+)"', path.read_text())
        assert len(links) > len(again.pages)
        assert all((path.parent / link).exists() for link in links), links
    # What is made there later finds data, runs and the report where they are now.
    for page in again.pages:
        page.status = "failed"
    again.save()
    (moved / "runs" / "search" / "trials.db").write_text("three trials")
    assert not make(moved).failed
    assert sorted(executed) == sorted(page.name for page in first.pages)


# Waits at its tenth step, after a validation, until the file "go" is there.
TRAIN = f"""
import os, signal
from pathlib import Path
from mmctr.data.dataset import Dataset
from mmctr.runs.train import train
from mmctr.training import trainer
from mmctr.training.config import configs
home = Path(os.environ["MMCTR_HOME"])
real, steps = trainer.update, iter(range(1, 1000))
def update(*arguments):
    if next(steps) == 10 and not (home / "go").exists():
        (home / "waiting").write_text(str(os.getpid()))
        signal.pause()
    return real(*arguments)
trainer.update = update
small = configs(seed=seed, epochs=1, hidden=(8,), batch_size=128)
run = train(Dataset.load(data), strategy, *small, home / "runs")
display({{{pages.RECORD!r}: {{"run": str(run.folder)}}, "text/plain": "Recorded: "}}, raw=True)
"""


WAIT = """
import os, time
from pathlib import Path
(Path(os.environ["MMCTR_HOME"]) / f"began-{os.getpid()}").touch()
time.sleep(600)
"""


def hear(words, notebooks, told):
    """Be `mmctr`, on the small notebooks, with a home and a standard error below the folder."""
    os.dup2(os.open(told, os.O_WRONLY | os.O_CREAT), 2)
    # A shell's background job, and what it starts, would not hear Ctrl-C.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    os.environ["MMCTR_HOME"] = str(told.parent)
    make.make_report = partial(make_report, notebooks=notebooks)
    forked.SERVE = "from mmctr.report.forked import serve; serve(())"  # these pages wait
    sys.argv = ["mmctr", *words]
    cli.main()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_ctrl_c_ends_the_pages_that_are_made_and_begins_no_other(tiny_folder, tmp_path, number):
    waiting = dict.fromkeys(("01_explore", "02_embeddings", "03_train"), WAIT)
    notebooks = write_notebooks(tmp_path / "notebooks", **waiting)
    words = ["report", "--data", str(tiny_folder), "--strategies", "v1", "--seeds", "1"]
    place = tmp_path / "told"
    process = PROCESSES.Process(target=hear, args=(words, notebooks, place))
    process.start()
    try:
        while len(list(tmp_path.glob("began-*"))) < at_once() and process.is_alive():
            process.join(0.05)
        os.kill(process.pid, number)
        process.join(120)
    finally:
        process.kill()
        process.join()
    told = place.read_text()
    assert process.exitcode == 1
    assert "Traceback" not in told
    folder = latest_report(tmp_path / "reports")
    *_, last = told.splitlines()
    kept = f"mmctr: The report was stopped and {folder} keeps what is finished, 0 of 6 pages: "
    assert last == f"{kept}go on with the same command."
    began = [int(path.name.partition("-")[2]) for path in tmp_path.glob("began-*")]
    assert len(began) == at_once()
    for kernel in began:
        with pytest.raises(ProcessLookupError):
            os.kill(kernel, 0)
    report = Report.load(folder)
    assert {page.status for page in report.pages} == {"pending"}
    assert [path.name for path in folder.glob("*.html")] == ["index.html"], "no page says failed"


def make_here(data, notebooks, out, pipe):
    """Make a report whose home is the folder above; send what failed."""
    os.environ["MMCTR_HOME"] = str(out.parent)
    report = make_report(data, ["v1"], [1], out, notebooks=notebooks)
    pipe.send([page.error for page in report.failed])


def test_a_report_killed_in_training_goes_on_there(tiny_folder, tmp_path):
    """With kill -9, to it and to its kernel."""
    first = "open(__import__('os').environ['MMCTR_HOME'] + '/first', 'a').write('x')"
    notebooks = write_notebooks(tmp_path / "notebooks", **{"01_explore": first, "03_train": TRAIN})
    ours, theirs = PROCESSES.Pipe()
    arguments = tiny_folder, notebooks, tmp_path / "reports", theirs
    process = PROCESSES.Process(target=make_here, args=arguments)
    process.start()
    try:
        while not (tmp_path / "waiting").exists() and process.is_alive():
            process.join(0.05)
    finally:
        process.kill()
        process.join()
    kernel = int((tmp_path / "waiting").read_text())
    with contextlib.suppress(ProcessLookupError):
        os.kill(kernel, signal.SIGKILL)
    (left,) = (tmp_path / "runs").iterdir()
    assert left.name.endswith("-unfinished")
    (tmp_path / "go").touch()
    process = PROCESSES.Process(target=make_here, args=arguments)
    process.start()
    theirs.close()
    assert ours.recv() == []
    process.join()
    assert process.exitcode == 0
    assert (tmp_path / "first").read_text() == "x", "a finished notebook is not run again"
    (run,) = (tmp_path / "runs").iterdir()  # the one left was gone on with
    folder = latest_report(tmp_path / "reports")
    assert [one.folder for one in Report.load(folder).load_runs()] == [run]
    assert not list(folder.glob(".lock"))
