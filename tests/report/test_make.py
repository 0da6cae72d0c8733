"""Reports end to end on small notebooks; the real ones are run in tests/notebooks."""

import contextlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest
from typer.testing import CliRunner

from mmctr.cli import app
from mmctr.data.dataset import Dataset
from mmctr.errors import ConfigError, DataError, MMCTRError, RunError
from mmctr.files import alone
from mmctr.report import make as reports
from mmctr.report.make import Report, latest_report, make_report, write_single_file
from mmctr.training.trainer import configs, train

FIGURE = {"data": [{"type": "bar", "x": ["</script><b>"], "y": [1]}], "layout": {}}
SIMPLE = {
    "01_explore": ("data = ''", "print('<script>alert(1)</script>', data)"),
    "02_embeddings": ("data = ''", f"display({{{reports.FIGURE!r}: {FIGURE}}}, raw=True)"),
    "03_train": (
        "data = ''\nstrategy = ''\nseed = 0",
        "import os, sys\nprint('50%|## | 9 samples/s', file=sys.stderr)\n"
        "run = os.path.join(os.environ['MMCTR_HOME'], 'runs', strategy)\n"
        f"display({{{reports.RECORD!r}: {{'run': run}}, 'text/plain': 'Recorded: '}}, raw=True)",
    ),
    "04_attention": ("data = ''\nrun = ''", "print('looking at', run)"),
    "05_compare": (
        "data = ''\nreport = ''",
        "print('comparing', report)\n"
        f"display({{{reports.ANSWER!r}: 'v4 <b>wins</b>', 'text/html': 'lab'}}, raw=True)\n"
        f"display({{{reports.FIGURE!r}: {FIGURE}}}, raw=True)\n"
        f"display({{{reports.CAPTION!r}: 'See <b>this</b>', 'text/html': 'lab'}}, raw=True)",
    ),
}


def write_notebooks(folder, **changes):
    """Small notebooks that stand for the real ones; `changes` replace the second cell."""
    folder.mkdir()
    for name, (parameters, code) in SIMPLE.items():
        notebook = nbformat.v4.new_notebook()
        kernel = {"name": "python3", "language": "python", "display_name": "Python 3"}
        notebook.metadata = {"kernelspec": kernel}
        notebook.cells = [
            nbformat.v4.new_markdown_cell(
                f"# {name}\nYou will learn.\n\n**Next:** [02](02_embeddings.ipynb)\n## Part & more"
            ),
            nbformat.v4.new_code_cell(parameters, metadata={"tags": ["parameters"]}),
            nbformat.v4.new_code_cell(changes.get(name, code)),
        ]
        nbformat.write(notebook, folder / f"{name}.ipynb")
    return folder


@pytest.fixture(scope="module")
def made(tmp_path_factory, tiny_folder):
    """A finished report and the folder that it lies in."""
    home = tmp_path_factory.mktemp("home")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MMCTR_HOME", str(home))
        for strategy in ("v1", "v4"):
            small = configs(epochs=1, embedding_dim=4, heads=1, hidden=(8,))
            run = train(Dataset.load(tiny_folder), strategy, *small, home / "runs")
            run.folder.rename(home / "runs" / strategy)
        notebooks = write_notebooks(home / "notebooks")
        report = make_report(tiny_folder, ["v4", "v1"], [1], home / "reports", notebooks=notebooks)
    return report, home / "reports"


def test_pages_run_in_order_with_their_parameters(made, tiny_folder):
    report, _ = made
    assert [page.name for page in report.pages] == [
        "01_explore",
        "02_embeddings",
        "03_train_v4_seed1",
        "03_train_v1_seed1",
        "04_attention",
        "05_compare",
    ]
    assert not report.failed
    assert {run.strategy for run in report.load_runs()} == {"v4", "v1"}
    best = max(report.load_runs(), key=lambda run: run.summary["metrics"]["auc"])
    assert f"looking at {best.folder}" in (report.folder / "04_attention.html").read_text()
    assert f"comparing {report.folder}" in (report.folder / "05_compare.html").read_text()
    assert str(tiny_folder) in (report.folder / "01_explore.html").read_text()


def test_manifest_reads_back_and_is_the_latest(made):
    report, out = made
    again = Report.load(report.folder)
    assert again.pages == report.pages
    assert again.runs == report.runs
    assert not any(Path(run).is_absolute() for run in again.runs)
    assert latest_report(out) == out / report.folder.name


