"""Every notebook runs headlessly through papermill, on its own and with parameters."""

import shutil
from pathlib import Path

import nbformat
import numpy as np
import papermill
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from papermill.exceptions import PapermillExecutionError

from mmctr.content.errors import clean
from mmctr.content.strategies import FROM_CLICKS, STRATEGIES
from mmctr.data.dataset import Dataset
from mmctr.errors import RunError
from mmctr.report.execution import recorded
from mmctr.report.kernel import OwnKernel, WritesAtTheEnd
from mmctr.report.pages import FIGURE
from mmctr.runs.run import Run
from mmctr.runs.train import train
from mmctr.training.config import configs
from mmctr.training.metrics import auc
from mmctr.training.prediction import predict
from tests.captions import require_true_captions
from tests.data.folders import FILES, load_with_fields, write_folder
from tests.runs.test_unfinished import require_equal, stop_at

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
    options = {"progress_bar": False, "cwd": workplace, "kernel_manager_class": OwnKernel}
    options["engine_name"] = WritesAtTheEnd.name
    notebook = papermill.execute_notebook(FOLDER / f"{name}.ipynb", out, parameters, **options)
    require_true_captions(notebook)
    return notebook, recorded(notebook)


def figures_of(notebook):
    """The plotly figures that a notebook shows, as JSON, the first one first."""
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    return [output["data"][FIGURE] for output in outputs if FIGURE in output.get("data", {})]


def figures(notebook):
    """How many plotly figures a notebook shows."""
    return len(figures_of(notebook))


def said(notebook):
    """What a notebook's cells gave, without their code."""
    return str([cell.get("outputs", []) for cell in notebook.cells])


def of_report(report, page):
    """A page's executed notebook and what it recorded."""
    notebook = nbformat.read(report.folder / "notebooks" / f"{page}.ipynb", as_version=4)
    require_true_captions(notebook)
    return notebook, recorded(notebook)


def test_all_five_run_in_a_report(tiny_report):
    # 06_ablation and 08_challenge are asked for singly; 07_search needs a study, 10_backtest a
    # backtest (tests/evaluation/).
    alone = {"06_ablation", "07_search", "08_challenge", "10_backtest"}
    assert {page.notebook for page in tiny_report.pages} | alone == {
        path.stem for path in FOLDER.glob("*.ipynb")
    }
    assert not tiny_report.failed, tiny_report.failed


def test_explore(tiny_report, tiny):
    notebook, values = of_report(tiny_report, "01_explore")
    assert values["rows"] == len(tiny.train)
    assert values["items"] == tiny.catalog.n_items
    assert values["click_rate"] == pytest.approx(tiny.train.label.mean(), abs=1e-4)
    assert figures(notebook) == 6
    of_kind = {"placeholder": 6, "dark": 1, "unreadable": 1, "sweep": 1}
    assert of_kind.items() <= values["errors"].items(), "as they were planted"
    page = (tiny_report.folder / "01_explore.html").read_text(encoding="utf-8")
    assert "placeholder: 6" in page
    assert "Were they found?" in page


def test_embeddings(tiny_report):
    notebook, values = of_report(tiny_report, "02_embeddings")
    assert set(values["co_clicks"]) == set(STRATEGIES)
    assert all(0.4 < value < 1 for value in values["co_clicks"].values())
    assert figures(notebook) == 5
    first = figures_of(notebook)[0]
    fitted = {trace["name"].split()[0] for trace in first["data"]}
    assert fitted == set(STRATEGIES) - set(FROM_CLICKS), "the first figure waits for no clicks"


@pytest.mark.parametrize("strategy", ["v1", "v4"])
def test_train(tiny_report, tiny, strategy):
    notebook, values = of_report(tiny_report, f"03_train_{strategy}_seed1")
    run = Run.load(values["run"])
    assert (run.strategy, run.seed) == (strategy, 1)
    assert run.config["model"]["heads"] == 2, "a parameter reaches the model"
    expected = auc(tiny.valid.label, run.predictions["probability"].to_numpy())
    assert values["auc"] == pytest.approx(expected, abs=1e-5)
    assert figures(notebook) == 6


