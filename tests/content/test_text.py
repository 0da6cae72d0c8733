"""Titles to vectors: what transformers itself computes, whatever the title."""

import json
import shutil
import subprocess
import sys

import numpy as np
import pytest
import torch
import transformers as hf
from tokenizers import Tokenizer, models, pre_tokenizers, processors

from mmctr.content.text import TextEncoder
from mmctr.errors import ConfigError, ModelNotFoundError

CPU = torch.device("cpu")
ST = "sentence_transformers.models"
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
    tokens = hf.AutoTokenizer.from_pretrained(folder)(
        title, truncation=True, max_length=24, return_tensors="pt"
    )
    with torch.no_grad():
        hidden = hf.AutoModel.from_pretrained(folder).eval()(**tokens).last_hidden_state[0]
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
    hf.BertModel(hf.BertConfig.from_pretrained(bert)).save_pretrained(tmp_path)
    assert TextEncoder(str(tmp_path), "cls", CPU).facts["weights"] != encoder.facts["weights"]


@pytest.mark.parametrize("family", ["roberta", "t5"])
def test_other_families_and_their_longest_input(bert, tmp_path, family):
    tokenizer = hf.AutoTokenizer.from_pretrained(bert, model_max_length=10**30)
    tokenizer.save_pretrained(tmp_path)
    sizes = {"vocab_size": len(tokenizer), "num_hidden_layers": 1}
    if family == "roberta":
        sizes |= {"hidden_size": 16, "num_attention_heads": 2, "max_position_embeddings": 26}
        hf.RobertaModel(hf.RobertaConfig(pad_token_id=1, **sizes)).save_pretrained(tmp_path)
    else:
        hf.T5Model(hf.T5Config(d_model=16, d_ff=16, **sizes)).save_pretrained(tmp_path)
    encoder = TextEncoder(str(tmp_path), "mean", CPU)
    assert encoder.max_tokens == (24 if family == "roberta" else 512)
    (features, *_), *_ = encode(encoder, TITLES)
    assert features.any(axis=1).all()


def test_unknown_pooling_is_one_sentence(bert):
    expected = r"Found pooling 'sum', expected one of auto, cls, mean, max, lasttoken\."
    with pytest.raises(ConfigError, match=expected):
        TextEncoder(str(bert), "sum", CPU)


BY_HAND = {
    "cls": lambda hidden: hidden[0],
    "mean": lambda hidden: hidden.sum(0) / len(hidden),
    "max": lambda hidden: hidden.max(0),
    "lasttoken": lambda hidden: hidden[-1],
}
FLAGS = {
    "cls": "pooling_mode_cls_token",
    "mean": "pooling_mode_mean_tokens",
    "max": "pooling_mode_max_tokens",
    "lasttoken": "pooling_mode_lasttoken",
    "sqrt": "pooling_mode_mean_sqrt_len_tokens",
}


def hidden_states(folder, title):
    """The last layer of one title alone, [tokens, width]."""
    tokens = hf.AutoTokenizer.from_pretrained(folder)(
        title, truncation=True, max_length=24, return_tensors="pt"
    )
    with torch.no_grad():
        return hf.AutoModel.from_pretrained(folder).eval()(**tokens).last_hidden_state[0].numpy()


def sentence_transformer(folder, model, *modules, pooling=None, inside=""):
    """A folder as sentence-transformers saves it: a model and what is done with its tokens."""
    shutil.copytree(model, folder / inside, dirs_exist_ok=True)
    listed = [{"idx": 0, "name": "0", "path": inside, "type": f"{ST}.Transformer"}]
    for place, kind in enumerate(modules, start=1):
        path = f"{place}_{kind}"
        listed.append({"idx": place, "name": f"{place}", "path": path, "type": f"{ST}.{kind}"})
        (folder / path).mkdir()
    (folder / "modules.json").write_text(json.dumps(listed))
    if pooling is not None:
        about = {"word_embedding_dimension": 32} | pooling
        (folder / "1_Pooling" / "config.json").write_text(json.dumps(about))
    return folder


