"""How much quicker extraction is than a loop over single items, with small models on the CPU.

Usage: python benchmarks/extraction.py [ITEMS]. Prints seconds of the loop and of `extract`, their
ratio (at least 3 is promised on 2 cores) and the time split of decoding and encoding. Few items
show a lower ratio: the first batches and the start of the decoding processes count more.
"""

import json
import string
import sys
import tempfile
import time
from pathlib import Path

import open_clip
import torch
from PIL import Image
from transformers import AutoModel, AutoTokenizer, BertConfig, BertModel, BertTokenizerFast

from mmctr.content.extract import extract
from mmctr.data.catalog import load_catalog
from mmctr.data.demo import write_demo


def small_bert(folder: Path) -> Path:
    """A BERT of 4 layers and 128 numbers that spells titles letter by letter."""
    folder.mkdir()
    letters = string.ascii_lowercase + string.digits + string.punctuation
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *letters]
    words += [f"##{letter}" for letter in string.ascii_lowercase]
    (folder / "vocab.txt").write_text("\n".join(words))
    BertTokenizerFast(str(folder / "vocab.txt"), model_max_length=128).save_pretrained(folder)
    sizes = {"hidden_size": 128, "intermediate_size": 512, "num_attention_heads": 2}
    config = BertConfig(vocab_size=len(words), num_hidden_layers=4, **sizes)
    BertModel(config).save_pretrained(folder)
    return folder


def small_clip(folder: Path) -> Path:
    """A ViT of 4 layers for pictures of 64x64, with weights."""
    folder.mkdir()
    vision = {"image_size": 64, "layers": 4, "width": 128, "patch_size": 16, "head_width": 64}
    text = {"context_length": 8, "vocab_size": 64, "width": 16, "heads": 2, "layers": 1}
    config = {"embed_dim": 64, "vision_cfg": vision, "text_cfg": text}
    about = {"model_cfg": config, "preprocess_cfg": {}}
    (folder / "open_clip_config.json").write_text(json.dumps(about))
    weights = open_clip.CLIP(**config).state_dict()
    torch.save(weights, folder / "open_clip_pytorch_model.bin")
    return folder


@torch.inference_mode()
def loop(data: Path, bert: Path, clip: Path) -> dict[str, float]:
    """Seconds by medium of the plain way: every title and every cover on its own."""
    catalog, seconds = load_catalog(data), {}
    tokenizer, model = AutoTokenizer.from_pretrained(bert), AutoModel.from_pretrained(bert).eval()
    start = time.perf_counter()
    for title in catalog.titles[1:]:
        model(**tokenizer(title, truncation=True, return_tensors="pt")).last_hidden_state[:, 0]
    seconds["text"] = time.perf_counter() - start
    model, _, preprocess = open_clip.create_model_and_transforms(f"local-dir:{clip}")
    model.eval()
    start = time.perf_counter()
    for path in catalog.covers.values():
        model.encode_image(preprocess(Image.open(path)).unsqueeze(0))
    seconds["image"] = time.perf_counter() - start
    return seconds


def main(items: int) -> None:
    """Measure on the covers and titles of a demo dataset."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        bert, clip = small_bert(folder / "bert"), small_clip(folder / "clip")
        data = write_demo(folder / "items", items=items, users=64)
        plain = loop(data, bert, clip)
        summary = extract(data, text_model=str(bert), image_model=str(clip))
        quick = {name: medium.seconds for name, medium in summary.media.items()}
        for medium in ("text", "image"):
            ratio = plain[medium] / quick[medium]
            print(
                f"{medium:<6} loop {plain[medium]:6.1f} s, extract {quick[medium]:6.1f} s", end=""
            )
            print(f", {ratio:4.1f} times as fast", summary.media[medium].stages)
        total = sum(plain.values()) / sum(quick.values())
        print(f"both: {total:.1f} times as fast with {torch.get_num_threads()} threads")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 8000)