def test_the_error_atlas_leads_to_a_row_that_attention_begins_with(tiny_report, workplace, tiny):
    notebook, values = of_report(tiny_report, "03_train_v4_seed1")
    run = Run.load(values["run"])
    probability = run.predictions["probability"].to_numpy(float)
    loss = -np.log(np.where(tiny.valid.label == 1, probability, 1 - probability))
    row = int(loss.argmax())
    assert f"-p run runs/{run.name} -p row {row}`" in said(notebook)
    data = str(tiny_report.folder.parents[1] / "tiny")
    opened, _ = execute("04_attention", workplace, data=data, run=str(run.folder), row=row)
    shown = next(cell for cell in opened.cells if "explore_attention(" in cell.source).outputs
    assert f"<h4>Row {row}</h4>" in str(shown)


def test_attention(tiny_report):
    notebook, values = of_report(tiny_report, "04_attention")
    runs = tiny_report.load_runs()
    best = max(runs, key=lambda run: run.summary["metrics"]["auc"])
    assert values["run"] == best.name
    assert -1 < values["agreement"] < 1
    assert 0 < values["topic, random click"] < values["topic, truth"] < 1
    assert figures(notebook) == 8


def test_without_a_front_end_explorers_are_pages(tiny_report):
    """A report has no kernel: what an explorer shows must be there as HTML, and nothing dead."""
    for name in ("02_embeddings", "04_attention"):
        page = (tiny_report.folder / f"{name}.html").read_text(encoding="utf-8")
        assert '<div class="mmctr-panel">' in page
        assert "widget-view" not in page and "widget-state" not in page
    assert all(f"<h4>{case}</h4>" in page for case in ("A foreseen click", "A cold target"))


def test_compare(tiny_report):
    notebook, values = of_report(tiny_report, "05_compare")
    expected = {run.strategy: run.summary["metrics"]["auc"] for run in tiny_report.load_runs()}
    assert values["auc"] == pytest.approx(expected)
    assert values["best"] == max(expected, key=expected.get)
    assert figures(notebook) == 4


def test_compare_takes_any_runs_and_shows_where_they_disagree(tiny_report, workplace):
    runs = tiny_report.load_runs()
    named = ",".join(str(run.folder) for run in runs)
    notebook, values = execute("05_compare", workplace, runs=named)
    expected = {run.strategy: run.summary["metrics"]["auc"] for run in runs}
    assert values["auc"] == pytest.approx(expected)
    assert figures(notebook) == 4
    assert "## Where they disagree most" in said(notebook)
    shown = next(cell for cell in notebook.cells if "disagreements" in cell.source).outputs
    apart = abs(runs[0].predictions["probability"] - runs[1].predictions["probability"])
    assert f"{runs[0].predictions['probability'][apart.idxmax()]:.4f}" in str(shown)
    assert "data:image/jpeg" in str(shown), "with their covers"
    assert "Where they disagree" not in said(of_report(tiny_report, "05_compare")[0])


def test_new_items(tiny_report, tiny):
    notebook, values = of_report(tiny_report, "09_new_items")
    clicks = tiny.train_clicks()
    assert not values["real"]
    assert len(tiny.catalog.ids[1:]) // 10 <= values["new"] <= 30 + (clicks[1:] == 0).sum()
    assert {"v1", "v4", "cosine of text", "cosine of image", "oracle"} == set(values["auc"])
    assert "A stand-in: these data keep no items from train" in said(notebook)
    assert figures(notebook) == 1, "without a run of ids there is no difference to show"
    page = (tiny_report.folder / "09_new_items.html").read_text(encoding="utf-8")
    assert page.count("A stand-in") == 1, "the answer says it for all of the page"
    assert '<div class="mmctr-panel">' in page
    assert "widget-view" not in page, "a bar of progress stays in the notebook"


