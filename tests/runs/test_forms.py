"""Files of a run that are damaged, odd or of an earlier version."""

import json
import shutil

import numpy as np
import pyarrow.parquet as pq
import pytest

from mmctr.evaluation.compare import strategy_table
from mmctr.files import write_json
from mmctr.runs.run import Run
from tests.runs.test_run import edited


def test_a_measure_that_could_not_be_taken_is_written_as_null_and_read_as_nan(tmp_path, save):
    run = save()
    summary = run.summary | {"metrics": run.summary["metrics"] | {"gauc": float("nan")}}
    write_json(run.folder / "summary.json", summary)
    assert json.loads((run.folder / "summary.json").read_text())["metrics"]["gauc"] is None
    again = Run.load(run.folder)
    assert np.isnan(again.summary["metrics"]["gauc"])
    assert again.summary["metrics"]["auc"] == run.summary["metrics"]["auc"]
    assert strategy_table([again])["GAUC"].isna().all()
    text = (run.folder / "summary.json").read_text().replace('"gauc": null', '"gauc": NaN')
    (run.folder / "summary.json").write_text(text)  # as runs of earlier versions have it
    assert np.isnan(Run.load(run.folder).summary["metrics"]["gauc"])


def test_a_run_of_an_earlier_version_reads(tiny_run, tmp_path):
    def older(summary):
        for name in ("cost", "device", "processes", "best_epoch"):
            del summary[name]

    run = Run.load(edited(tiny_run, tmp_path / "run", "summary.json", older))
    assert strategy_table([run])["samples/s"].isna().all()
    assert run.summary == {k: tiny_run.summary[k] for k in run.summary}


@pytest.mark.parametrize("notes", [b"\xff", b"{", b'{"index_columns": ["user"], "columns": []}'])
def test_notes_of_pandas_do_not_change_what_is_read(tiny_run, tmp_path, notes):
    folder = tmp_path / "run"
    shutil.copytree(tiny_run.folder, folder)
    table = pq.read_table(folder / "predictions.parquet").replace_schema_metadata({"pandas": notes})
    pq.write_table(table, folder / "predictions.parquet")
    assert Run.load(folder).predictions.equals(tiny_run.predictions)
