"""Scores are written in the forms that people and the challenge read."""

import shutil
import zipfile
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch

from mmctr.content.fusion import item_embeddings
from mmctr.data.fields import Field
from mmctr.errors import ConfigError, DataError, MMCTRError, RunError
from mmctr.model.config import DINConfig
from mmctr.model.din import DIN
from mmctr.training import prediction
from mmctr.training.config import TrainConfig
from mmctr.training.trainer import fit
from tests.data.folders import NAMES, load_changed


def test_predictions_csv(tiny, tmp_path):
    rows = tiny.split("test")
    probability = np.linspace(0, 1, len(rows), dtype=np.float32)
    prediction.write_predictions(tmp_path / "out.csv", tiny, rows, probability)
    table = pd.read_csv(tmp_path / "out.csv")
    assert table["ID"].tolist() == list(range(len(rows)))
    assert table["user_id"].tolist() == rows.user.tolist()
    assert table["item_id"].tolist() == rows.target.tolist()
    np.testing.assert_allclose(table["probability"], probability, atol=1e-7)


def test_predictions_of_data_without_own_ids_are_as_ever_byte_for_byte(tiny, tmp_path):
    rows = tiny.split("test")
    probability = np.linspace(0, 1, len(rows), dtype=np.float32)
    prediction.write_predictions(tmp_path / "out.csv", tiny, rows, probability)
    numbers = {"user_id": rows.user, "item_id": rows.target, "probability": probability}
    pd.DataFrame(numbers).to_csv(tmp_path / "numbers.csv", index_label="ID")
    assert (tmp_path / "out.csv").read_bytes() == (tmp_path / "numbers.csv").read_bytes()


def test_predictions_join_to_the_users_own_tables(tmp_path):
    """Ids come back as the text that they were: with their zeros, commas and quotes."""
    data = load_changed(tmp_path, NAMES | {"test": {"item_id": [4]}})
    for name, target in (("test", ["9007199254740993"]), ("valid", ["9007199254740993", "x-2"])):
        rows = data.split(name)
        prediction.write_predictions(tmp_path / "out.csv", data, rows, np.full(len(rows), 0.5))
        table = pd.read_csv(tmp_path / "out.csv", dtype=str)
        assert list(table) == ["ID", "user_id", "item_id", "probability"]
        assert table["item_id"].tolist() == target
        assert table["user_id"].tolist() == {"test": ["0008"], "valid": ["ann", "<i>"]}[name]


def test_submission_is_the_challenges_zip(tmp_path):
    prediction.write_submission(tmp_path / "s.zip", np.array([0.25, 0.75]))
    with zipfile.ZipFile(tmp_path / "s.zip") as archive:
        assert archive.namelist() == ["prediction.csv"]
        assert archive.read("prediction.csv").decode().split() == ["ID,Task2", "0,0.25", "1,0.75"]


def test_nothing_is_half_written(tiny, tmp_path):
    (tmp_path / "out.csv").mkdir()
    with pytest.raises(MMCTRError, match=r"out\.csv could not be written"):
        prediction.write_predictions(
            tmp_path / "out.csv", tiny, tiny.valid, np.zeros(len(tiny.valid))
        )
    assert [path.name for path in tmp_path.iterdir()] == ["out.csv"]


@pytest.mark.parametrize(
    ("method", "write"),
    [
        ("pandas.DataFrame.to_csv", prediction.write_predictions),
        (
            "zipfile.ZipFile.writestr",
            lambda path, _data, _rows, scores: prediction.write_submission(path, scores),
        ),
    ],
)
def test_a_full_disk_leaves_the_old_files(tiny, tmp_path, monkeypatch, method, write):
    def full(*_, **__):
        raise OSError(28, "No space left on device")

    path = tmp_path / "old"
    path.write_text("old")
    monkeypatch.setattr(method, full)
    with pytest.raises(MMCTRError, match=r"old could not be written .No space left"):
        write(path, tiny, tiny.valid, np.zeros(len(tiny.valid)))
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("training", [True, False])
def test_predicting_leaves_the_model_as_it_was(tiny, tiny_run, training):
    model = tiny_run.model().train(training)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    found = prediction.predict(model, tiny.valid)
    assert model.training == model.dnn.training == training
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    np.testing.assert_array_equal(found, prediction.predict(model.eval(), tiny.valid))
    assert found.dtype == np.float32
    assert ((found > 0) & (found < 1)).all()


def test_no_rows_have_no_probabilities(tiny, tiny_run):
    none = tiny.valid.select(np.arange(0))
    assert prediction.predict(tiny_run.model(), none).shape == (0,)