def test_an_unfinished_run_is_gone_on_with(monkeypatch, workplace, tiny, tiny_folder, tmp_path):
    sizes = {"embedding_dim": 8, "heads": 2, "hidden": (16,), "batch_size": 256}
    small = configs(epochs=2, patience=8, **sizes)
    whole = train(tiny, "v1", *small, tmp_path)
    with monkeypatch.context() as patch:
        # In the second epoch, whose first validation is behind it.
        steps = -(-len(tiny.train) // 256)
        stop_at(patch, steps + steps // 2, KeyboardInterrupt())
        with pytest.raises(RunError, match="go on with"):
            train(tiny, "v1", *small, workplace / "unfinished")
    (left,) = (workplace / "unfinished").iterdir()
    _, values = execute("03_train", workplace, data=str(tiny_folder), resume=str(left))
    require_equal(whole, Run.load(values["run"]))


def test_training_without_what_is_erroneous(workplace, tiny_folder, tmp_path):
    folder = shutil.copytree(tiny_folder, tmp_path / "mine")
    clean(folder)
    sizes = {"epochs": 1, "embedding_dim": 8, "heads": 1, "exclude": "untitled,sweep"}
    notebook, values = execute("03_train", workplace, data=str(folder), **sizes)
    run = Run.load(values["run"])
    assert (run.exclusion.kinds, len(run.exclusion.titles)) == (("untitled", "sweep"), 3)
    assert "Left out as erroneous: untitled, sweep: 3 titles, 0 covers, 1 users." in said(notebook)


def test_train_without_senet_then_attention_takes_that_run(workplace, tiny_folder):
    switches = {"senet": False, "attention": "mlp", "bilinear": "off", "cross_layers": 0}
    sizes = {"epochs": 1, "embedding_dim": 8, "heads": 1}
    _, values = execute("03_train", workplace, data=str(tiny_folder), **switches, **sizes)
    run = Path(values["run"])
    assert run.parent == workplace / "runs"
    notebook, values = execute("04_attention", workplace, data=str(tiny_folder))
    assert values["run"] == run.name
    assert "trained without SENet" in said(notebook)
    assert figures(notebook) == 7


@pytest.mark.parametrize(("longest", "shown"), [(0, 2), (2, 6)])
def test_attention_to_short_histories(workplace, tiny_folder, tiny, tmp_path, longest, shown):
    """Nothing to choose between, or no order to compare: a sentence stands in a figure's place."""
    folder = tmp_path / "short"
    shutil.copytree(tiny_folder, folder)
    (folder / "topics.parquet").unlink()
    for path in (folder / "MicroLens_1M_x1").glob("*.parquet"):
        if path.stem not in tiny.splits:
            continue
        table = pq.read_table(path)
        kept = [clicks[max(0, len(clicks) - longest) :] for clicks in table["item_seq"].to_pylist()]
        column = table.schema.get_field_index("item_seq")
        histories = pa.array([[0, *clicks] for clicks in kept], pa.list_(pa.int32()))
        pq.write_table(table.set_column(column, "item_seq", histories), path)
    run = train(Dataset.load(folder), "v1", *configs(epochs=1, embedding_dim=8), workplace / "runs")
    notebook, _ = execute("04_attention", workplace, data=str(folder), run=str(run.folder))
    assert figures(notebook) == shown
    assert "No history has three clicks" in said(notebook)
    assert "do not say what drove a click" in said(notebook)
    assert ("No history has two clicks" in said(notebook)) == (longest < 2)


def test_attention_to_a_single_item(workplace):
    """Nothing is more similar than anything else: one point a head, at the only similarity."""
    ones = {"item_id": [1] * 4, "likes_level": [1] * 4, "views_level": [1] * 4}
    one = {
        "item_info": {"item_id": [0, 1], "item_tags": [[0], [1]], "item_emb_d128": None},
        "item_feature": {name: values[2:3] for name, values in FILES["item_feature"].items()}
        | {"item_tags": [[1]]},
        "train": ones | {"item_seq": [[0, 1, 1], [0, 0, 1], [0, 1, 1], [0, 0, 0]]},
        "valid": {name: values[:2] for name, values in ones.items()} | {"item_seq": [[1, 1]] * 2},
        "test": None,
    }
    write_folder(workplace / "single", one)
    notebook, values = execute("04_attention", workplace, data="single")
    assert figures(notebook) == 6
    assert values["most_attended"] >= 0


def test_ablation_trains_what_is_named_and_takes_finished_runs_as_they_are(workplace, tiny_folder):
    chosen = {"data": str(tiny_folder), "seeds": "1", "epochs": 1, "max_history": 7}
    _, first = execute("06_ablation", workplace, **chosen, names="without recency,strategy ids")
    runs = workplace / "runs" / "ablation"
    assert len(list(runs.iterdir())) == 3
    assert set(first["changes"]) == {"without recency", "strategy ids"}
    notebook, again = execute("06_ablation", workplace, **chosen, names="strategy ids")
    assert len(list(runs.iterdir())) == 3
    assert again["default"] == first["default"]
    assert again["changes"]["strategy ids"] == first["changes"]["strategy ids"]
    assert figures(notebook) == 1
    trained = [Run.load(folder) for folder in runs.iterdir()]
    assert {run.config["model"]["max_history"] for run in trained} == {7}
    aucs = {run.strategy: run.summary["metrics"]["auc"] for run in trained}
    assert again["changes"]["strategy ids"] == pytest.approx(aucs["ids"] - again["default"])


def test_the_challenge_trains_systems_on_the_same_rows(workplace, tiny_folder, tiny):
    chosen = {"data": str(tiny_folder), "seeds": "1", "epochs": 1, "max_history": 5}
    notebook, values = execute("08_challenge", workplace, **chosen, names="paper")
    assert values["split"] == "test"
    runs = [Run.load(folder) for folder in (workplace / "runs" / "challenge").iterdir()]
    assert {run.config["model"]["max_history"] for run in runs} == {5}
    expected = {
        "paper" if run.config["model"]["cross_layers"] == 2 else "default": auc(
            tiny.split("test").label, predict(run.model(), tiny.split("test"))
        )
        for run in runs
    }
    assert values["auc"] == pytest.approx(expected, abs=1e-5)
    assert figures(notebook) == 1
    assert "Training takes up to" in said(notebook)
    assert "0.9766" in said(notebook), "what was published"


def test_compare_trains_quick_runs_if_there_is_no_report(workplace, tiny_folder):
    notebook, values = execute("05_compare", workplace, data=str(tiny_folder))
    assert set(values["auc"]) == set(STRATEGIES)
    assert "for one epoch" in said(notebook)
    assert len(list((workplace / "runs").iterdir())) >= 2 * len(STRATEGIES)


@pytest.fixture(scope="module")
def narrow(workplace):
    """A folder named 20241231 of four items, with text features of width 3, image ones of 2."""
    write_folder(workplace / "20241231")
    return 20241231


def test_explore_data_whose_name_is_a_number(workplace, narrow):
    """`papermill 01_explore.ipynb out.ipynb -p data 20241231` makes a number of the name."""
    notebook, values = execute("01_explore", workplace, data=narrow)
    assert values["items"] == 4
    assert "Data: 20241231" in said(notebook)


@pytest.mark.parametrize(("negatives", "explored"), [("shown", 8), ("sampled", 6), ("outcome", 8)])
def test_sections_of_fields_are_there_where_the_data_have_them(workplace, negatives, explored):
    """Position, hour and the other fields; drawn negatives tell of those of items only."""
    folder = workplace / f"fields-{negatives}"
    words = load_with_fields(folder, negatives).wording
    notebook, _ = execute("01_explore", workplace, data=str(folder))
    assert figures(notebook) == explored
    assert "## Fields" in said(notebook)
    assert ("## Position" in said(notebook)) == ("## Hour" in said(notebook)) == (explored == 8)
    assert words.negatives in said(notebook)
    assert ("click rate" in said(notebook)) == (negatives == "shown")


def test_training_with_fields_new_items_and_impressions(workplace):
    folder = workplace / "new-items"
    load_with_fields(folder)
    path = folder / "item_feature.parquet"
    table = pq.read_table(path)
    held_out = pa.array([int(item == 4) for item in table["item_id"].to_pylist()])
    pq.write_table(table.append_column("held_out", held_out), path)
    small = {"epochs": 1, "embedding_dim": 4, "strategy": "v1", "bilinear": False}
    notebook, values = execute("03_train", workplace, data=str(folder), **small)
    assert "Negatives of all items" in said(notebook)
    assert "GAUC by impression" in said(notebook)
    assert Run.load(values["run"]).summary["dataset"]["negatives"] == "shown"


def test_embeddings_narrower_than_their_strategies_are_said_once(workplace, narrow):
    notebook, values = execute("02_embeddings", workplace, data=narrow)
    assert set(values["co_clicks"]) == set(STRATEGIES)
    assert said(notebook).count("v1 keeps 3 text components instead of 128") == 1
    assert said(notebook).count("as many as there are") == len(STRATEGIES)


def test_train_on_narrow_embeddings_with_parameters_as_yaml_reads_them(workplace, narrow):
    off = {"bilinear": False, "preset": None, "seed": None, "resume": False, "heads": "null"}
    small = {"epochs": 1, "embedding_dim": 4, "strategy": "v1"}
    notebook, values = execute("03_train", workplace, data=narrow, **off, **small)
    assert said(notebook).count("v1 keeps 3 text components instead of 128") == 1
    run = Run.load(values["run"])
    assert (run.config["model"]["bilinear"], run.seed) == ("off", 1)
    assert "seed None" not in said(notebook)


@pytest.mark.parametrize("seeds", [1, [1]])
def test_ablation_with_seeds_that_are_a_number_or_a_list(workplace, narrow, seeds):
    chosen = {"data": narrow, "seeds": seeds, "names": "strategy ids", "epochs": 1}
    _, values = execute("06_ablation", workplace, **chosen)
    assert set(values["changes"]) == {"strategy ids"}


@pytest.mark.parametrize(
    ("name", "parameters", "sentence"),
    [
        ("03_train", {"strategy": "v9"}, "Strategy 'v9' is unknown: choose one of v1, v2, v3, v4"),
        ("03_train", {"strategy": 4}, "Strategy 4 is unknown: choose one of v1, v2, v3, v4"),
        ("03_train", {"resume": 2024}, "2024 "),
        ("04_attention", {"run": "runs/none"}, "is not a finished run"),
        ("04_attention", {"row": 10**6}, "Row is 1000000, expected a number from 0 to"),
        ("06_ablation", {"names": 8}, "Variation '8' is unknown: choose of"),
        ("06_ablation", {"seeds": "1,x"}, "Seeds are '1,x', expected whole numbers such as 1,2"),
        ("06_ablation", {"names": "no head"}, "Variation 'no head' is unknown: choose of"),
    ],
)
def test_a_wrong_parameter_fails_with_one_sentence(
    workplace, tiny_folder, name, parameters, sentence
):
    with pytest.raises(PapermillExecutionError) as failure:
        execute(name, workplace, data=str(tiny_folder), **parameters)
    assert sentence in failure.value.evalue
    assert failure.value.traceback == [f"{failure.value.ename}: {failure.value.evalue}"]