@pytest.mark.parametrize("inside", ["", "0_Transformer"])
@pytest.mark.parametrize("pooling", BY_HAND)
def test_a_folder_of_sentence_transformers_is_pooled_as_it_declares(
    bert, tmp_path, pooling, inside
):
    modules, flags = ["Pooling"], {flag: name == pooling for name, flag in FLAGS.items()}
    if pooling in ("mean", "lasttoken"):
        modules.append("Normalize")
    folder = sentence_transformer(tmp_path, bert, *modules, pooling=flags, inside=inside)
    encoder = TextEncoder(str(folder), "auto", CPU)
    (features, *_), *_ = encode(encoder, TITLES)
    for title, vector in zip(TITLES, features, strict=True):
        expected = BY_HAND[pooling](hidden_states(bert, title))
        if "Normalize" in modules:
            expected = expected / np.sqrt((expected**2).sum())
        np.testing.assert_allclose(vector, expected, atol=1e-5)
    assert pooling in encoder.facts["pooling"]
    assert ("normalize" in encoder.facts["pooling"]) == ("Normalize" in modules)
    # An explicit pooling is that pooling, and nothing beside it.
    (features, *_), *_ = encode(TextEncoder(str(folder), "max", CPU), TITLES[:1])
    expected = BY_HAND["max"](hidden_states(bert, TITLES[0]))
    np.testing.assert_allclose(features[0], expected, atol=1e-5)


@pytest.mark.parametrize(
    ("declared", "pooling"),
    [({"pooling_mode": "max"}, "max"), ({}, "mean"), ({FLAGS["cls"]: True}, "cls")],
)
def test_other_ways_to_declare_a_pooling(bert, tmp_path, declared, pooling):
    folder = sentence_transformer(tmp_path, bert, "Pooling", pooling=declared)
    assert TextEncoder(str(folder), "auto", CPU).facts["pooling"] == pooling


def test_without_a_declaration_an_encoder_gives_its_first_token(bert):
    encoder, explicit = (TextEncoder(str(bert), pooling, CPU) for pooling in ("auto", "cls"))
    assert encoder.facts == explicit.facts and encoder.facts["pooling"] == "cls"


def test_a_decoder_gives_its_last_token_that_is_no_padding(gpt):
    encoder = TextEncoder(str(gpt), "auto", CPU)
    titles = ["red boat", "red boat on the lake", "red", "red chef", "noodles 2024 " * 30]
    (features, *_), *_ = encode(encoder, titles, batch_size=5)
    for title, vector in zip(titles, features, strict=True):
        np.testing.assert_allclose(vector, hidden_states(gpt, title)[-1], atol=1e-5)
    assert encoder.facts["pooling"] == "lasttoken" and encoder.max_tokens == 24
    (first, *_), *_ = encode(TextEncoder(str(gpt), "cls", CPU), titles[:4])
    assert np.ptp(first, axis=0).max() < 1e-5  # which is why: it has seen nothing but "red"


def test_an_encoder_that_was_made_a_decoder_gives_its_last_token(bert, tmp_path):
    shutil.copytree(bert, tmp_path, dirs_exist_ok=True)
    config = json.loads((bert / "config.json").read_text()) | {"is_decoder": True}
    (tmp_path / "config.json").write_text(json.dumps(config))
    assert TextEncoder(str(tmp_path), "auto", CPU).facts["pooling"] == "lasttoken"


def test_a_title_without_any_token_is_zero_with_a_reason(gpt, tmp_path):
    shutil.copytree(gpt, tmp_path, dirs_exist_ok=True)
    tokenizer = json.loads((gpt / "tokenizer.json").read_text())
    tokenizer["normalizer"] = {"type": "Replace", "pattern": {"String": "!"}, "content": ""}
    (tmp_path / "tokenizer.json").write_text(json.dumps(tokenizer))
    encoder = TextEncoder(str(tmp_path), "auto", CPU)
    (features, reasons, _), (nothing, _, _) = encode(encoder, ["!", "red boat", "!!"], ["!"])
    assert reasons == ["no tokens", None, "no tokens"] and not features[[0, 2]].any()
    np.testing.assert_allclose(features[1], hidden_states(gpt, "red boat")[-1], atol=1e-5)
    assert not nothing.any()


@pytest.fixture(scope="module")
def clip_text(tmp_path_factory):
    """A folder with a CLIPModel of transformers whose text embedding is narrower than its tower."""
    folder = tmp_path_factory.mktemp("models") / "clip"
    words = [
        "<unk>",
        *["red", "boat", "on", "the", "lake", "chef", "noodles", "2024"],
        "<s>",
        "</s>",
    ]
    vocabulary = {word: number for number, word in enumerate(words)}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", special_tokens=[(word, vocabulary[word]) for word in words[-2:]]
    )
    special = {"unk_token": "<unk>", "bos_token": "<s>", "eos_token": "</s>"}
    hf.PreTrainedTokenizerFast(tokenizer_object=tokenizer, **special).save_pretrained(folder)
    sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    sizes |= {"intermediate_size": 16, "initializer_factor": 20.0}
    text = sizes | {"vocab_size": len(words), "max_position_embeddings": 9}
    text |= {"bos_token_id": vocabulary["<s>"], "eos_token_id": vocabulary["</s>"]}
    vision = sizes | {"image_size": 8, "patch_size": 4}
    torch.manual_seed(0)
    config = hf.CLIPConfig(text_config=text, vision_config=vision, projection_dim=10)
    hf.CLIPModel(config).save_pretrained(folder)
    return folder


