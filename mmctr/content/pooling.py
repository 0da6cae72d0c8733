"""How the vectors of a title's tokens become one: as a folder declares, or as its model needs.

sentence-transformers lists what makes a vector in modules.json, and a pooling in the folder of its
module, such as 1_Pooling/config.json.
"""

import json
from pathlib import Path
from typing import Any

import torch

from mmctr.content.defaults import POOLINGS
from mmctr.errors import ModelNotFoundError, first_line

ENCODERS = ("Transformer", "CLIPModel")  # modules of sentence-transformers that transformers loads
FLAGS = {  # of its Pooling, each beside what it calls the same pooling elsewhere
    "cls_token": "cls",
    "max_tokens": "max",
    "mean_tokens": "mean",
    "mean_sqrt_len_tokens": "mean_sqrt_len_tokens",
    "weightedmean_tokens": "weightedmean",
    "lasttoken": "lasttoken",
}
Module = tuple[str, str]  # kind, and folder within the model's


def declared_modules(model: str) -> list[Module]:
    """The modules that a folder or a model of the hub declares; none for one of transformers.

    Raises ModelNotFoundError for a file that says nothing.
    """
    listed = _json_of(model, "modules.json")
    try:
        modules = [(entry["type"].rsplit(".", 1)[-1], entry["path"]) for entry in listed or []]
        if listed is not None and not modules:
            raise ValueError("no modules")
    except (TypeError, KeyError, AttributeError, ValueError) as error:
        raise _damaged(model, "modules.json", error) from error
    return modules


def declared_pooling(model: str, modules: list[Module]) -> tuple[str | None, bool]:
    """The pooling that modules declare, if any, and whether vectors are normalized after it.

    Raises ModelNotFoundError for a declaration that this package cannot follow.
    """
    kinds = [kind for kind, _ in modules]
    for place, kind in enumerate(kinds):
        if kind not in (("Pooling", "Normalize") if place else ENCODERS):
            raise ModelNotFoundError(_cannot_follow(model, f"a module {kind}"))
    if "Pooling" not in kinds:
        return None, "Normalize" in kinds
    file = f"{modules[kinds.index('Pooling')][1]}/config.json"
    config = _json_of(model, file)
    if config is None:
        raise ModelNotFoundError(
            f"{file} of the text encoder {model} is missing, which should say how tokens become "
            "one vector: complete the folder, or choose a --pooling."
        )
    try:
        flags = {name.removeprefix("pooling_mode_"): chosen for name, chosen in config.items()}
    except AttributeError as error:
        raise _damaged(model, file, error) from error
    # One name, or a flag for each way to pool; several are joined, and none at all is the mean.
    named = [name for flag, name in FLAGS.items() if flags.get(flag)] or ["mean"]
    pooling = str(flags.get("pooling_mode") or " + ".join(named))
    if pooling not in POOLINGS[1:]:
        raise ModelNotFoundError(_cannot_follow(model, f"the pooling {pooling}"))
    return pooling, "Normalize" in kinds


def is_causal(encoder: torch.nn.Module) -> bool:
    """Whether tokens see nothing of what follows, as in GPT: then only the last one has read all.

    Found by trying, since configurations tell it in many ways, and some of them wrongly.
    """
    ids = torch.tensor([[3, 4, 4], [3, 5, 5]], device=next(encoder.parameters()).device)
    with torch.inference_mode():
        hidden = encoder(input_ids=ids, attention_mask=torch.ones_like(ids)).last_hidden_state
    return torch.allclose(hidden[0, 0], hidden[1, 0], rtol=1e-4, atol=1e-5)


def pooled(hidden: torch.Tensor, mask: torch.Tensor, pooling: str) -> torch.Tensor:
    """Tokens [batch, tokens, width], padded on the right, to float32 [batch, width]."""
    hidden = hidden.float()
    if pooling == "cls":
        return hidden[:, 0]
    if pooling == "lasttoken":
        return hidden[torch.arange(len(hidden), device=hidden.device), mask.sum(1) - 1]
    mask = mask.unsqueeze(-1)
    if pooling == "max":
        return hidden.masked_fill(mask == 0, -torch.inf).amax(1)
    return (hidden * mask).sum(1) / mask.sum(1)


def _json_of(model: str, file: str) -> Any:
    """A JSON file of a local folder or a model of the hub; None if it has no such file."""
    from transformers.utils import cached_file

    quiet = dict.fromkeys(("gated_repo", "missing_entries", "connection_errors"), False)
    path = cached_file(
        model, file, **{f"_raise_exceptions_for_{name}": value for name, value in quiet.items()}
    )
    if path is None:
        return None
    try:
        return json.loads(Path(path).read_text("utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise _damaged(model, file, error) from error


def _damaged(model: str, file: str, error: Exception) -> ModelNotFoundError:
    return ModelNotFoundError(
        f"{file} of the text encoder {model} is damaged ({first_line(error)}): fetch it again, or "
        "name another folder with --text-model."
    )


def _cannot_follow(model: str, what: str) -> str:
    return (
        f"The text encoder {model} declares {what}, which mmctr does not know: choose a vector of "
        f"its tokens with --pooling ({', '.join(POOLINGS[1:])}), or another --text-model."
    )
