"""Prediction in parts gives what prediction at once gives, whatever was killed on the way."""

import numpy as np
import pytest

from mmctr.errors import MMCTRError
from mmctr.training import parts
from mmctr.training.parts import predict_in_parts
from mmctr.training.prediction import predict


@pytest.fixture(autouse=True)
def of_50_rows(monkeypatch):
    monkeypatch.setattr(parts, "ROWS", 50)


@pytest.fixture
def asked(monkeypatch):
    """The sizes of what was predicted, which the test may stop with an error."""
    sizes = []

    def counted(model, rows):
        sizes.append(len(rows))
        if len(sizes) == asked.stop:
            raise KeyboardInterrupt
        return predict(model, rows)

    asked = type("Asked", (), {"sizes": sizes, "stop": None})()
    monkeypatch.setattr(parts, "predict", counted)
    return asked


def test_parts_are_the_whole(tiny, tiny_run, tmp_path):
    model = tiny_run.model()
    found = predict_in_parts(model, tiny.valid, tmp_path / "out.csv", {"run": "a"})
    np.testing.assert_allclose(found, predict(model, tiny.valid), rtol=1e-6)
    assert not any(tmp_path.iterdir()), "the parts are gone"


def test_what_was_computed_is_not_computed_again(tiny, tiny_run, tmp_path, asked):
    model, out = tiny_run.model(), tmp_path / "out.csv"
    expected = predict_in_parts(model, tiny.valid, out, {"run": "a"})
    asked.sizes.clear()
    asked.stop = 4
    with pytest.raises(KeyboardInterrupt):
        predict_in_parts(model, tiny.valid, out, {"run": "a"})
    asked.sizes.clear()
    asked.stop = None
    np.testing.assert_array_equal(predict_in_parts(model, tiny.valid, out, {"run": "a"}), expected)
    assert asked.sizes == [50] * 3, "three of six parts were there"


def test_parts_of_other_weights_are_not_taken(tiny, tiny_run, tmp_path, asked):
    model, out = tiny_run.model(), tmp_path / "out.csv"
    asked.stop = 3
    with pytest.raises(KeyboardInterrupt):
        predict_in_parts(model, tiny.valid, out, {"run": "a"})
    asked.sizes.clear()
    asked.stop = None
    predict_in_parts(model, tiny.valid, out, {"run": "b"})
    assert len(asked.sizes) == 6


def test_two_processes_share_the_parts(monkeypatch, tiny, tiny_run, tmp_path, asked):
    """One after the other, as if each waited for all."""
    model, out = tiny_run.model(), tmp_path / "out.csv"
    expected = predict_in_parts(model, tiny.valid, out, {"run": "a"})
    monkeypatch.setattr(parts.parallel, "wait_for_all", lambda: None)
    monkeypatch.setattr(parts.parallel, "gathered", lambda own: [own, own])
    asked.sizes.clear()
    for number in (1, 0):
        monkeypatch.setattr(parts.parallel, "share", lambda number=number: (number, 2))
        found = predict_in_parts(model, tiny.valid, out, {"run": "a"})
        assert len(asked.sizes) == 3 * (2 - number)
        if number == 1:
            assert found is None
    np.testing.assert_array_equal(found, expected)


def test_a_part_that_another_machine_keeps_is_one_sentence(monkeypatch, tiny, tiny_run, tmp_path):
    monkeypatch.setattr(parts.parallel, "wait_for_all", lambda: None)
    monkeypatch.setattr(parts.parallel, "gathered", lambda own: [own, own])
    monkeypatch.setattr(parts.parallel, "share", lambda: (0, 2))
    with pytest.raises(MMCTRError, match=r"50\.npy is missing.*one folder"):
        predict_in_parts(tiny_run.model(), tiny.valid, tmp_path / "out.csv", {"run": "a"})
