"""Titles to vectors: what transformers itself computes, whatever the title."""

import subprocess
import sys

import numpy as np
import pytest
import torch
from transformers import (
    AutoModel,
    AutoTokenizer,
    BertConfig,
    BertModel,
    RobertaConfig,
    RobertaModel,
    T5Config,
    T5Model,
)

from mmctr.content.text import TextEncoder
from mmctr.errors import ConfigError, ModelNotFoundError

CPU = torch.device("cpu")
TITLES = [
    "red boat",
    "a",
    "the lake " * 1200,  # over 10,000 characters
    "🚀🔥 emoji 👩‍👩‍👧",
    "مرحبا بالعالم",
    "שלום",
    "<b>bold</b> &amp; <script>alert(1)</script>",
    "\x00\ufffd\u200b",
    "noodles, 2024",
]


def encode(encoder, *shards, batch_size=4):
    return list(encoder.encode_shards(list(shards), batch_size, lambda _: None))


def direct(folder, title, pooling):
    """One title through transformers, as its documentation shows."""
    tokens = AutoTokenizer.from_pretrained(folder)(
        title, truncation=True, max_length=24, return_tensors="pt"
    )
    with torch.no_grad():
        hidden = AutoModel.from_pretrained(folder).eval()(**tokens).last_hidden_state[0]
    return (hidden[0] if pooling == "cls" else hidden.mean(0)).numpy()


@pytest.mark.parametrize("pooling", ["cls", "mean"])
def test_equals_transformers_one_at_a_time(bert, pooling):
    (features, reasons, _), *_ = encode(TextEncoder(str(bert), pooling, CPU), TITLES)
    assert features.dtype == np.float32 and features.shape == (len(TITLES), 32)
    assert reasons == [None] * len(TITLES)
    for title, vector in zip(TITLES, features, strict=True):
        np.testing.assert_allclose(vector, direct(bert, title, pooling), atol=1e-5)
    assert np.ptp(features[:2], axis=0).max() > 0.1  # titles are told apart


def test_empty_titles_are_zero_with_a_reason(bert):
    (features, reasons, _), (empty, _, _) = encode(
        TextEncoder(str(bert), "cls", CPU), ["", "boat", " \n\t"], [""]
    )
    assert reasons == ["empty title", None, "empty title"]
    assert not features[[0, 2]].any() and features[1].any() and not empty.any()


def test_a_shard_does_not_depend_on_its_neighbours(bert):
    encoder = TextEncoder(str(bert), "mean", CPU)
    (alone, *_), *_ = encode(encoder, TITLES, batch_size=2)
    _, (beside, *_) = encode(encoder, ["boat"] * 5, TITLES, batch_size=2)
    assert alone.tobytes() == beside.tobytes()


def test_facts_change_with_the_weights(bert, tmp_path):
    encoder = TextEncoder(str(bert), "cls", CPU)
    assert encoder.facts["model"] == str(bert) and encoder.facts["width"] == 32
    encoder.tokenizer.save_pretrained(tmp_path)
    BertModel(BertConfig.from_pretrained(bert)).save_pretrained(tmp_path)
    assert TextEncoder(str(tmp_path), "cls", CPU).facts["weights"] != encoder.facts["weights"]


@pytest.mark.parametrize("family", ["roberta", "t5"])
def test_other_families_and_their_longest_input(bert, tmp_path, family):
    tokenizer = AutoTokenizer.from_pretrained(bert, model_max_length=10**30)
    tokenizer.save_pretrained(tmp_path)
    sizes = {"vocab_size": len(tokenizer), "num_hidden_layers": 1}
    if family == "roberta":
        sizes |= {"hidden_size": 16, "num_attention_heads": 2, "max_position_embeddings": 26}
        RobertaModel(RobertaConfig(pad_token_id=1, **sizes)).save_pretrained(tmp_path)
    else:
        T5Model(T5Config(d_model=16, d_ff=16, **sizes)).save_pretrained(tmp_path)
    encoder = TextEncoder(str(tmp_path), "mean", CPU)
    assert encoder.max_tokens == (24 if family == "roberta" else 512)
    (features, *_), *_ = encode(encoder, TITLES)
    assert features.any(axis=1).all()


def test_unknown_pooling_is_one_sentence(bert):
    with pytest.raises(ConfigError, match=r"Found pooling 'max', expected one of cls, mean\."):
        TextEncoder(str(bert), "max", CPU)


def test_a_folder_without_model_and_one_without_all_weights(bert, tmp_path):
    with pytest.raises(ModelNotFoundError, match="holds no text encoder that transformers can"):
        TextEncoder(str(tmp_path), "cls", CPU)
    AutoTokenizer.from_pretrained(bert).save_pretrained(tmp_path)
    config = BertConfig.from_pretrained(bert)
    model = BertModel(config)
    weights = {name: value for name, value in model.state_dict().items() if "layer.1" not in name}
    model.save_pretrained(tmp_path, state_dict=weights)
    with pytest.raises(ModelNotFoundError, match=r"lacks 16 of its weights \(such as encoder"):
        TextEncoder(str(tmp_path), "cls", CPU)


def test_offline_a_missing_model_is_one_sentence(tmp_path):
    code = (
        "import torch\nfrom mmctr.content.text import TextEncoder\n"
        "from mmctr.errors import ModelNotFoundError\n"
        "try:\n    TextEncoder('google-bert/bert-base-uncased', 'cls', torch.device('cpu'))\n"
        "except ModelNotFoundError as error:\n    print(error)"
    )
    env = {"HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path), "PATH": ""}
    done = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True)
    assert done.stdout.strip() == (
        "The text encoder google-bert/bert-base-uncased is neither a local folder nor in "
        f"{tmp_path}/hub and HF_HUB_OFFLINE forbids fetching it: run `hf download "
        "google-bert/bert-base-uncased` where there is a network, or name a folder with "
        "--text-model."
    )


def test_a_run_loads_in_a_process_that_read_a_text_model(bert, tiny_run):
    # transformers replaces torch.linspace while it loads, and PyTorch remembers the substitute.
    code = (
        "import sys, pathlib, torch\n"
        "from mmctr.content.text import TextEncoder\n"
        "from mmctr.runs.run import Run\n"
        "TextEncoder(sys.argv[1], 'cls', torch.device('cpu'))\n"
        "Run.load(pathlib.Path(sys.argv[2])).model()\n"
    )
    command = [sys.executable, "-c", code, str(bert), str(tiny_run.folder)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