def test_index_shows_results_dataset_and_that_it_is_simulated(made):
    report, out = made
    for index, prefix in ((out / "index.html", f"{report.folder.name}/"), (report.index, "")):
        text = index.read_text()
        for run in report.load_runs():
            assert f"{run.summary['metrics']['auc']:.4f}" in text
            assert f'href="{prefix}03_train_{run.strategy}_seed1.html"' in text
        assert "Simulated demo data" in text
        assert report.dataset["fingerprint"] in text
        assert report.provenance["versions"]["torch"] in text
        assert "oracle" in text


def test_every_link_of_every_page_leads_somewhere(made):
    report, out = made
    pages = [out / "index.html", *report.folder.glob("*.html")]
    for page in pages:
        text = page.read_text()
        links = [part.split('"')[0] for part in text.replace("src=", "href=").split('href="')[1:]]
        for link in links:
            if link.startswith("#"):
                assert f'id="{link[1:]}"' in text, link
            else:
                assert (page.parent / link).exists(), f"{page.name} links {link}"


def test_untrusted_text_is_shown_as_text(made):
    report, _ = made
    assert "<script>alert(1)" not in (report.folder / "01_explore.html").read_text()
    assert "&lt;script&gt;alert(1)" in (report.folder / "01_explore.html").read_text()
    figure = (report.folder / "02_embeddings.html").read_text()
    assert "</script><b>" not in figure
    assert "\\u003c/script>\\u003cb>" in figure


def test_a_page_begins_with_its_answer_and_so_does_the_index(made):
    report, out = made
    text = (report.folder / "05_compare.html").read_text()
    answer = '<p class="answer">v4 &lt;b&gt;wins&lt;/b&gt;</p>'
    assert answer in text.split("</h1>")[1].split("<p>")[0]
    assert ">lab<" not in text, "what JupyterLab shows instead stays out of pages"
    assert answer in (out / "index.html").read_text()
    assert Report.load(report.folder).answer == "v4 <b>wins</b>"


def test_a_caption_belongs_to_its_figure(made):
    report, _ = made
    text = (report.folder / "05_compare.html").read_text()
    figure = text.split('<figure class="drawing">')[1].split("</figure>")[0]
    assert "plotly-figure" in figure
    assert "<figcaption>See &lt;b&gt;this&lt;/b&gt;</figcaption>" in figure


def test_a_single_file_holds_all_pages_and_needs_no_other(made, tmp_path):
    report, _ = made
    written = write_single_file(report)
    assert written.parent == report.folder
    text = written.read_text()
    written.unlink()  # the other tests look at pages
    assert text.count("plotly.js v") == 1
    assert '<script src="' not in text
    for page in report.pages:
        assert text.count(f'<article id="{page.name}">') == 1
    links = set(
        re.findall(r'href="([^"]*)"', re.sub(r"<script>.*?</script>", "", text, flags=re.S))
    )
    assert {"#index", "#02_embeddings", "#03_train_v4_seed1"} <= links
    assert all(link.startswith("#") for link in links), links
    assert all(f'id="{link[1:]}"' in text for link in links), links


def test_plotly_is_stored_once_and_pages_need_no_network(made):
    report, out = made
    assert (out / "assets" / "plotly.min.js").stat().st_size > 1e6
    for page in report.folder.glob("*.html"):
        text = page.read_text()
        assert len(text) < 1e5, "something large was put into the page"
        assert "http://" not in text.replace("http://www.w3.org", "")
        assert "https://" not in text


def test_progress_bars_and_records_stay_out_of_pages(made):
    report, _ = made
    text = (report.folder / "03_train_v4_seed1.html").read_text()
    assert '<pre class="text">' not in text, "it shows neither bar nor record"


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
    ]
    index = (out / "index.html").read_text()
    assert "Cell 4: ValueError: &lt;b&gt;no&lt;/b&gt; luck" in index
    assert "No training finished" in index
    assert (report.folder / "01_explore.html").exists()
    page = (report.folder / "03_train_v4_seed1.html").read_text()
    assert "This notebook failed" in page
    assert "<b>no</b>" not in page


@pytest.mark.parametrize(
    ("strategies", "seeds", "parameters", "message"),
    [
        (["v4", "v9"], [1], {}, "Strategy 'v9' is unknown"),
        (["v4"], [-1], {}, "Parameter 'seed' is -1"),
        (["v4"], [1], {"heads": 0}, "Parameter 'heads' is 0"),
    ],
)
def test_wrong_parameters_stop_before_anything_runs(
    tmp_path, tiny_folder, strategies, seeds, parameters, message
):
    with pytest.raises(ConfigError, match=message):
        make_report(tiny_folder, strategies, seeds, tmp_path / "out", parameters=parameters)
    assert not (tmp_path / "out").exists()


def test_a_folder_without_data_is_refused(tmp_path):
    with pytest.raises(DataError, match=r"has neither item_info\.parquet nor"):
        make_report(tmp_path, ["v4"], [1], tmp_path / "out")


