"""The official baseline of the challenge: a DIN of FuxiCTR's own layers, fed padded batches.

Its settings, as published for MicroLens_1M_x1, are mmctr's preset "din": embedding_dim 64,
attention MLP 512-256 without softmax, DNN 1024-512-256 with batch normalisation, dropout 0.1, Adam
with learning rate 1e-3, embedding regularizer 1e-6, batches of 8,192, the latest 64 clicks.
FuxiCTR trains it (`BaseModel`). Batches are cut with NumPy here, which is quicker than the official
loader's row-wise pandas.
"""

from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass
from tempfile import gettempdir

import numpy as np
import torch
from fuxictr.features import FeatureMap
from fuxictr.pytorch.layers import DIN_Attention, FeatureEmbedding, MLP_Block
from fuxictr.pytorch.models import BaseModel
from torch import Tensor

from mmctr.data.catalog import Catalog
from mmctr.data.impressions import Impressions
from mmctr.data.schema import LEVELS
from mmctr.model.config import DINConfig
from mmctr.model.din import DIN
from mmctr.training.config import TrainConfig, configs

MODEL, TRAINING = configs("din")
LEVEL_FIELDS = ("likes_level", "views_level")


class FuxiDIN(BaseModel):
    """DIN over FuxiCTR's FeatureEmbedding, DIN_Attention and MLP_Block."""

    def __init__(self, features: FeatureMap, settings: DINConfig, training: TrainConfig) -> None:
        super().__init__(
            features,
            embedding_regularizer=training.embedding_l2,
            net_regularizer=0,
            verbose=0,
            model_root=gettempdir(),
            metrics=["AUC"],
        )
        items = [spec for spec in features.features.values() if spec["source"] == "item"]
        dim = settings.embedding_dim
        self.item_width = sum(spec.get("embedding_dim", dim) for spec in items)
        self.embedding_layer = FeatureEmbedding(features, dim)
        self.attention = DIN_Attention(
            self.item_width,
            attention_units=list(settings.attention_hidden),
            dropout_rate=settings.attention_dropout,
        )
        self.dnn = MLP_Block(
            input_dim=len(LEVEL_FIELDS) * dim + 2 * self.item_width,
            output_dim=1,
            hidden_units=list(settings.hidden),
            output_activation=self.output_activation,
            dropout_rates=settings.dropout,
            batch_norm=True,
        )
        self.compile("adam", "binary_crossentropy", training.learning_rate)
        self._max_gradient_norm = 10.0  # the default of BaseModel.fit, which train_step reads
        self.reset_parameters()

    def forward(self, batch: dict[str, dict[str, Tensor] | Tensor]) -> dict[str, Tensor]:
        """Click probabilities, {"y_pred": float [n, 1]}."""
        levels = self.embedding_layer(batch["levels"], flatten_emb=True)
        items = self.embedding_layer(batch["items"], flatten_emb=True)
        items = items.view(len(levels), -1, self.item_width)
        target, history = items[:, -1], items[:, :-1]
        interest = self.attention(target, history, batch["mask"])
        return {"y_pred": self.dnn(torch.cat([levels, target, interest], dim=1))}

    def get_labels(self, batch: dict[str, Tensor]) -> Tensor:
        """float [n, 1] of 0 and 1."""
        return batch["label"].view(-1, 1)


def build(
    catalog: Catalog, width: int, settings: DINConfig = MODEL, training: TrainConfig = TRAINING
) -> FuxiDIN:
    """The baseline for a catalog whose item embedding has `width` columns.

    Of other settings only these count: embedding_dim, attention_hidden, attention_dropout, hidden,
    dropout, learning_rate and embedding_l2.
    """
    items, n_tags = catalog.n_items + 1, int(catalog.tags.max()) + 1
    features = FeatureMap("benchmark", gettempdir())
    level = {"source": "", "type": "categorical", "vocab_size": LEVELS}
    features.labels = ["label"]
    features.features = OrderedDict(
        likes_level=dict(level),
        views_level=dict(level),
        item_id={"source": "item", "type": "categorical", "vocab_size": items, "padding_idx": 0},
        item_tags={
            "source": "item",
            "type": "sequence",
            "vocab_size": n_tags,
            "padding_idx": 0,
            "feature_encoder": "layers.MaskedAveragePooling()",
        },
        item_emb_d128={"source": "item", "type": "embedding", "embedding_dim": width},
    )
    return FuxiDIN(features, settings, training)