@pytest.mark.parametrize("declared", [False, True])
def test_clip_gives_its_projected_text_embedding(clip_text, tmp_path, declared):
    folder = clip_text
    if declared:
        folder = sentence_transformer(tmp_path, clip_text, inside="0_CLIPModel")
    encoder = TextEncoder(str(folder), "auto", CPU)
    titles = ["red boat", "the lake on the lake 2024", "chef", "zebra", "noodles " * 30]
    (features, *_), *_ = encode(encoder, titles, batch_size=5)
    model, tokenizer = (
        hf.CLIPModel.from_pretrained(clip_text),
        hf.AutoTokenizer.from_pretrained(clip_text),
    )
    for title, vector in zip(titles, features, strict=True):
        tokens = tokenizer(title, truncation=True, max_length=9, return_tensors="pt")
        with torch.no_grad():
            hidden = model.eval().text_model(**tokens).last_hidden_state[0].numpy()
        projection = model.text_projection.weight.detach().numpy()
        np.testing.assert_allclose(vector, projection @ hidden[-1], atol=1e-5)
    assert encoder.width == 10 and encoder.max_tokens == 9
    assert np.ptp(features, axis=0).max() > 0.1
    # Another pooling is one of the text tower's tokens.
    (features, *_), *_ = encode(TextEncoder(str(folder), "mean", CPU), ["chef"])
    with torch.no_grad():
        hidden = model.text_model(**tokenizer("chef", return_tensors="pt")).last_hidden_state[0]
    np.testing.assert_allclose(features[0], hidden.numpy().mean(0), atol=1e-5)


@pytest.mark.parametrize(
    ("modules", "pooling", "words"),
    [
        (["Pooling", "Dense"], {FLAGS["mean"]: True}, "declares a module Dense"),
        (["Pooling"], {FLAGS["sqrt"]: True}, "declares the pooling mean_sqrt_len"),
        (["Pooling"], {FLAGS["cls"]: True, FLAGS["mean"]: True}, r"the pooling cls \+ mean"),
        (["Pooling"], {"pooling_mode": "<b>"}, "declares the pooling <b>"),
        (["Pooling"], {"pooling_mode": 3}, "declares the pooling 3"),
        (["Pooling"], None, r"1_Pooling/config\.json .*is missing"),
    ],
)
def test_a_declaration_that_cannot_be_followed_is_one_sentence(
    bert, tmp_path, modules, pooling, words
):
    folder = sentence_transformer(tmp_path, bert, *modules, pooling=pooling)
    with pytest.raises(ModelNotFoundError, match=words) as caught:
        TextEncoder(str(folder), "auto", CPU)
    sentence = str(caught.value)
    assert str(folder) in sentence and "--pooling" in sentence and ". " not in sentence
    assert TextEncoder(str(folder), "mean", CPU).facts["pooling"] == "mean"


@pytest.mark.parametrize("content", ["", "[", "{}", "[1]", '[{"path": ""}]', '[{"type": "a.b"}]'])
def test_a_damaged_declaration_is_one_sentence(bert, tmp_path, content):
    shutil.copytree(bert, tmp_path, dirs_exist_ok=True)
    (tmp_path / "modules.json").write_text(content)
    with pytest.raises(ModelNotFoundError, match=r"modules\.json .*is damaged") as caught:
        TextEncoder(str(tmp_path), "auto", CPU)
    assert str(tmp_path) in str(caught.value) and ". " not in str(caught.value)


@pytest.mark.parametrize("pooling", ["auto", "mean"])
def test_a_model_that_reads_no_text_is_one_sentence(bert, tmp_path, pooling):
    hf.AutoTokenizer.from_pretrained(bert).save_pretrained(tmp_path)
    sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    config = hf.ViTConfig(intermediate_size=16, image_size=8, patch_size=4, **sizes)
    hf.ViTModel(config).save_pretrained(tmp_path)
    with pytest.raises(ModelNotFoundError, match="gives no vector of a title") as caught:
        TextEncoder(str(tmp_path), pooling, CPU)
    sentence = str(caught.value)
    assert str(tmp_path) in sentence and "--text-model" in sentence and ". " not in sentence


def test_a_folder_without_model_and_one_without_all_weights(bert, tmp_path):
    with pytest.raises(ModelNotFoundError, match="holds no text encoder that transformers can"):
        TextEncoder(str(tmp_path), "cls", CPU)
    hf.AutoTokenizer.from_pretrained(bert).save_pretrained(tmp_path)
    config = hf.BertConfig.from_pretrained(bert)
    model = hf.BertModel(config)
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
