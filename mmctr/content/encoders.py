"""One more title or picture, encoded as those of a dataset were."""

from pathlib import Path
from typing import Any

import numpy as np
import torch

from mmctr.content.defaults import POOLINGS
from mmctr.content.image import ImageEncoder
from mmctr.content.text import TextEncoder
from mmctr.errors import ConfigError


class Encoders:
    """The encoders that made a dataset's features, each loaded when it is first needed.

    facts: of each encoder by column, as `Dataset.encoders` has them; text and image name the
    columns.
    """

    def __init__(self, facts: dict[str, dict[str, Any]], text: str, image: str) -> None:
        self.facts = {"text": facts.get(text, {}), "image": facts.get(image, {})}
        self.loaded: dict[str, TextEncoder | ImageEncoder] = {}

    def text(self, title: str) -> np.ndarray:
        """The vector of a title, float32 [width], zero for none.

        Raises ConfigError if the dataset does not say how its titles were encoded, or another
        encoder is found under that name, ModelNotFoundError if none is.
        """
        encoder = self._encoder("text")
        ((vectors, _, _),) = encoder.encode_shards([[title]], 1, lambda done: None)
        return vectors[0]

    def image(self, path: Path) -> np.ndarray:
        """The vector of a picture, float32 [width], zero if it cannot be read; raises as `text`."""
        encoder = self._encoder("image")
        ((vectors, _, _),) = encoder.encode_shards([[path]], 1, lambda done: None, workers=0)
        return vectors[0]

    def _encoder(self, medium: str) -> Any:
        if medium not in self.loaded:
            self.loaded[medium] = self._load(medium)
        return self.loaded[medium]

    def _load(self, medium: str) -> TextEncoder | ImageEncoder:
        facts, cpu = self.facts[medium], torch.device("cpu")
        if "weights" not in facts:
            raise ConfigError(
                f"The dataset does not say by which encoder its {medium} features were made: "
                "extract them (mmctr features extract)."
            )
        if medium == "image":
            encoder = ImageEncoder(facts["model"], facts.get("pretrained"), cpu)
        else:
            pooling = str(facts.get("pooling"))
            encoder = TextEncoder(facts["model"], "auto", cpu)
            if encoder.facts["pooling"] != pooling and pooling in POOLINGS:
                encoder = TextEncoder(facts["model"], pooling, cpu)
        for fact in ("weights", "pooling", "width"):
            if encoder.facts.get(fact) != facts.get(fact):
                raise ConfigError(
                    f"The {medium} encoder {facts['model']} has other {fact} than the one that "
                    "made the dataset's features: extract them again."
                )
        return encoder
