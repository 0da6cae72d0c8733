"""Reports of small notebooks; the real ones are run in tests/notebooks."""

import shutil

import nbformat
import pytest

from mmctr.data.dataset import Dataset
from mmctr.report import execution, kernel, pages
from mmctr.report.make import make_report
from mmctr.runs.train import train
from mmctr.training.config import configs

FIGURE = {"data": [{"type": "bar", "x": ["</script><b>"], "y": [1]}], "layout": {}}
SIMPLE = {
    "01_explore": ("data = ''", "print('<script>alert(1)</script>', data)"),
    "02_embeddings": ("data = ''", f"display({{{pages.FIGURE!r}: {FIGURE}}}, raw=True)"),
    "03_train": (
        "data = ''\nstrategy = ''\nseed = 0",
        "import os, sys\nprint('50%|## | 9 samples/s', file=sys.stderr)\n"
        "run = os.path.join(os.environ['MMCTR_HOME'], 'runs', strategy)\n"
        f"display({{{pages.LEDGER!r}: 'of one', 'text/html': 'of one'}}, raw=True)\n"
        f"display({{{pages.RECORD!r}: {{'run': run}}, 'text/plain': 'Recorded: '}}, raw=True)",
    ),
    "04_attention": ("data = ''\nrun = ''", "print('looking at', run)"),
    "05_compare": (
        "data = ''\nreport = ''",
        "print('comparing', report)\n"
        f"display({{{pages.ANSWER!r}: 'v4 <b>wins</b>', 'text/html': 'lab'}}, raw=True)\n"
        f"display({{{pages.LEDGER!r}: 'a <b>half</b>', 'text/html': 'of all runs'}}, raw=True)\n"
        f"display({{{pages.FIGURE!r}: {FIGURE}}}, raw=True)\n"
        f"display({{{pages.CAPTION!r}: 'See <b>this</b>', 'text/html': 'lab'}}, raw=True)",
    ),
    "09_new_items": ("data = ''\nreport = ''", "print('new items of', report)"),
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


@pytest.fixture(scope="session")
def made(tmp_path_factory, tiny_folder):
    """A finished report and the folder that it lies in; do not change them."""
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


@pytest.fixture
def again(made, tiny_folder, tmp_path, monkeypatch):
    """Makes the report of small notebooks again and again, and says which of them ran.

    Without kernels: running a notebook copies it, and 03_train records the strategy's run. One page
    after another.
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
            output = nbformat.v4.new_output("display_data", data={pages.RECORD: run})
            notebook.cells[2].outputs = [output]
        nbformat.write(notebook, path)

    def make(strategies=("v4", "v1"), **changes):
        executed.clear()
        found = make_report(tiny_folder, list(strategies), [1], out, notebooks=notebooks, **changes)
        return found, list(executed)

    monkeypatch.setattr(execution, "execute", execute)
    monkeypatch.setattr(kernel, "at_once", lambda: 1)
    make.notebooks, make.out = notebooks, out
    return make