@pytest.mark.parametrize("text", [None, "{", "[]", '{"pages": [{"name": 1}]}'])
def test_a_damaged_manifest_is_one_sentence(tmp_path, text):
    if text is not None:
        (tmp_path / reports.MANIFEST).write_text(text)
    with pytest.raises(RunError, match="is not a report"):
        Report.load(tmp_path)
    assert latest_report(tmp_path.parent) is None


def test_index_lives_on_when_earlier_runs_were_deleted(made, tmp_path):
    report, out = made
    copy = tmp_path / "reports"
    shutil.copytree(out, copy)
    manifest = copy / report.folder.name / reports.MANIFEST
    values = json.loads(manifest.read_text())
    older = copy / "older"
    older.mkdir()
    gone = {"date": "2020-01-01T00:00:00+00:00", "runs": ["../../runs/gone"]}
    (older / reports.MANIFEST).write_text(json.dumps(values | gone))
    current = Report.load(copy / report.folder.name)
    current.runs = []
    reports._publish(current, copy)
    assert 'href="older/index.html"' in (copy / "index.html").read_text()


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


def test_names_that_links_cannot_hold_are_mended_and_doubles_dropped(tmp_path, tiny_folder):
    data = tmp_path / "100% #1"
    shutil.copytree(tiny_folder, data)
    notebooks = write_notebooks(tmp_path / "notebooks", **{"03_train": "display(1)"})
    report = make_report(data, ["v1", "v1"], [1, 1], tmp_path / "reports", notebooks=notebooks)
    assert report.folder.name.startswith("100-1-")
    assert report.dataset["name"] == "100% #1"
    assert len(report.pages) == 5
    assert "recorded no run" in report.failed[0].error


@pytest.fixture
def again(made, tiny_folder, tmp_path, monkeypatch):
    """Makes the report of small notebooks again and again, and says which of them ran.

    Without kernels: running a notebook copies it, and 03_train records the strategy's run.
    """
    runs, out = tmp_path / "runs", tmp_path / "out"
    notebooks = write_notebooks(tmp_path / "notebooks")
    shutil.copytree(made[1].parent / "runs", runs)
    executed = []

    def execute(page, path, folder):
        executed.append(page.name)
        notebook = nbformat.read(folder / f"{page.notebook}.ipynb", as_version=4)
        if page.notebook == "03_train":
            run = {"run": str(runs / page.parameters["strategy"])}
            output = nbformat.v4.new_output("display_data", data={reports.RECORD: run})
            notebook.cells[2].outputs = [output]
        nbformat.write(notebook, path)

    def make(strategies=("v4", "v1"), **changes):
        executed.clear()
        found = make_report(tiny_folder, list(strategies), [1], out, notebooks=notebooks, **changes)
        return found, list(executed)

    monkeypatch.setattr(reports, "_execute", execute)
    make.notebooks, make.out = notebooks, out
    return make


def test_a_report_that_is_asked_for_again_runs_nothing(again, capsys):
    first, executed = again()
    assert executed == [page.name for page in first.pages]
    before = (first.folder / "05_compare.html").read_text()
    capsys.readouterr()
    second, executed = again()
    assert executed == []
    assert second.folder == first.folder
    assert second.runs == first.runs
    assert len(second.load_runs()) == 2
    assert (second.folder / "05_compare.html").read_text() == before
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
    assert executed == ["03_train_v1_seed1", "04_attention", "05_compare"]
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
    assert executed == ["02_embeddings", "05_compare"]  # that one names its report
    assert "changed" in (changed.folder / "02_embeddings.html").read_text()
    assert (changed.folder / "notebooks" / "01_explore.ipynb").exists()
    # Outputs that were saved with a notebook are no change of it.
    notebook.cells[2].outputs = [nbformat.v4.new_output("stream", text="saved")]
    nbformat.write(notebook, path)
    assert again()[1] == []
    # A parameter of training: what trains, and what names the report. (04 looks at the same run.)
    _, executed = again(parameters={"epochs": 2})
    assert executed == ["03_train_v4_seed1", "03_train_v1_seed1", "05_compare"]
    # Fewer strategies: the runs are there already, but another one is the best.
    worse = min(report.load_runs(), key=lambda run: run.summary["metrics"]["auc"])
    _, executed = again([worse.strategy])
    assert executed == ["04_attention", "05_compare"]


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
    monkeypatch.setattr(reports, "_library", lambda: "changed")
    assert len(again()[1]) == 6


def test_two_processes_do_not_make_the_same_report(again):
    report, _ = again()
    with (
        alone(report.folder),
        pytest.raises(MMCTRError, match="is being made by another process"),
    ):
        again()
    assert again()[1] == []