@dataclass(frozen=True)
class PaddedBatches:
    """Impressions as FuxiCTR reads them: histories padded on the left to the latest clicks."""

    rows: Impressions
    catalog: Catalog
    item_embedding: np.ndarray
    max_len: int = MODEL.max_history

    def of(self, index: np.ndarray) -> dict[str, dict[str, Tensor] | Tensor]:
        """The batch of the given rows."""
        end, target = self.rows.history_end[index], self.rows.target[index]
        position = end[:, None] + np.arange(-self.max_len, 0)
        inside = position >= self.rows.history_start[index, None]
        history = np.where(inside, self.rows.history_items[np.where(inside, position, 0)], 0)
        items = np.concatenate([history, target[:, None]], axis=1).ravel()
        levels = [getattr(self.catalog, name)[target] for name in LEVEL_FIELDS]
        return {
            "levels": {
                name: torch.from_numpy(level)
                for name, level in zip(LEVEL_FIELDS, levels, strict=True)
            },
            "items": {
                "item_id": torch.from_numpy(items),
                "item_tags": torch.from_numpy(self.catalog.tags[items]),
                "item_emb_d128": torch.from_numpy(self.item_embedding[items]),
            },
            "mask": torch.from_numpy(inside).float(),
            "label": torch.from_numpy(self.rows.label[index]),
        }

    def shuffled(self, size: int, seed: int) -> Iterator[dict[str, dict[str, Tensor] | Tensor]]:
        """All rows once, in random order."""
        for index in shuffled(len(self.rows), size, seed):
            yield self.of(index)


def shuffled(rows: int, size: int, seed: int) -> Iterator[np.ndarray]:
    """The numbers of all rows in random order, at most `size` at a time."""
    order = np.random.default_rng(seed).permutation(rows)
    for start in range(0, rows, size):
        yield order[start : start + size]


@torch.no_grad()
def predict(model: FuxiDIN, batches: PaddedBatches, size: int = TRAINING.batch_size) -> np.ndarray:
    """Click probabilities of all rows, float32 [n]."""
    model.eval()
    starts = range(0, len(batches.rows), size)
    parts = [np.arange(start, min(start + size, len(batches.rows))) for start in starts]
    scores = [model(batches.of(index))["y_pred"] for index in parts]
    model.train()
    return torch.cat(scores).squeeze(1).numpy()


@torch.no_grad()
def copy_weights(fuxi: FuxiDIN, ours: DIN) -> None:
    """Give mmctr's DIN of the same settings the weights of FuxiCTR's."""
    tables, table = fuxi.embedding_layer.embedding_layer, ours.embedding
    table.id.weight.copy_(tables.embedding_layers["item_id"].weight)
    table.tags.weight.copy_(tables.embedding_layers["item_tags"].weight)
    for name in LEVEL_FIELDS:
        getattr(table, name).weight.copy_(tables.embedding_layers[name].weight)
    table.projection.weight.copy_(tables.feature_encoders["item_emb_d128"].weight)
    linears = [layer for layer in fuxi.attention.attention_layer.mlp if hasattr(layer, "weight")]
    mine = [
        ours.attention.first,
        *(layer for layer in ours.attention.rest if hasattr(layer, "weight")),
    ]
    for source, copy in zip(linears, mine, strict=True):
        copy.load_state_dict(source.state_dict())
    layers = [layer for layer in fuxi.dnn.mlp if hasattr(layer, "weight")]
    mine = [*(layer for layer in ours.dnn if hasattr(layer, "weight")), ours.output]
    for source, copy in zip(layers, mine, strict=True):
        copy.load_state_dict(source.state_dict())
    # FuxiCTR's DNN reads the two levels first, ours after the item's other fields.
    levels, width = len(LEVEL_FIELDS) * ours.config.embedding_dim, fuxi.item_width
    first = layers[0].weight
    parts = first.split([levels, width, first.shape[1] - levels - width], dim=1)
    ours.dnn[0].weight.copy_(torch.cat([parts[1], parts[0], parts[2]], dim=1))