def test_batches_do_not_change_predictions(tiny, tiny_run):
    model = tiny_run.model()
    whole = prediction.predict(model, tiny.valid)
    parts = prediction.predict(model, tiny.valid, batch_size=7)
    np.testing.assert_allclose(whole, parts, atol=1e-6)


@pytest.mark.parametrize("wrong", [np.nan, np.inf])
def test_scores_that_are_no_numbers_are_not_written(tiny, tmp_path, wrong):
    rows = tiny.split("test")
    probability = np.full(len(rows), 0.5, dtype=np.float32)
    probability[7] = wrong
    with pytest.raises(RunError, match=f"probability of row 7 is {wrong}, expected 0 to 1"):
        prediction.write_predictions(tmp_path / "out.csv", tiny, rows, probability)
    assert not list(tmp_path.iterdir())


NO_PRODUCTS = {"senet": False, "bilinear": "off"}


@pytest.fixture(
    scope="module",
    params=[
        {},
        {"attention": "mlp"},
        {"attention": "relu", "cross_layers": 0},
        {"attention": "transformer", "last_outputs": 2, "joined_hidden": [8], **NO_PRODUCTS},
        {"cross_attention": 1, "quadratic_layers": 1, "quadratic_rows": 1},
        {"quadratic_layers": 1, "hidden": (), "cross_layers": 0, **NO_PRODUCTS},
    ],
    ids=lambda switches: ",".join(switches) or "default",
)
def trained(request, tiny):
    """A model of some switches, trained, and what it predicts of valid."""
    torch.manual_seed(0)
    small = {"embedding_dim": 16, "max_history": 3, "hidden": [16, 8]}
    config = DINConfig.of(**small | request.param)
    model = DIN.for_catalog(config, tiny.catalog, item_embeddings(tiny, "v1"))
    fit(model, tiny, TrainConfig.of(epochs=1, batch_size=32))
    return model, prediction.predict(model, tiny.valid)


@pytest.mark.parametrize(("precision", "tolerance"), [("float32", 1e-6), ("bfloat16", 0.02)])
def test_a_scorer_predicts_what_the_model_does(tiny, trained, precision, tolerance):
    rows, (model, expected) = tiny.valid, trained
    assert expected.std() > 0.01
    scorer = prediction.Scorer(model, precision)
    for row in range(len(rows)):
        history = rows.history_items[rows.history_start[row] : rows.history_end[row]]
        # Beside other candidates: the scores of one must not depend on them.
        candidates = np.array([rows.target[row], 1, 2])
        np.testing.assert_allclose(scorer(history, candidates)[0], expected[row], atol=tolerance)


def test_a_scorer_needs_no_history_and_leaves_its_model_alone(tiny):
    torch.manual_seed(0)
    model = DIN.for_catalog(DINConfig(), tiny.catalog, None).train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    scorer = prediction.Scorer(model)
    nothing = np.zeros(0, dtype=np.int64)
    scores = scorer(nothing, np.array([1, 2]))
    assert scores.shape == (2,) and np.isfinite(scores).all()
    assert scorer(nothing, nothing).shape == (0,)
    assert model.training
    for name, value in model.state_dict().items():
        torch.testing.assert_close(value, before[name])
    with torch.no_grad():
        model.embedding.id.weight.add_(1)
    np.testing.assert_array_equal(scorer(nothing, np.array([1, 2])), scores)


@pytest.mark.skipif(not shutil.which("g++"), reason="torch.compile needs a C++ compiler")
@pytest.mark.parametrize("attention", ["dot", "mlp"])
def test_a_compiled_scorer_gives_the_same_scores(tiny, attention):
    torch._dynamo.reset()  # it compiles a function for eight shapes at most
    torch.manual_seed(0)
    config = DINConfig.of(attention=attention, hidden=[16, 8])
    model = DIN.for_catalog(config, tiny.catalog, item_embeddings(tiny, "v1"))
    plain, compiled = prediction.Scorer(model), prediction.Scorer(model, compiled=True)
    candidates = np.array([1, 2, 3])
    for clicks in (0, 1, 2, 5):
        history = np.arange(1, clicks + 1)
        expected = plain(history, candidates)
        np.testing.assert_allclose(compiled(history, candidates), expected, atol=1e-6)


