"""A study read from its folder, and its page."""

import re
import shutil
from dataclasses import replace

import nbformat
import pytest

from mmctr.errors import MMCTRError, RunError
from mmctr.evaluation.search import study_folder
from mmctr.evaluation.study import Study, find_studies
from mmctr.report import make, notebook
from mmctr.report.execution import recorded
from mmctr.report.make import make_page
from mmctr.report.pages import FIGURE
from tests.captions import require_true_captions
from tests.evaluation.conftest import FREE, searched


def test_the_parameter_that_matters_is_the_most_important(dataset, tmp_path, scripted):
    scripted(lambda model, config: [0.5, 0.7 - 10 * config.learning_rate])
    assert searched(dataset, tmp_path / "s", 9).importances.empty, "nine trials tell nothing"
    table = searched(dataset, tmp_path / "s", 14).importances
    assert sorted(table["parameter"]) == sorted(FREE)
    assert table["parameter"][0] == "learning_rate" and table["share"][0] > 80
    assert table["share"].sum() == pytest.approx(100)
    assert ((table["low"] <= table["share"]) & (table["share"] <= table["high"])).all()


def test_folders_may_have_odd_names_but_must_be_studies(study, dataset, tmp_path, scripted):
    scripted(lambda model, config: [0.6, 0.7])
    odd = tmp_path / "100% #1?"
    assert searched(dataset, odd, 1).done == 1
    assert {path.name for path in odd.iterdir()} == {"study.json", "trials.db"}
    with pytest.raises(MMCTRError, match=r"below cannot be written"):
        searched(dataset, odd / "study.json" / "below", 1)
    (odd / "trials.db").write_bytes(b"no database at all, but long enough for a header" * 9)
    with pytest.raises(RunError, match=r"trials\.db cannot be used"):
        Study.load(odd)
    (odd / "trials.db").unlink()
    for folder in (odd, tmp_path / "nowhere"):
        with pytest.raises(RunError, match="is not a readable study"):
            Study.load(folder)


def test_studies_are_found_by_their_data(study, dataset, tmp_path):
    runs, name = study.folder.parent, study.folder.name
    assert find_studies(runs) == find_studies(runs, dataset.fingerprint) == [runs / name]
    assert not find_studies(runs, "another")
    assert not find_studies(tmp_path / "nowhere")
    assert study_folder(runs, dataset, "provided:a b") == runs / "search-tiny-provided-a-b"


def test_the_page_shows_the_study_and_reports_take_it_up(study, dataset, tmp_path, monkeypatch):
    monkeypatch.setenv("MMCTR_HOME", str(tmp_path))
    assert not make._studies(dataset), "there is no study yet"
    with pytest.raises(RunError, match="There is no study yet: run mmctr search first"):
        notebook.open_study("")
    shutil.copytree(study.folder, tmp_path / "runs" / "s")
    (planned,) = make._studies(dataset)
    assert (planned.notebook, planned.parameters) == (
        "07_search",
        {"study": str(tmp_path / "runs" / "s")},
    )
    page = make_page("07_search", dataset, {}, tmp_path / "reports" / "s")
    executed = nbformat.read(page.parent / "notebooks" / "07_search.ipynb", as_version=4)
    require_true_captions(executed)
    shown = [output for cell in executed.cells for output in cell.get("outputs", [])]
    assert sum(FIGURE in output.get("data", {}) for output in shown) == 3, "importances are not"
    values = recorded(executed)
    assert values == {"best": study.best, "auc": study.best_auc, "trials": 3}
    text = page.read_text()
    assert "3 finished" in text and "fewer than ten" in text
    gain = f"{study.best_auc - study.default_auc:+.4f} to the defaults"
    beside = ": the defaults" if study.best_number == 1 else f", {gain}"
    answer = f"number {study.best_number} has the highest valid AUC, {study.best_auc:.4f}{beside}."
    assert '<p class="answer">Of 3 trials on tiny (simulated' in text and answer in text
    fixed = study.facts["fixed"] | {"rows": 1000}
    part = replace(study, facts=study.facts | {"fixed": fixed})
    assert part.words.endswith("The trials learned from 1,000 rows of train: a first look.")
    assert "first look" not in study.words
    for link in re.findall(r'(?:href|src)="([^"#]+)"', text):
        assert (page.parent / link).exists(), link
