"""What every preset promises: registering one is enough to have it tested."""

import numpy as np
import pytest
import torch
from sklearn.metrics import roc_auc_score

from mmctr.errors import RunError
from mmctr.model.din import DIN
from mmctr.model.presets import PRESETS
from mmctr.runs.run import Run
from mmctr.runs.train import resume, train
from mmctr.training.config import configs
from mmctr.training.prediction import predict
from mmctr.training.trainer import fit
from tests.checkerboard import KIND, checkerboard
from tests.runs.test_unfinished import require_equal, stop_at

# What makes a preset quick to train; what it is made of stays.
SMALL = {
    "epochs": 1,
    "batch_size": 200,
    "embedding_dim": 16,
    "content_dim": 16,
    "attention_hidden": (16,),
    "max_history": 4,
    "last_outputs": 2,
}


def small(preset, **more):
    """The values of SMALL, and narrow layers wherever the preset has some."""
    layers = ("hidden", "joined_hidden")
    narrow = {name: (16,) for name in layers if PRESETS[preset].get(name, name == "hidden")}
    return SMALL | narrow | more


# Those with a hyphen differ from another in widths or a mask alone.
@pytest.fixture(scope="module", params=[name for name in PRESETS if "-" not in name])
def preset(request):
    return request.param


@pytest.fixture(scope="module")
def run(preset, tiny, tmp_path_factory):
    """A model of the preset, trained on the tiny demo."""
    return train(tiny, "v4", *configs(preset, **small(preset)), tmp_path_factory.mktemp("runs"))


class TestPromises:
    """Trains, predicts a row alone as among others, survives save and load, resumes, learns."""

    def test_it_is_kept_as_it_was_asked_for(self, preset, run):
        kept = run.config["model"] | run.config["training"]
        wanted = PRESETS[preset] | small(preset)
        assert {name: kept[name] for name in wanted} == {
            name: list(value) if isinstance(value, tuple) else value
            for name, value in wanted.items()
        }

    def test_a_row_is_predicted_alone_as_among_others(self, run, tiny):
        rows = tiny.split("test").select(np.arange(40))
        together = predict(run.model(), rows, precision="float32")
        assert np.ptp(together) > 0
        alone = [
            predict(run.model(), rows.select(np.array([row])), precision="float32")[0]
            for row in range(0, 40, 7)
        ]
        np.testing.assert_allclose(together[::7], alone, rtol=1e-5)

    def test_a_saved_model_is_the_same_model(self, run, tiny):
        found = predict(Run.load(run.folder).model(), tiny.valid)
        np.testing.assert_array_equal(found, run.predictions["probability"])

    @pytest.mark.usefixtures("one_thread")
    def test_a_stopped_training_ends_as_if_left_alone(self, preset, tiny, tmp_path, monkeypatch):
        parameters = configs(preset, **small(preset))
        whole = train(tiny, "v4", *parameters, tmp_path / "whole")
        with monkeypatch.context() as patch:
            stop_at(patch, whole.history["epoch"].size * 2, KeyboardInterrupt())
            with pytest.raises(RunError, match="go on with mmctr train --resume"):
                train(tiny, "v4", *parameters, tmp_path / "stopped")
        (left,) = (tmp_path / "stopped").iterdir()
        require_equal(whole, resume(left, tiny))

    def test_it_learns_a_checkerboard(self, preset, tmp_path):
        board = checkerboard(tmp_path)
        quick = {"epochs": 12, "batch_size": 100, "learning_rate": 1e-2}
        free = {"embedding_l2": 1e-5, "network_l2": 0}
        model_config, train_config = configs(preset, **small(preset, **quick, **free))
        torch.manual_seed(1)
        model = DIN.for_catalog(model_config, board.catalog, board.catalog.text_features)
        fit(model, board, train_config)
        rows = board.valid
        expected = KIND[rows.target] == KIND[rows.history_items[rows.history_start]]
        assert roc_auc_score(expected, predict(model, rows)) > 0.99


def test_qin_has_as_many_parameters_as_published():
    """31.2 million on MicroLens_1M_x1 (arXiv 2504.17699)."""
    sizes = {"n_items": 91_717, "tags_per_item": 5, "n_tags": 11_740, "content_width": 128}
    with torch.device("meta"):
        model = DIN.of_sizes(configs("qin")[0], **sizes)
    trained = sum(weight.numel() for weight in model.parameters() if weight.requires_grad)
    assert round(trained / 1e6, 1) == 31.2


@pytest.mark.parametrize("name", ["momo", "qin", "mmctrers"])
def test_small_presets_are_the_same_systems(name):
    whole, small = (configs(preset) for preset in (name, f"{name}-small"))
    assert small[1] == whole[1], "trained as published"
    differing = {key for key, value in whole[0] if getattr(small[0], key) != value}
    widths = {"embedding_dim", "content_dim", "last_outputs"}
    assert differing <= widths | {"attention_hidden", "hidden", "joined_hidden"}
    assert small[0].embedding_dim * 4 == whole[0].embedding_dim
    assert len(small[0].hidden) == len(whole[0].hidden)