def test_a_compiled_scorer_says_that_there_is_no_compiler(tiny):
    torch._dynamo.reset()
    scorer = prediction.Scorer(DIN.for_catalog(DINConfig(), tiny.catalog, None), compiled=True)
    none = {"cpp.cxx": (None, "/none"), "force_disable_caches": True}
    with (
        torch._inductor.config.patch(none),
        pytest.raises(ConfigError, match=r"found no compiler .*: install one, such as g\+\+"),
    ):
        scorer(np.array([1]), np.array([1, 2]))


@pytest.mark.parametrize("wrong", [0, -1, 2**40])
def test_a_scorer_refuses_items_that_are_not_in_the_catalog(tiny, wrong):
    scorer = prediction.Scorer(DIN.for_catalog(DINConfig(), tiny.catalog, None))
    with pytest.raises(
        DataError, match=f"item number {wrong}, expected 1 to {tiny.catalog.n_items}"
    ):
        scorer(np.array([1]), np.array([wrong, 1]))


def test_a_scorer_takes_numbers_of_own_ids_and_refuses_the_ids_themselves(tmp_path):
    catalog = load_changed(tmp_path, NAMES).catalog  # 0007 is row 1, x-2 is row 2
    scorer = prediction.Scorer(DIN.for_catalog(DINConfig(), catalog, None))
    scores = scorer(catalog.numbers(["x-2"]), catalog.numbers(["0007", "<b>"]))
    assert np.array_equal(scores, scorer(np.array([2]), np.array([1, 3])))
    for history, candidates in ((["x-2"], [1]), ([2], ["0003"]), ([2], np.array([1.0]))):
        with pytest.raises(DataError, match=r"expected its number.*catalog\.numbers"):
            scorer(history, candidates)


@pytest.mark.parametrize("field", ["target", "history_items"])
def test_rows_of_another_catalog_are_refused(tiny, tiny_run, field):
    items = getattr(tiny.valid, field).copy()
    items[-1] = tiny.catalog.n_items + 1
    with pytest.raises(DataError, match=f"item number {items[-1]}, expected 1 to {items[-1] - 1}"):
        prediction.predict(tiny_run.model(), replace(tiny.valid, **{field: items}))


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_a_scorer_knows_the_fields_of_a_request(tiny, precision):
    rng = np.random.default_rng(0)
    fields = [Field("brand", "item", ("a", "b")), Field("age", "user", borders=(20.0, 40.0))]
    fields.append(Field("device", "context", ("p", "q")))
    own = rng.integers(0, 3, (tiny.catalog.n_items + 1, 1)).astype(np.int32)
    catalog = replace(tiny.catalog, fields=tuple(fields[:1]), field_codes=own)
    rows = tiny.valid.select(np.arange(30))
    rows = replace(rows, fields=rng.integers(0, 3, (30, 2)).astype(np.int32))
    torch.manual_seed(0)
    model = DIN.for_catalog(DINConfig.of(hidden=[16, 8]), catalog, None, fields[1:]).eval()
    for layer in (model.embedding.fields, model.user_fields, model.context):
        torch.nn.init.normal_(layer.table.weight)
    scorer, tolerance = prediction.Scorer(model, precision), 1e-6 if precision == "float32" else 0.1
    expected = prediction.predict(model, rows)
    for row in range(len(rows)):
        found = scorer(rows.history(row), np.array([rows.target[row], 3]), rows.fields[row])
        np.testing.assert_allclose(found[0], expected[row], atol=tolerance)
    unknown = scorer(rows.history(0), np.array([5]))
    np.testing.assert_array_equal(unknown, scorer(rows.history(0), np.array([5]), np.zeros(2)))
    for codes in ([1], [1, 3], [-1, 0]):
        with pytest.raises(DataError, match=r"expected 2 codes below \[4, 3\]"):
            scorer(rows.history(0), np.array([5]), np.array(codes))


def test_a_scorer_hides_the_identity_that_training_did_not_see(tiny):
    clicks = np.zeros(tiny.catalog.n_items + 1, dtype=np.int64)
    clicks[::2] = 3
    torch.manual_seed(0)
    config = DINConfig.of(identity_dropout=0.1, hidden=[16, 8])
    model = DIN.for_catalog(config, tiny.catalog, None, train_clicks=clicks).eval()
    with torch.no_grad():
        model.embedding.id.weight[1:].normal_()
    rows = tiny.valid.select(np.arange(40))
    assert 0 < (clicks[rows.target] == 0).sum() < 40
    expected, scorer = prediction.predict(model, rows), prediction.Scorer(model)
    for row in range(len(rows)):
        found = scorer(rows.history(row), np.array([rows.target[row], 3]))
        np.testing.assert_allclose(found[0], expected[row], atol=1e-6)
