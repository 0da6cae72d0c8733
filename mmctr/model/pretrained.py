"""A model as a folder of its own: config.json, model.safetensors and a card, for the hub or not."""

import json
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import torch
from pydantic import BaseModel, ConfigDict, Field, PositiveInt, ValidationError
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from mmctr.data.schema import LEVELS
from mmctr.errors import MMCTRError, RunError, first_line
from mmctr.files import atomic_path, write_json
from mmctr.model.config import DINConfig
from mmctr.model.sharded import Shard

try:
    from huggingface_hub import ModelCard, ModelHubMixin
except ImportError:  # training needs no hub: a model then has no save_pretrained
    ModelHubMixin = object
CONFIG, WEIGHTS, CARD = "config.json", "model.safetensors", "README.md"
Whole = Annotated[int, Field(ge=0, lt=2**63)]
PLAIN_CARD = """---
library_name: mmctr
tags: [click-through-rate]
---
# A Deep Interest Network
A model of mmctr (arXiv 2504.18961) without a run: nothing is known of its data and metrics.
"""


class Sizes(BaseModel):
    """What a model is built from beside its parameters."""

    model_config = ConfigDict(strict=True)

    n_items: Whole
    tags_per_item: PositiveInt
    n_tags: PositiveInt
    content_width: PositiveInt | None
    # Of some data, and of strategies that quantize.
    field_sizes: dict[
        Literal["item", "user", "context", "semantic ids", "codewords"], list[PositiveInt]
    ] = {}


class Pretrained(ModelHubMixin):
    """save_pretrained, from_pretrained and push_to_hub of huggingface_hub, with safetensors alone.

    card: Markdown text, which goes with the model; a run writes it for the model it trained.
    """

    card: str = PLAIN_CARD

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path: str | Path, **hub_options: Any) -> Self:
        """A model from a folder, or by its name on the hub, on the CPU and ready to predict.

        hub_options: of huggingface_hub's snapshot_download, such as revision and token. Raises
        RunError if the model cannot be had, or its weights are not those of its configuration.
        """
        folder = Path(pretrained_model_name_or_path)
        if not folder.is_dir():
            folder = _from_hub(str(pretrained_model_name_or_path), hub_options)
        try:
            config = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
            model, sizes = dict(config["model"]), Sizes(**config["sizes"])
            card = folder / CARD
            text = card.read_text(encoding="utf-8") if card.exists() else PLAIN_CARD
        except ValidationError as error:
            problem = error.errors()[0]
            where = ".".join(map(str, ("sizes", *problem["loc"])))
            raise RunError(
                f"{folder / CONFIG}, {where}: found {problem['input']!r:.60} ({problem['msg']}): "
                "save the model again."
            ) from None
        except (OSError, ValueError, TypeError, KeyError, RecursionError) as error:
            raise RunError(
                f"{folder} holds no model, its {CONFIG} or {CARD} cannot be read "
                f"({type(error).__name__}: {first_line(error)}): choose a folder that "
                "save_pretrained has written."
            ) from error
        loaded = cls.load(folder, model, sizes.model_dump())
        loaded.card = text
        return loaded

    @classmethod
    def load(
        cls, folder: Path, model: dict[str, Any], sizes: dict[str, Any], in_shards: bool = False
    ) -> Self:
        """The model of these parameters and sizes with the weights in a folder.

        in_shards: each of torchrun's processes has its own rows of the items' tables. Raises
        RunError unless they fit; no memory is taken before their shapes are known to.
        """
        try:
            config = DINConfig.stated(model)
            # On the meta device a model has shapes, but no memory, however large it claims to be.
            shard = Shard.here(sizes["n_items"]) if in_shards else None
            with torch.device("meta"):
                blank = cls.of_sizes(config, **sizes, shard=shard)
            if shard is None:
                weights = load_file(folder / WEIGHTS)
            else:
                weights = shard.read(folder / WEIGHTS, blank.sharded)
            _require_same(blank.state_dict(), weights)
            _require_sound(weights)
            loaded = cls.of_sizes(config, **sizes, shard=shard)
            loaded.load_state_dict(weights)
        except (SafetensorError, TypeError, RuntimeError, ValueError, OSError, MMCTRError) as error:
            raise RunError(
                f"{folder}: {WEIGHTS} does not fit {CONFIG} "
                f"({first_line(error)}): train the model again."
            ) from error
        return loaded.eval()

    def save_weights(self, path: Path | None) -> None:
        """Write all weights and what is known of the items as safetensors.

        If processes share the items' tables all call it, those but the first without a path.
        """
        state = {name: value.contiguous() for name, value in self.state_dict().items()}
        if self.embedding.shard is not None:
            self.embedding.shard.save(path, state, self.sharded)
        elif path is not None:
            save_file(state, path)

    def generate_model_card(self, *_: Any, **__: Any) -> "ModelCard":
        """The card, as the hub shows it."""
        return ModelCard(self.card)

    def _save_pretrained(self, save_directory: Path) -> None:
        config = {"model": self.config.model_dump(), "sizes": self.sizes}
        write_json(save_directory / CONFIG, config)
        with atomic_path(save_directory / WEIGHTS) as temporary:
            self.save_weights(temporary)
        # Always: the mixin keeps the card of whatever model was here before.
        with atomic_path(save_directory / CARD) as temporary:
            temporary.write_text(self.card, encoding="utf-8")


def _from_hub(name: str, options: dict[str, Any]) -> Path:
    """The folder that a model of the hub was downloaded to; RunError if it cannot be had."""
    try:
        from huggingface_hub import snapshot_download

        return Path(snapshot_download(name, allow_patterns=[CONFIG, WEIGHTS, CARD], **options))
    except (ImportError, OSError, ValueError) as error:
        raise RunError(
            f"{name!r} is neither a folder nor a model that could be fetched from the hub "
            f"({first_line(error)}): check its name and the connection."
        ) from error


def _require_same(expected: dict[str, torch.Tensor], found: dict[str, torch.Tensor]) -> None:
    """Raise ValueError that names the first tensor that is missing, unknown or of another form."""
    for name in [*expected, *found]:
        wanted, there = (
            (tuple(tensors[name].shape), tensors[name].dtype) if name in tensors else "absent"
            for tensors in (expected, found)
        )
        if there != wanted:
            raise ValueError(f"{name} is {there}, expected {wanted}")


def _require_sound(weights: dict[str, torch.Tensor]) -> None:
    """Raise ValueError for weights that are not finite, and for tags or levels out of range."""
    for name, weight in weights.items():
        if weight.is_floating_point() and not weight.isfinite().all():
            raise ValueError(f"{name} holds NaN or infinity")
    n_tags = len(weights["embedding.tags.weight"])
    for name, stop in (("embedding.item_tags", n_tags), ("embedding.item_levels", LEVELS)):
        values = weights[name]
        if values.numel() and not 0 <= int(values.min()) <= int(values.max()) < stop:
            raise ValueError(f"{name} holds numbers that are not in 0 to {stop - 1}")