def test_the_index_compares_reports_over_time(again):
    first, _ = again()
    second, _ = again(["v4"])
    text = (again.out / "index.html").read_text()
    assert "Reports over time" in text
    for report in (first, second):
        assert f'href="{report.folder.name}/index.html"' in text
    lines = {
        line.split("</td>")[0].rsplit(">", 1)[-1]: line
        for line in text.split("AUC by run")[1].split("</table>")[0].split("<tr>")[1:]
    }
    assert set(lines) == {"v1", "v4"}
    for run in first.load_runs():
        assert f"{run.summary['metrics']['auc']:.4f}" in lines[run.strategy]
        assert lines[run.strategy].count("<circle") == 1, "a run is shown once, however often used"
    assert "Reports over time" not in (second.folder / "index.html").read_text()


def test_sparkline_rises_with_its_values_and_stays_inside():
    points = reports._sparkline([0.5, 0.7, 0.6], 0.4, 0.7)
    assert [x for x, _ in points] == [5, 80, 155]
    heights = [y for _, y in points]
    assert heights[1] < heights[2] < heights[0]
    assert all(0 < y < 28 for y in heights)
    assert reports._sparkline([0.5], 0.5, 0.5) == [(5, 25)]


def test_the_command_writes_the_single_file_if_asked(made, tiny_folder, monkeypatch):
    report, _ = made
    monkeypatch.setattr(reports, "make_report", lambda *values, **options: report)
    for words, written in ((["--single-file"], True), ([], False)):
        result = CliRunner().invoke(app, ["report", "--data", str(tiny_folder), *words])
        single = report.folder / f"{report.folder.name}.html"
        assert (str(single) in result.stdout.splitlines()) == written == single.exists()
        assert result.stdout.splitlines()[-1] == str(report.index)
        single.unlink(missing_ok=True)


KILLED = """
import sys
from pathlib import Path
from mmctr.report.make import make_report
data, notebooks, out = map(Path, sys.argv[1:])
report = make_report(data, ["v1"], [1], out, notebooks=notebooks)
print(*[page.error for page in report.failed], sep="")
"""
# Waits at its tenth step, after a validation, until the file "go" is there.
TRAIN = f"""
import os, signal
from pathlib import Path
from mmctr.data.dataset import Dataset
from mmctr.training import trainer
home = Path(os.environ["MMCTR_HOME"])
real, steps = trainer.update, iter(range(1, 1000))
def update(*arguments):
    if next(steps) == 10 and not (home / "go").exists():
        (home / "waiting").write_text(str(os.getpid()))
        signal.pause()
    return real(*arguments)
trainer.update = update
small = trainer.configs(seed=seed, epochs=1, hidden=(8,), batch_size=128)
run = trainer.train(Dataset.load(data), strategy, *small, home / "runs")
display({{{reports.RECORD!r}: {{"run": str(run.folder)}}, "text/plain": "Recorded: "}}, raw=True)
"""


def test_a_report_killed_in_training_goes_on_there(tiny_folder, tmp_path):
    """With kill -9, to it and to its kernel."""
    first = "open(__import__('os').environ['MMCTR_HOME'] + '/first', 'a').write('x')"
    notebooks = write_notebooks(tmp_path / "notebooks", **{"01_explore": first, "03_train": TRAIN})
    command = [sys.executable, "-c", KILLED, tiny_folder, notebooks, tmp_path / "reports"]
    options = {
        "env": dict(os.environ, MMCTR_HOME=str(tmp_path)),
        "stdout": subprocess.PIPE,
        "stderr": subprocess.PIPE,
        "text": True,
    }
    command = [str(word) for word in command]
    with subprocess.Popen(command, **options) as process:
        try:
            while not (tmp_path / "waiting").exists() and process.poll() is None:
                with contextlib.suppress(subprocess.TimeoutExpired):
                    process.wait(0.05)
        finally:
            process.kill()
        kernel = int((tmp_path / "waiting").read_text())
        with contextlib.suppress(ProcessLookupError):
            os.kill(kernel, signal.SIGKILL)
    (left,) = (tmp_path / "runs").iterdir()
    assert left.name.endswith("-unfinished")
    (tmp_path / "go").touch()
    done = subprocess.run(command, **options)
    assert (done.returncode, done.stdout.strip()) == (0, ""), done.stderr
    assert (tmp_path / "first").read_text() == "x", "a finished notebook is not run again"
    (run,) = (tmp_path / "runs").iterdir()  # the one left was gone on with
    folder = latest_report(tmp_path / "reports")
    assert [one.folder for one in Report.load(folder).load_runs()] == [run]
    assert not list(folder.glob(".lock"))
