"""The preset momo is the network of FuxiCTR's and PyTorch's layers that was published."""

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from benchmarks import microlens_shape as shape
from mmctr.data.impressions import Impressions
from mmctr.model.din import DIN
from mmctr.training.batches import Batches
from mmctr.training.config import configs

pytest.importorskip("fuxictr")
from fuxictr.pytorch.layers import CrossNetV2, MLP_Block

from benchmarks import fuxictr_din

LENGTHS = np.array([0, 1, 2, 3, 9, 63, 64, 65, 100, 0, 5, 17])
DIM, WIDTH, LAST = 8, 16, 4  # of embeddings, of content, and the outputs that are read
CONFIG, TRAINING = configs(
    **{"preset": "momo", "embedding_dim": DIM, "content_dim": WIDTH, "last_outputs": LAST},
    **{"attention_hidden": (12,), "hidden": (16, 8), "joined_hidden": (6, 5)},
)


class FuxiMomo(nn.Module):
    """momo's published network, but for its mask, which here masks the padding."""

    def __init__(self, embedding: nn.Module) -> None:
        super().__init__()
        item = 2 * DIM + WIDTH
        wide = 2 * DIM + item + (LAST + 1) * 2 * item
        self.item, self.embedding = item, embedding
        layer = nn.TransformerEncoderLayer(2 * item, 1, 12, batch_first=True)
        self.encoder = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
        self.pooled = nn.Linear(2 * item, 2 * item)
        self.cross = CrossNetV2(wide, 3)
        self.dnn = MLP_Block(wide, hidden_units=[16, 8])
        self.mlp = MLP_Block(wide + 8, hidden_units=[6, 5], output_dim=1)

    def forward(self, batch: dict) -> Tensor:
        """Logits [n]."""
        levels = self.embedding(batch["levels"], flatten_emb=True)
        items = self.embedding(batch["items"], flatten_emb=True).view(len(levels), -1, self.item)
        target, history = items[:, -1], items[:, :-1]
        hidden = ~batch["mask"].bool()
        hidden[hidden.all(dim=1), -1] = False
        tokens = torch.cat([history, target[:, None].expand_as(history)], dim=2)
        out = self.encoder(tokens, src_key_padding_mask=hidden)
        last = out.masked_fill(hidden[:, :, None], 0)[:, -LAST:].flatten(1)
        highest = self.pooled(out.masked_fill(hidden[:, :, None], -1e9).amax(dim=1))
        fields = torch.cat([levels, target, last, highest], dim=1)
        return self.mlp(torch.cat([self.cross(fields), self.dnn(fields)], dim=1)).squeeze(1)


@torch.no_grad()
def copied(theirs: FuxiMomo, content: np.ndarray, catalog) -> DIN:
    """Our preset with their weights; their fields begin with the levels, ours end with them."""
    ours = DIN.for_catalog(CONFIG, catalog, content)
    tables, table = theirs.embedding.embedding_layer, ours.embedding
    table.id.weight.copy_(tables.embedding_layers["item_id"].weight)
    table.tags.weight.copy_(tables.embedding_layers["item_tags"].weight)
    for name in fuxictr_din.LEVEL_FIELDS:
        getattr(table, name).weight.copy_(tables.embedding_layers[name].weight)
    table.projection.weight.copy_(tables.feature_encoders["item_emb_d128"].weight)
    for own, other in zip(ours.attention.layers, theirs.encoder.layers, strict=True):
        own.inward.weight.copy_(other.self_attn.in_proj_weight)
        own.inward.bias.copy_(other.self_attn.in_proj_bias)
        own.outward.load_state_dict(other.self_attn.out_proj.state_dict())
        own.deep[0].load_state_dict(other.linear1.state_dict())
        own.deep[2].load_state_dict(other.linear2.state_dict())
        own.attended_norm.load_state_dict(other.norm1.state_dict())
        own.norm.load_state_dict(other.norm2.state_dict())
    ours.attention.pooled.load_state_dict(theirs.pooled.state_dict())
    levels, item = 2 * DIM, theirs.item
    place = torch.arange(theirs.cross.cross_layers[0].in_features)
    place = torch.cat([place[levels : levels + item], place[:levels], place[levels + item :]])
    for own, other in zip(ours.cross.layers, theirs.cross.cross_layers, strict=True):
        own.weight.copy_(other.weight[place][:, place])
        own.bias.copy_(other.bias[place])
    theirs_deep, ours_deep = linears(theirs.dnn), linears(ours.dnn)
    theirs_end, ours_end = linears(theirs.mlp), [*linears(ours.joined), ours.output]
    for own, other in zip(ours_deep + ours_end, theirs_deep + theirs_end, strict=True):
        own.bias.copy_(other.bias)
        if own not in (ours_deep[0], ours_end[0]):
            own.weight.copy_(other.weight)
    ours_deep[0].weight.copy_(theirs_deep[0].weight[:, place])
    crossed, deep = theirs_end[0].weight.split([len(place), 8], dim=1)
    ours_end[0].weight.copy_(torch.cat([deep, crossed[:, place]], dim=1))
    return ours.eval()


def linears(module: nn.Module) -> list[nn.Linear]:
    return [layer for layer in module.modules() if isinstance(layer, nn.Linear)]


def test_the_same_weights_give_the_same_logits():
    catalog, content = shape.catalog(50), shape.item_embedding(50)[:, :WIDTH].copy()
    random, end = np.random.default_rng(0), np.cumsum(LENGTHS)
    rows = Impressions(
        user=np.arange(len(LENGTHS)),
        target=random.integers(1, 51, len(LENGTHS), dtype=np.int32),
        label=np.ones(len(LENGTHS), dtype=np.float32),
        history_start=end - LENGTHS,
        history_end=end,
        history_items=random.integers(1, 51, end[-1], dtype=np.int32),
    )
    torch.manual_seed(0)
    baseline = fuxictr_din.build(catalog, WIDTH, CONFIG, TRAINING)
    theirs = FuxiMomo(baseline.embedding_layer).eval()
    with torch.no_grad():
        for weight in theirs.parameters():
            weight.add_(0.05 * torch.randn_like(weight))
        for layer in theirs.modules():
            if isinstance(layer, nn.Embedding) and layer.padding_idx is not None:
                layer.weight[layer.padding_idx] = 0
        index = np.arange(len(rows))
        expected = theirs(fuxictr_din.PaddedBatches(rows, catalog, content).of(index))
        ours = copied(theirs, content, catalog)
        found = ours(Batches(rows, ours).of(torch.from_numpy(index)))
    assert expected.std() > 0.01
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)
