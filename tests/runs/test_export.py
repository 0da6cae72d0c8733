"""An export, read as a service would read it, gives what the ordinary predictions are."""

import builtins
import json

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
import torch
from safetensors.torch import load_file, save_file

from mmctr.data.dataset import Dataset
from mmctr.data.impressions import Impressions
from mmctr.errors import ConfigError, MMCTRError, RunError
from mmctr.runs import export
from mmctr.runs.export import export_onnx
from mmctr.runs.run import Run
from mmctr.runs.train import train
from mmctr.training.config import configs
from mmctr.training.prediction import predict
from tests.data.importing.logs import ITEMS, imported

SMALL = {"epochs": 1, "max_history": 3, "hidden": (16,), "batch_size": 256}
RNG = np.random.default_rng(0)
LOG = pd.DataFrame(
    [
        (f"u{user:02}", f"i{item}", time, RNG.choice(["phone", "desk"]))
        for user in range(12)
        for time, item in enumerate(RNG.permutation(12)[:8])
    ],
    columns=["user_id", "item_id", "timestamp", "device"],
)
AGES = pd.DataFrame({"user_id": [f"u{user:02}" for user in range(12)], "age": [20, 40, 60] * 4})


@pytest.fixture(scope="module")
def onnxruntime():
    """What serves an export; these tests need the extra onnx."""
    for name in ("onnx", "onnxscript"):
        pytest.importorskip(name)
    return pytest.importorskip("onnxruntime")


@pytest.fixture(scope="module")
def shop(tmp_path_factory):
    """A dataset with own ids, and with fields of users and of the context; negatives are drawn."""
    options = {"context_fields": "device", "user_fields": "age", "users": AGES, "negatives": 2}
    place = tmp_path_factory.mktemp("shop")
    folder, _ = imported(place, LOG, say=lambda _: None, **options)
    return Dataset.load(folder)


def trained(dataset, folder, strategy="v1", **parameters):
    """A run whose fields matter: weights of few rows would be too small to see."""
    run = train(dataset, strategy, *configs(**SMALL | parameters), folder)
    weights = load_file(run.folder / "model.safetensors")
    torch.manual_seed(0)
    for name, weight in weights.items():
        if name in ("user_fields.table.weight", "context.table.weight"):
            torch.nn.init.normal_(weight)
    save_file(weights, run.folder / "model.safetensors")
    return Run.load(run.folder)


@pytest.fixture
def served(onnxruntime):
    """Probabilities from an exported folder's files alone, by own ids."""

    def scores(folder, history, candidates, **fields):
        table = pq.read_table(folder / "items.parquet").to_pylist()
        vectors = {row["item_id"]: np.array(row["vector"], np.float32) for row in table}
        session = onnxruntime.InferenceSession(
            str(folder / "scorer.onnx"), providers=["CPUExecutionProvider"]
        )
        width = json.loads((folder / "scorer.json").read_text())["width"]
        feed = {
            name: np.array([vectors[one] for one in ids], np.float32).reshape(-1, width)
            for name, ids in (("candidates", candidates), ("history", history))
        }
        return session.run(["probability"], feed | fields)[0]

    return scores


def predictions(run, histories, candidates, codes=None):
    """By the ordinary path, with all rows in one batch: [histories, candidates]."""
    lengths = np.array([len(history) for history in histories])
    ends, times = lengths.cumsum(), len(candidates)
    rows = Impressions(
        user=np.zeros(len(histories) * times, np.int64),
        target=np.tile(candidates, len(histories)).astype(np.int32),
        label=None,
        history_start=np.repeat(ends - lengths, times),
        history_end=np.repeat(ends, times),
        history_items=np.concatenate(histories).astype(np.int32),
        fields=None if codes is None else np.repeat(codes, times, axis=0).astype(np.int32),
    )
    found = run.corrected(predict(run.model(), rows, precision="float32"))
    return found.reshape(len(histories), times)


# Empty, short, as long as is read, and longer.
HISTORIES = [np.zeros(0, int), [5], [7, 5], [1, 2, 3], [9, 8, 7, 6, 5, 4, 3, 2]]


