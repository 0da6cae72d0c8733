"""Titles to vectors, with any Hugging Face encoder."""

import hashlib
import re
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch

from mmctr.content.defaults import POOLINGS, TEXT_MODEL
from mmctr.content.pooling import Module, declared_modules, declared_pooling, is_causal, pooled
from mmctr.errors import ConfigError, ModelNotFoundError

MEDIUM = "text"
PROJECTION = "projection"  # the pooling of CLIP, which is trained with its text tower
LONGEST = 512  # tokens, where neither model nor tokenizer knows a limit
# One shard: float32 [n, width], the reason of each zero vector or None [n], seconds by stage.
Encoded = tuple[np.ndarray, list[str | None], dict[str, float]]


class TextEncoder:
    """A transformers encoder with its tokenizer; `facts` is all that decides its vectors."""

    def __init__(self, model: str, pooling: str, device: torch.device) -> None:
        """Load a local folder or a model of the hub.

        pooling: one of POOLINGS; auto takes what the folder declares, CLIP's text embedding, the
        last token of a decoder, and else the first one. Raises ModelNotFoundError if the model
        cannot be had or gives no vector of a title, ConfigError for an unknown pooling.
        """
        if pooling not in POOLINGS:
            raise ConfigError(f"Found pooling {pooling!r}, expected one of {', '.join(POOLINGS)}.")
        tokenizer, encoder, modules = _load(model)
        if encoder.config.is_encoder_decoder:
            encoder = encoder.get_encoder()
        if tokenizer.pad_token is None:  # any will do: what is padded is masked
            spare = tokenizer.eos_token or tokenizer.unk_token
            tokenizer.pad_token = spare or tokenizer.convert_ids_to_tokens(0)
        tokenizer.padding_side = "right"  # so that the first token is the first, also in a batch
        self.device, self.tokenizer, self.normalize = device, tokenizer, False
        self.max_tokens = _max_tokens(tokenizer, encoder)
        self.facts = {
            "model": model,
            "max_tokens": self.max_tokens,
            "weights": fingerprint(encoder),
            "tokenizer": _tokenizer_fingerprint(tokenizer),
            "transformers": version("transformers"),
            "torch": torch.__version__,
        }
        self.model = encoder.eval().to(device)
        if pooling == "auto":
            pooling, self.normalize = declared_pooling(model, modules)
        elif _is_clip(encoder):
            self.model = encoder.text_model
        try:
            self.pooling = pooling or self._default_pooling()
            self.width = self._encode(dict(tokenizer(["a title"]))).shape[1]
        except Exception as error:  # models of other media raise nearly anything
            raise ModelNotFoundError(
                f"The text encoder {model} gives no vector of a title ({first_sentence(error)}): "
                f"name one that reads text with --text-model, such as {TEXT_MODEL}."
            ) from error
        self.facts["pooling"] = self.pooling + (" + normalize" if self.normalize else "")
        self.facts["width"] = self.width

    def encode_shards(
        self, shards: list[list[str]], batch_size: int, advance: Callable[[int], object]
    ) -> Iterator[Encoded]:
        """Yield the vectors of each shard's titles; `advance` hears of items that are done.

        Batches are cut within a shard, shortest titles first, so that a shard's bytes depend on
        nothing but the shard.
        """
        for titles in shards:
            start = time.perf_counter()
            features = np.zeros((len(titles), self.width), dtype=np.float32)
            reasons = [None if title.strip() else "empty title" for title in titles]
            rows = [row for row, reason in enumerate(reasons) if reason is None]
            tokens = {"input_ids": []}
            if kept := [titles[row] for row in rows]:
                tokens = self.tokenizer(kept, truncation=True, max_length=self.max_tokens)
            lengths = np.array([len(ids) for ids in tokens["input_ids"]], dtype=int)
            for place in np.flatnonzero(lengths == 0):
                reasons[rows[place]] = "no tokens"
            order = np.argsort(lengths, kind="stable")[np.sum(lengths == 0) :]
            advance(len(titles) - len(order))
            for first in range(0, len(order), batch_size):
                part = order[first : first + batch_size]
                batch = {name: [values[place] for place in part] for name, values in tokens.items()}
                features[[rows[place] for place in part]] = self._encode(batch)
                advance(len(part))
            yield features, reasons, {"encode": time.perf_counter() - start}

    def _encode(self, batch: dict[str, list[list[int]]]) -> np.ndarray:
        """Token lists to float32 [batch, width]."""
        padded = self.tokenizer.pad(batch, return_tensors="pt").to(self.device)
        with inference(self.device):
            if self.pooling == PROJECTION:
                found = self.model.get_text_features(**padded)
                vectors = getattr(found, "pooler_output", found).float()  # a tensor before 5.0
            else:
                hidden = self.model(**padded).last_hidden_state
                vectors = pooled(hidden, padded["attention_mask"], self.pooling)
        if self.normalize:
            vectors = torch.nn.functional.normalize(vectors)
        return vectors.cpu().numpy()

    def _default_pooling(self) -> str:
        if _is_clip(self.model):
            return PROJECTION
        return "lasttoken" if is_causal(self.model) else "cls"


