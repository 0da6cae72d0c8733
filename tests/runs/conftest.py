"""Runs to be written, and trainings to be interrupted."""

import pytest

from mmctr.runs import writing


@pytest.fixture
def save(tiny, tiny_run, tmp_path):
    """Save the tiny run again below tmp_path/runs, with another strategy if wanted."""

    def saved(strategy="v4"):
        config = tiny_run.config | {"strategy": strategy}
        summary = {name: tiny_run.summary[name] for name in ("metrics", "seconds")}
        scores = tiny_run.predictions["probability"].to_numpy()
        records = tiny_run.history.to_dict("records")
        runs = tmp_path / "runs"
        return writing.save_run(runs, tiny, tiny_run.model(), config, summary, records, scores)

    return saved
