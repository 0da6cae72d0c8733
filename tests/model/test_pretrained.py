"""A model's own folder gives the very same model back, or one sentence."""

import json
import os
import pickle
import shutil
import subprocess
import sys

import huggingface_hub
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from mmctr.errors import RunError
from mmctr.model.din import DIN
from mmctr.training.config import configs
from mmctr.training.prediction import predict
from tests.fuzz.cases import limited_memory

FILES = {"config.json", "model.safetensors", "README.md"}


@pytest.fixture
def saved(tiny_run, tmp_path):
    """The tiny run's model in a folder of its own."""
    tiny_run.model().save_pretrained(tmp_path / "saved")
    return tmp_path / "saved"


def test_a_saved_model_predicts_the_very_same(tiny, tiny_run, saved):
    assert {path.name for path in saved.iterdir()} == FILES
    model = DIN.from_pretrained(saved)
    assert not model.training
    np.testing.assert_array_equal(predict(model, tiny.valid), tiny_run.predictions["probability"])
    model.save_pretrained(saved.with_name("again"))
    for name in FILES:
        assert (saved / name).read_bytes() == (saved.with_name("again") / name).read_bytes()


def test_a_run_is_such_a_folder_too(tiny, tiny_run):
    model = DIN.from_pretrained(str(tiny_run.folder))
    np.testing.assert_array_equal(predict(model, tiny.valid), tiny_run.predictions["probability"])


def test_a_model_from_before_identities_were_hidden_is_read_as_it_was(tiny, tmp_path):
    model = DIN.for_catalog(configs(hidden=(4,), identity_dropout=0)[0], tiny.catalog, None)
    model.save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    for name in ("identity_dropout", "min_clicks"):
        del config["model"][name]
    (tmp_path / "config.json").write_text(json.dumps(config))
    np.testing.assert_array_equal(
        predict(DIN.from_pretrained(tmp_path), tiny.valid), predict(model, tiny.valid)
    )


def test_a_model_without_a_run_has_a_plain_card_over_an_older_one(tiny, saved):
    model = DIN.for_catalog(configs(hidden=(4,))[0], tiny.catalog, None)
    model.save_pretrained(saved)
    assert "nothing is known of its data and metrics" in (saved / "README.md").read_text()
    assert DIN.from_pretrained(saved).sizes == model.sizes


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"model": 3}', "\x80", "[" * 100_000, None])
def test_a_damaged_configuration_is_one_sentence(saved, content):
    (saved / "config.json").unlink()
    if content is not None:
        (saved / "config.json").write_text(content, encoding="latin-1")
    with pytest.raises(RunError, match=r"holds no model, its config\.json") as caught:
        DIN.from_pretrained(saved)
    assert str(saved) in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("size", "value", "message"),
    [
        ("n_items", 2**40, r"embedding\.[\w.]+ is .*, expected"),
        ("n_tags", -1, "sizes.n_tags: found -1"),
        ("content_width", "wide", "sizes.content_width: found 'wide'"),
    ],
)
def test_odd_sizes_are_refused_before_memory_is_taken(saved, size, value, message):
    config = json.loads((saved / "config.json").read_text())
    config["sizes"][size] = value
    (saved / "config.json").write_text(json.dumps(config))
    with limited_memory(), pytest.raises(RunError, match=message):
        DIN.from_pretrained(saved)


def test_weights_that_are_gone_cut_or_not_finite_are_refused(saved):
    path = saved / "model.safetensors"
    sound, weights = path.read_bytes(), load_file(path)
    for spoilt in (None, b"", sound[: len(sound) // 2], pickle.dumps({"a": 1}), "nan"):
        path.unlink(missing_ok=True)
        if spoilt == "nan":
            save_file(weights | {"output.bias": weights["output.bias"] * np.nan}, path)
        elif spoilt is not None:
            path.write_bytes(spoilt)
        with pytest.raises(RunError, match=r"model\.safetensors does not fit config\.json"):
            DIN.from_pretrained(saved)


def test_a_name_that_is_nowhere_is_one_sentence(tmp_path):
    for name in ("someone/absent", "no such/name/at all"):
        with pytest.raises(RunError, match="is neither a folder nor a model"):
            DIN.from_pretrained(name, local_files_only=True, cache_dir=tmp_path)


def test_a_model_is_pushed_with_its_card(monkeypatch, tiny, tiny_run, tmp_path):
    class Hub:
        """What the mixin calls of HfApi, on a folder."""

        def __init__(self, token=None):
            pass

        def create_repo(self, repo_id, **_):
            (tmp_path / repo_id).mkdir(parents=True)
            return huggingface_hub.RepoUrl(f"https://huggingface.co/{repo_id}")

        def upload_folder(self, repo_id, folder_path, **_):
            shutil.copytree(folder_path, tmp_path / repo_id, dirs_exist_ok=True)
            return f"https://huggingface.co/{repo_id}/commit/1"

    def download(repo_id, allow_patterns, revision=None):
        assert (set(allow_patterns), revision) == (FILES, "main")
        return str(tmp_path / repo_id)

    monkeypatch.setattr("huggingface_hub.hub_mixin.HfApi", Hub)
    monkeypatch.setattr("huggingface_hub.snapshot_download", download)
    assert tiny_run.model().push_to_hub("me/my-din").endswith("/commit/1")
    assert {path.name for path in (tmp_path / "me" / "my-din").iterdir()} == FILES
    model = DIN.from_pretrained("me/my-din", revision="main")
    np.testing.assert_array_equal(predict(model, tiny.valid), tiny_run.predictions["probability"])
    assert model.card == tiny_run.model().card


def test_training_needs_no_hub():
    code = """
import sys
sys.modules["huggingface_hub"] = None
from mmctr.training import trainer
from mmctr.model.din import DIN
assert not hasattr(DIN, "push_to_hub")
try:
    DIN.from_pretrained("someone/model")
except Exception as error:
    assert type(error).__name__ == "RunError", error
    print(error)
"""
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=dict(os.environ)
    )
    assert "is neither a folder nor a model" in done.stdout, done.stderr
