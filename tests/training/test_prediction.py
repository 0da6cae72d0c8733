"""Scores are written in the forms that people and the challenge read."""

import zipfile

import numpy as np
import pandas as pd
import pytest

from mmctr.errors import MMCTRError
from mmctr.training import prediction


def test_predictions_csv(tiny, tmp_path):
    rows = tiny.split("test")
    probability = np.linspace(0, 1, len(rows), dtype=np.float32)
    prediction.write_predictions(tmp_path / "out.csv", rows, probability)
    table = pd.read_csv(tmp_path / "out.csv")
    assert table["ID"].tolist() == list(range(len(rows)))
    assert table["user_id"].tolist() == rows.user.tolist()
    assert table["item_id"].tolist() == rows.target.tolist()
    np.testing.assert_allclose(table["probability"], probability, atol=1e-7)


def test_submission_is_the_challenges_zip(tmp_path):
    prediction.write_submission(tmp_path / "s.zip", np.array([0.25, 0.75]))
    with zipfile.ZipFile(tmp_path / "s.zip") as archive:
        assert archive.namelist() == ["prediction.csv"]
        assert archive.read("prediction.csv").decode().split() == ["ID,Task2", "0,0.25", "1,0.75"]


def test_nothing_is_half_written(tiny, tmp_path):
    (tmp_path / "out.csv").mkdir()
    with pytest.raises(MMCTRError, match=r"out\.csv could not be written"):
        prediction.write_predictions(tmp_path / "out.csv", tiny.valid, np.zeros(len(tiny.valid)))
    assert [path.name for path in tmp_path.iterdir()] == ["out.csv"]


def test_batches_do_not_change_predictions(tiny, tiny_run):
    model = tiny_run.model()
    whole = prediction.predict(model, tiny.valid)
    parts = prediction.predict(model, tiny.valid, batch_size=7)
    np.testing.assert_allclose(whole, parts, atol=1e-6)