@pytest.mark.parametrize(
    "parameters",
    [
        {"embedding_dim": 8, "heads": 2},
        {"preset": "paper", "embedding_dim": 8, "heads": 2},
        {"preset": "din", "embedding_dim": 8, "max_history": 1},
        {"preset": "momo-small", "embedding_dim": 8, "last_outputs": 2},
    ],
    ids=lambda parameters: parameters.get("preset", "default"),
)
def test_onnxruntime_gives_what_the_run_predicts(tiny, tmp_path, served, parameters):
    run = trained(tiny, tmp_path / "runs", "v4", **parameters)
    made = export_onnx(run, tiny, tmp_path / "made")
    assert made.difference <= 1e-5 and made.items == tiny.catalog.n_items
    for candidates in (np.arange(1, 40), np.array([17])):
        expected = predictions(run, HISTORIES, candidates)
        assert expected.std() > 1e-4
        for history, own in zip(HISTORIES, expected, strict=True):
            ids = (tiny.catalog.ids[np.array(one, int)] for one in (history, candidates))
            np.testing.assert_allclose(served(tmp_path / "made", *ids), own, rtol=0, atol=1e-5)
    assert served(tmp_path / "made", ["5"], []).shape == (0,)


def test_fields_own_ids_and_a_known_click_rate_go_with_it(shop, tmp_path, served):
    run = trained(shop, tmp_path / "runs", "ids", click_rate=0.02, embedding_dim=4)
    export_onnx(run, shop, tmp_path / "made")
    about = json.loads((tmp_path / "made" / "scorer.json").read_text())
    assert [field["name"] for field in about["fields"]] == ["age", "device"]
    assert about["fields"][1]["values"] == ["desk", "phone"]
    codes = np.array([[0, 0], [1, 2], [2, 1], [1, 1], [2, 2]])
    candidates = np.arange(1, 13)
    expected = predictions(run, HISTORIES, candidates, codes)
    assert expected.mean() < 0.1, "the rate of what is shown, not of drawn negatives"
    ids = shop.catalog.ids
    assert set(ids[1:]) == set(ITEMS["item_id"])
    for history, code, own in zip(HISTORIES, codes, expected, strict=True):
        history = np.array(history, int)
        asked = (tmp_path / "made", ids[history], ids[candidates])
        np.testing.assert_allclose(served(*asked, fields=code), own, rtol=0, atol=1e-5)
    wrong = served(*asked, fields=np.array([-1, 3]))
    np.testing.assert_array_equal(wrong, served(*asked, fields=np.array([0, 0])))
    assert np.abs(wrong - served(*asked, fields=code)).max() > 1e-4


def test_the_file_is_sound_names_its_axes_and_nothing_of_this_machine(tiny, tiny_run, tmp_path):
    onnx = pytest.importorskip("onnx")
    pytest.importorskip("onnxscript")
    made = export_onnx(tiny_run, tiny, tmp_path / "made")
    model = onnx.load(made.folder / "scorer.onnx")
    onnx.checker.check_model(model, full_check=True)
    axes = {
        end.name: [dim.dim_param or dim.dim_value for dim in end.type.tensor_type.shape.dim]
        for end in (*model.graph.input, *model.graph.output)
    }
    assert axes == {
        "candidates": ["candidates", made.width],
        "history": ["clicks", made.width],
        "probability": ["candidates"],
    }
    size = (made.folder / "scorer.onnx").stat().st_size
    assert size < (tiny_run.folder / "model.safetensors").stat().st_size, "tables stay outside"
    assert b"/mmctr/" not in (made.folder / "scorer.onnx").read_bytes()
    with pytest.raises(ConfigError, match="made exists already: delete it or choose another"):
        export_onnx(tiny_run, tiny, tmp_path / "made")


