"""Small real encoders on disk, and folders of items to extract."""

import json
import string

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
import transformers as hf  # it imports its classes, which take seconds, as they are used
from PIL import Image
from tokenizers import Tokenizer, models, pre_tokenizers

VISION = {"image_size": 32, "layers": 2, "width": 32, "patch_size": 8, "head_width": 16}
TEXT = {"context_length": 8, "vocab_size": 64, "width": 16, "heads": 2, "layers": 1}


@pytest.fixture(autouse=True)
def always_one_thread(one_thread):
    """Whatever is encoded here is compared with what other processes encode."""


@pytest.fixture(scope="module", autouse=True)
def small_batches():
    """Small data need no large ones, whose every pair is compared with every other."""
    from mmctr.content import alignment

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(alignment, "BATCH", 128)
        yield


@pytest.fixture(scope="session")
def bert(tmp_path_factory):
    """A folder with a BertModel of 32 numbers, at most 24 tokens, and its tokenizer."""
    folder = tmp_path_factory.mktemp("models") / "bert"
    folder.mkdir()
    letters = string.ascii_lowercase + string.digits + string.punctuation
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *letters]
    words += [f"##{letter}" for letter in string.ascii_lowercase]
    (folder / "vocab.txt").write_text("\n".join(words))
    hf.BertTokenizerFast(str(folder / "vocab.txt"), model_max_length=512).save_pretrained(folder)
    torch.manual_seed(0)
    sizes = {"hidden_size": 32, "intermediate_size": 64, "num_attention_heads": 4}
    sizes |= {"vocab_size": len(words), "num_hidden_layers": 2, "max_position_embeddings": 24}
    hf.BertModel(hf.BertConfig(initializer_range=0.5, **sizes)).save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def gpt(tmp_path_factory):
    """A folder with a GPT2Model of 32 numbers and a tokenizer of words, without special ones."""
    folder = tmp_path_factory.mktemp("models") / "gpt"
    words = [
        "<unk>",
        *["red", "boat", "on", "the", "lake", "chef", "noodles", "2024"],
        *string.ascii_lowercase,
    ]
    vocabulary = {word: number for number, word in enumerate(words)}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    hf.PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token="<unk>").save_pretrained(
        folder
    )
    torch.manual_seed(0)
    sizes = {"n_embd": 32, "n_head": 4, "n_layer": 2, "n_positions": 24, "vocab_size": len(words)}
    hf.GPT2LMHeadModel(hf.GPT2Config(initializer_range=0.5, **sizes)).save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def clip(tmp_path_factory):
    """A folder with an open_clip model of 24 numbers for pictures of 32x32, and its weights."""
    import open_clip  # which takes seconds

    folder = tmp_path_factory.mktemp("models") / "clip"
    folder.mkdir()
    torch.manual_seed(0)
    config = {"embed_dim": 24, "vision_cfg": VISION, "text_cfg": TEXT}
    preprocess = {"mean": [0.4, 0.5, 0.6], "std": [0.2, 0.3, 0.4]}
    about = {"model_cfg": config, "preprocess_cfg": preprocess}
    (folder / "open_clip_config.json").write_text(json.dumps(about))
    (folder / "tiny-clip.json").write_text(json.dumps(config))
    model = open_clip.CLIP(**config)
    torch.save(model.state_dict(), folder / "open_clip_pytorch_model.bin")
    return folder


@pytest.fixture(scope="session")
def make_items():
    """A function that writes a folder of items with covers; what it writes is reproducible."""

    def make(folder, items=40, covers=True, seed=0):
        rng = np.random.default_rng(seed)
        folder.mkdir()
        words = ["red", "boat", "on", "the", "lake", "chef", "noodles", "2024"]
        titles = [" ".join(rng.choice(words, rng.integers(1, 9))) for _ in range(items)]
        columns = {
            "item_id": np.arange(1, items + 1),
            "item_title": titles,
            "item_tags": [[1, 2, 0, 0, 0]] * items,
            "likes_level": np.ones(items, np.int8),
            "views_level": np.ones(items, np.int8),
        }
        pq.write_table(pa.table(columns), folder / "item_feature.parquet")
        if covers:
            (folder / "item_images").mkdir()
            for item in range(1, items + 1):
                pixels = rng.integers(0, 256, (40, 56, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(folder / "item_images" / f"{item}.jpg")
        return folder

    return make