@contextmanager
def inference(device: torch.device) -> Iterator[None]:
    """No gradients, and bf16 where it is quick: on a GPU."""
    autocast = torch.autocast(device.type, torch.bfloat16, enabled=device.type == "cuda")
    with torch.inference_mode(), autocast:
        yield


def fingerprint(module: torch.nn.Module) -> str:
    """BLAKE2 over names and values of a module's weights, 16 digits."""
    digest = hashlib.blake2b(digest_size=8)
    for name, value in sorted(module.state_dict().items()):
        digest.update(f"{name} {value.dtype} {tuple(value.shape)}".encode())
        digest.update(value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy())
    return digest.hexdigest()


def first_sentence(error: Exception) -> str:
    """The first sentence of an error's message, fit to stand within another."""
    return re.split(r"\.\s|\n", str(error).strip() or type(error).__name__)[0].rstrip(".")[:200]


def _load(model: str) -> tuple[Any, Any, list[Module]]:
    """Tokenizer, float32 model and declared modules; missing weights are an error, never random."""
    import transformers
    from transformers.utils import logging

    # transformers prints a table of unused heads and a second progress bar; neither helps here.
    verbosity, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        modules = declared_modules(model)
        place = {"subfolder": modules[0][1] if modules else ""}
        tokenizer = transformers.AutoTokenizer.from_pretrained(model, **place)
        encoder, found = transformers.AutoModel.from_pretrained(
            model, dtype=torch.float32, output_loading_info=True, **place
        )
    except ModelNotFoundError:
        raise
    except Exception as error:  # damaged files raise nearly anything
        raise ModelNotFoundError(_not_found(model, error)) from error
    finally:
        logging.set_verbosity(verbosity)
        if bars:
            logging.enable_progress_bar()
    # The pooler is the one layer that many checkpoints lack; pooling is done without it here.
    missing = sorted(name for name in found["missing_keys"] if "pooler" not in name)
    if missing:
        raise ModelNotFoundError(
            f"The text encoder {model} lacks {len(missing)} of its weights (such as {missing[0]}): "
            "name a complete one with --text-model."
        )
    return tokenizer, encoder, modules


def _not_found(model: str, error: Exception) -> str:
    from huggingface_hub import constants

    if Path(model).is_dir():
        return (
            f"The folder {model} holds no text encoder that transformers can load "
            f"({first_sentence(error)}): save one there with save_pretrained, tokenizer included."
        )
    offline = " and HF_HUB_OFFLINE forbids fetching it" if constants.HF_HUB_OFFLINE else ""
    return (
        f"The text encoder {model} is neither a local folder nor in {constants.HF_HUB_CACHE}"
        f"{offline or ', and could not be fetched'}: run `hf download {model}` where there is "
        "a network, or name a folder with --text-model."
    )


def _is_clip(encoder: torch.nn.Module) -> bool:
    return encoder.config.model_type == "clip"


def _max_tokens(tokenizer: Any, encoder: torch.nn.Module) -> int:
    """The longest input, special tokens included: the smaller of both limits."""
    positions = getattr(encoder.config.get_text_config(), "max_position_embeddings", None)
    table = getattr(getattr(encoder, "embeddings", None), "position_embeddings", None)
    if positions and getattr(table, "padding_idx", None) is not None:
        positions -= table.padding_idx + 1  # RoBERTa numbers positions from there
    known = [limit for limit in (positions, tokenizer.model_max_length) if limit and limit < 1e9]
    return int(min(known, default=LONGEST))


def _tokenizer_fingerprint(tokenizer: Any) -> str:
    backend = getattr(tokenizer, "backend_tokenizer", None)
    # Truncation and padding are states that a call leaves behind, not what the tokenizer is.
    text = backend.to_str() if backend else str(sorted(tokenizer.get_vocab().items()))
    return hashlib.blake2b(text.encode(), digest_size=8).hexdigest()