def test_a_probability_that_is_no_number_differs(
    tiny, tiny_run, tmp_path, onnxruntime, monkeypatch
):
    corrected, asked = Run.corrected, []

    def first_is_wrong(self, probability, *rate):
        asked.append(corrected(self, probability, *rate))
        return np.full_like(asked[-1], np.nan) if len(asked) == 2 else asked[-1]

    monkeypatch.setattr(Run, "corrected", first_is_wrong)
    with pytest.raises(RunError, match="differs from PyTorch by nan, expected at most 1e-05"):
        export_onnx(tiny_run, tiny, tmp_path / "made")
    assert len(asked) > 2 and not list(tmp_path.iterdir())


def test_without_onnxruntime_it_says_that_nothing_was_checked(
    tiny, tiny_run, tmp_path, monkeypatch
):
    pytest.importorskip("onnxscript")
    without(monkeypatch, "onnxruntime")
    monkeypatch.setattr(export, "_graph", lambda *_: pytest.importorskip("onnx").ModelProto())
    assert export_onnx(tiny_run, tiny, tmp_path / "made").difference is None


def test_an_export_that_differs_is_not_written(tiny, tiny_run, tmp_path, monkeypatch):
    pytest.importorskip("onnxscript")
    monkeypatch.setattr(export, "_graph", lambda *_: pytest.importorskip("onnx").ModelProto())
    for difference in (0.1, np.nan):
        monkeypatch.setattr(export, "_difference", lambda *_, found=difference: found)
        with pytest.raises(RunError, match=r"differs from PyTorch by (0\.1|nan), expected at most"):
            export_onnx(tiny_run, tiny, tmp_path / "made")
        assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "parameters",
    [
        {"similarity": True},
        {"cross_attention": 1},
        {
            "attention": "transformer",
            "inverted_mask": True,
            "senet": False,
            "bilinear": "off",
            "heads": 1,
        },
    ],
    ids=["similarity", "cross_attention", "inverted_mask"],
)
def test_parts_without_onnx_are_refused_in_a_sentence(
    tiny, tmp_path, monkeypatch, request, parameters
):
    monkeypatch.setattr(export, "import_onnx", lambda: None)
    run = trained(tiny, tmp_path / "runs", "v4", embedding_dim=8, **parameters)
    name = request.node.callspec.id
    with pytest.raises(RunError, match=f"because a part of its model, {name}, is "):
        export_onnx(run, tiny, tmp_path / "made")
    assert not (tmp_path / "made").exists()


def test_what_pytorch_cannot_trace_is_a_sentence(tiny, tiny_run, tmp_path, monkeypatch):
    pytest.importorskip("onnxscript")

    def forward(self, candidates, history):
        return candidates[: int(candidates.sum())] if candidates.sum() > 3 else history

    monkeypatch.setattr(export._OneUser, "forward", forward)
    with pytest.raises(RunError, match="cannot be exported, PyTorch finds no ONNX") as error:
        export_onnx(tiny_run, tiny, tmp_path / "made")
    assert len(str(error.value).splitlines()) == 1
    assert not list(tmp_path.iterdir())


def test_without_the_extra_it_says_what_to_install(tiny, tiny_run, tmp_path, monkeypatch):
    without(monkeypatch, "onnx")
    with pytest.raises(ConfigError, match=r"needs the extra onnx.*pip install 'onnx>="):
        export_onnx(tiny_run, tiny, tmp_path / "made")


def test_a_full_disk_leaves_nothing(tiny, tiny_run, tmp_path, monkeypatch):
    pytest.importorskip("onnxscript")
    monkeypatch.setattr(export, "_graph", lambda *_: pytest.importorskip("onnx").ModelProto())

    def full(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(export.pq, "write_table", full)
    with pytest.raises(MMCTRError, match=r"made could not be written .No space left"):
        export_onnx(tiny_run, tiny, tmp_path / "made")
    assert not list(tmp_path.iterdir())


def without(monkeypatch, name):
    """As if a package were not installed."""
    real = builtins.__import__

    def found(module, *arguments, **options):
        if module.split(".")[0] == name:
            raise ImportError(module)
        return real(module, *arguments, **options)

    monkeypatch.setattr(builtins, "__import__", found)
