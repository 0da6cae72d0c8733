"""Every notebook runs headlessly through papermill, on its own and with parameters."""

from pathlib import Path

import nbformat
import papermill
import pytest
from papermill.exceptions import PapermillExecutionError

from mmctr.fusion import STRATEGIES
from mmctr.report import FIGURE, recorded
from mmctr.training.checkpoint import Run
from mmctr.training.metrics import auc

FOLDER = Path(__file__).parents[2] / "notebooks"


@pytest.fixture(scope="module")
def workplace(tmp_path_factory):
    """An empty home for runs and reports, and a current directory that has nothing of ours."""
    folder = tmp_path_factory.mktemp("home")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MMCTR_HOME", str(folder))
        yield folder


def execute(name, workplace, **parameters):
    """Run a notebook from the workplace and return it with what it recorded."""
    out = workplace / f"{name}.ipynb"
    notebook = papermill.execute_notebook(
        FOLDER / f"{name}.ipynb", out, parameters, progress_bar=False, cwd=workplace
    )
    return notebook, recorded(notebook)


def figures(notebook):
    """How many plotly figures a notebook shows."""
    return sum(
        FIGURE in output.get("data", {})
        for cell in notebook.cells
        for output in cell.get("outputs", [])
    )


def of_report(report, page):
    """A page's executed notebook and what it recorded."""
    notebook = nbformat.read(report.folder / "notebooks" / f"{page}.ipynb", as_version=4)
    return notebook, recorded(notebook)


def test_all_five_run_in_a_report(tiny_report):
    # 07_search needs a study, and has its tests in tests/test_search.py.
    assert {page.notebook for page in tiny_report.pages} | {"07_search"} == {
        path.stem for path in FOLDER.glob("*.ipynb")
    }
    assert not tiny_report.failed, tiny_report.failed


def test_explore(tiny_report, tiny):
    notebook, values = of_report(tiny_report, "01_explore")
    assert values["rows"] == len(tiny.train)
    assert values["items"] == tiny.catalog.n_items
    assert values["click_rate"] == pytest.approx(tiny.train.label.mean(), abs=1e-4)
    assert figures(notebook) == 5


def test_embeddings(tiny_report):
    notebook, values = of_report(tiny_report, "02_embeddings")
    assert set(values["co_click_auc"]) == set(STRATEGIES)
    assert all(0.4 < value < 1 for value in values["co_click_auc"].values())
    assert figures(notebook) == 3


@pytest.mark.parametrize("strategy", ["v1", "v4"])
def test_train(tiny_report, tiny, strategy):
    notebook, values = of_report(tiny_report, f"03_train_{strategy}_seed1")
    run = Run.load(values["run"])
    assert (run.strategy, run.seed) == (strategy, 1)
    assert run.config["model"]["heads"] == 2, "a parameter reaches the model"
    expected = auc(tiny.valid.label, run.predictions["probability"].to_numpy())
    assert values["auc"] == pytest.approx(expected, abs=1e-5)
    assert figures(notebook) == 5


def test_attention(tiny_report):
    notebook, values = of_report(tiny_report, "04_attention")
    runs = tiny_report.load_runs()
    best = max(runs, key=lambda run: run.summary["metrics"]["auc"])
    assert values["run"] == best.name
    assert figures(notebook) == 7


def test_compare(tiny_report):
    notebook, values = of_report(tiny_report, "05_compare")
    expected = {run.strategy: run.summary["metrics"]["auc"] for run in tiny_report.load_runs()}
    assert values["auc"] == pytest.approx(expected)
    assert values["best"] == max(expected, key=expected.get)
    assert figures(notebook) == 4


def test_train_without_senet_then_attention_takes_that_run(workplace, tiny_folder):
    switches = {"senet": False, "attention": "mlp", "bilinear": "off", "cross_layers": 0}
    sizes = {"epochs": 1, "embedding_dim": 8, "heads": 1}
    _, values = execute("03_train", workplace, data=str(tiny_folder), **switches, **sizes)
    run = Path(values["run"])
    assert run.parent == workplace / "runs"
    notebook, values = execute("04_attention", workplace, data=str(tiny_folder))
    assert values["run"] == run.name
    assert "trained without SENet" in str(notebook)


def test_compare_trains_quick_runs_if_there_is_no_report(workplace, tiny_folder):
    notebook, values = execute("05_compare", workplace, data=str(tiny_folder))
    assert set(values["auc"]) == set(STRATEGIES)
    assert "for one epoch" in str(notebook)
    assert len(list((workplace / "runs").iterdir())) >= 2 * len(STRATEGIES)


@pytest.mark.parametrize(
    ("name", "parameters", "sentence"),
    [
        ("03_train", {"strategy": "v9"}, "Strategy 'v9' is unknown: choose one of v1, v2, v3, v4"),
        ("04_attention", {"run": "runs/none"}, "is not a finished run"),
    ],
)
def test_a_wrong_parameter_fails_with_one_sentence(
    workplace, tiny_folder, name, parameters, sentence
):
    with pytest.raises(PapermillExecutionError) as failure:
        execute(name, workplace, data=str(tiny_folder), **parameters)
    assert sentence in failure.value.evalue
    assert failure.value.traceback == [f"{failure.value.ename}: {failure.value.evalue}"]
