"""Reports end to end on small notebooks; the real ones are run in tests/notebooks."""

import json
import shutil
from pathlib import Path

import nbformat
import pytest

from mmctr import report as reports
from mmctr.data.dataset import Dataset
from mmctr.errors import ConfigError, DataError, RunError
from mmctr.report import Report, latest_report, make_report
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
    "05_compare": ("data = ''\nreport = ''", "print('comparing', report)"),
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
