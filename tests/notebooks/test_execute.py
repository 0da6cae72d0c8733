"""Every notebook runs headlessly through papermill, on its own and with parameters."""

import math
import os
from pathlib import Path

import nbformat
import papermill
import pytest
from papermill.exceptions import PapermillExecutionError

from mmctr.notebook import RECORD

FOLDER = Path(__file__).parents[2] / "notebooks"
QUICK = {"epochs": 1, "embedding_dim": 8, "heads": 2}


@pytest.fixture(scope="module")
def workplace(tmp_path_factory):
    """An empty home for runs and reports, and a current directory that has nothing of ours."""
    folder = tmp_path_factory.mktemp("home")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MMCTR_HOME", str(folder))
        patch.setenv("OMP_NUM_THREADS", str(os.cpu_count()))
        yield folder


def execute(name, workplace, **parameters):
    """Run a notebook from the workplace and return it with what it recorded."""
    out = workplace / f"{name}.ipynb"
    papermill.execute_notebook(
        FOLDER / f"{name}.ipynb", out, parameters, progress_bar=False, cwd=workplace
    )
    notebook = nbformat.read(out, as_version=4)
    recorded = {}
    for cell in notebook.cells:
        for output in cell.get("outputs", []):
            recorded |= output.get("data", {}).get(RECORD, {})
    return notebook, recorded


def figures(notebook):
    """How many plotly figures a notebook shows."""
    return sum(
        "application/vnd.plotly.v1+json" in output.get("data", {})
        for cell in notebook.cells
        for output in cell.get("outputs", [])
    )


def test_explore(workplace, tiny_folder, tiny):
    notebook, recorded = execute("01_explore", workplace, data=str(tiny_folder))
    assert recorded["rows"] == len(tiny.train)
    assert recorded["items"] == tiny.catalog.n_items
    assert recorded["click_rate"] == pytest.approx(tiny.train.label.mean(), abs=1e-4)
    assert figures(notebook) == 5


def test_embeddings(workplace, tiny_folder):
    notebook, recorded = execute("02_embeddings", workplace, data=str(tiny_folder), map_items=120)
    assert set(recorded["co_click_auc"]) == {"v1", "v2", "v3", "v4"}
    assert all(0.4 < value < 1 for value in recorded["co_click_auc"].values())
    assert figures(notebook) == 3


def test_train_then_attention(workplace, tiny_folder):
    notebook, recorded = execute(
        "03_train", workplace, data=str(tiny_folder), strategy="v1", seed=3, senet=False, **QUICK
    )
    run = Path(recorded["run"])
    assert run.parent == workplace / "runs"
    assert run.name.startswith(f"{tiny_folder.name}-v1-seed3-")
    assert 0 < recorded["auc"] < 1
    assert math.isfinite(recorded["logloss"])
    assert figures(notebook) == 4
    # Without a run named, 04 takes the one just made; it has no SENet, which 04 says.
    notebook, recorded = execute("04_attention", workplace, data=str(tiny_folder))
    assert recorded["run"] == run.name
    assert "trained without SENet" in str(notebook)


def test_attention_trains_a_quick_run_if_there_is_none(workplace, tiny_folder, monkeypatch):
    monkeypatch.setenv("MMCTR_HOME", str(workplace / "elsewhere"))
    notebook, recorded = execute("04_attention", workplace, data=str(tiny_folder))
    assert "training v4, seed 1, for one epoch" in str(notebook)
    assert (workplace / "elsewhere" / "runs" / recorded["run"]).is_dir()
    assert figures(notebook) >= 5


def test_compare_trains_quick_runs_if_there_is_no_report(workplace, tiny_folder):
    notebook, recorded = execute("05_compare", workplace, data=str(tiny_folder))
    assert set(recorded["auc"]) == {"v1", "v2", "v3", "v4"}
    assert recorded["best"] == max(recorded["auc"], key=recorded["auc"].get)
    assert figures(notebook) == 3


@pytest.mark.parametrize(
    ("name", "parameters", "sentence"),
    [
        ("03_train", {"strategy": "v9"}, "Strategy 'v9' is unknown: choose one of v1, v2, v3, v4"),
        ("03_train", {"bilinear": "some"}, "expected one of 'all', 'each', 'interaction', 'off'"),
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
