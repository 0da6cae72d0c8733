"""The benchmark compares like with like: FuxiCTR's DIN and mmctr's are one and the same model."""

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from benchmarks import microlens_shape as shape
from mmctr.data.impressions import Impressions
from mmctr.model.din import DIN
from mmctr.training.batches import Batches
from mmctr.training.prediction import predict

pytest.importorskip("fuxictr")
from benchmarks import fuxictr_din

ITEMS = 50
LENGTHS = np.array([0, 1, 2, 3, 9, 63, 64, 65, 100, 0, 5, 30] * 3)
CATALOG, CONTENT = shape.catalog(ITEMS), shape.item_embedding(ITEMS)


@pytest.fixture
def rows():
    """Histories without clicks, with one, and with more than are read; items come repeatedly."""
    random, end = np.random.default_rng(0), np.cumsum(LENGTHS)
    return Impressions(
        user=np.arange(len(LENGTHS)),
        target=random.integers(1, ITEMS + 1, len(LENGTHS), dtype=np.int32),
        label=(np.arange(len(LENGTHS)) % 4 == 0).astype(np.float32),
        history_start=end - LENGTHS,
        history_end=end,
        history_items=random.integers(1, ITEMS + 1, end[-1], dtype=np.int32),
    )


@pytest.fixture
def fuxi():
    """FuxiCTR's DIN with weights and running statistics away from their start."""
    torch.manual_seed(0)
    model = fuxictr_din.build(CATALOG, CONTENT.shape[1])
    with torch.no_grad():
        for weight in model.parameters():
            weight.add_(0.03 * torch.randn_like(weight))
        for layer in model.modules():
            if isinstance(layer, nn.Embedding) and layer.padding_idx is not None:
                layer.weight[layer.padding_idx] = 0
            if isinstance(layer, nn.BatchNorm1d):
                layer.running_mean.normal_(std=0.3)
                layer.running_var.uniform_(0.5, 2)
        model.dnn.mlp[-2].weight.mul_(0.2)  # near 0 and 1 a float32 probability hides its logit
    return model


def same_din(fuxi, **changes):
    """mmctr's DIN with the weights of FuxiCTR's."""
    config = fuxictr_din.MODEL.model_copy(update=changes)
    model = DIN.for_catalog(config, CATALOG, CONTENT)
    fuxictr_din.copy_weights(fuxi, model)
    return model


def without_dropout(model):
    """The model, in training mode, none of whose layers drops anything."""
    for layer in model.modules():
        if isinstance(layer, nn.Dropout):
            layer.p = 0.0
    return model.train()


def padded(rows):
    return fuxictr_din.PaddedBatches(rows, CATALOG, CONTENT)


def logits(probability):
    return torch.from_numpy(probability).double().logit()


def test_the_same_weights_give_the_same_logits(fuxi, rows):
    theirs = logits(fuxictr_din.predict(fuxi, padded(rows), size=10))
    ours = logits(predict(same_din(fuxi), rows, batch_size=7))
    assert theirs.std() > 1
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-5)


def test_a_training_step_has_the_same_loss_gradients_and_statistics(fuxi, rows):
    ours = same_din(without_dropout(fuxi), dropout=0.0, attention_dropout=0.0)
    index = np.arange(len(rows))
    batch = padded(rows).of(index)
    loss = fuxi.add_loss(fuxi(batch), fuxi.get_labels(batch))
    loss.backward()
    batch = Batches(rows, ours).of(torch.from_numpy(index))
    our_loss = F.binary_cross_entropy_with_logits(ours(batch), batch.label)
    our_loss.backward()
    torch.testing.assert_close(our_loss, loss, rtol=0, atol=1e-6)

    # With gradients in place of weights, `copy_weights` says which belong together.
    for weight in fuxi.parameters():
        weight.data = weight.grad
    expected = same_din(fuxi)
    for name, weight in expected.named_parameters():
        if weight.requires_grad:
            found = ours.get_parameter(name).grad
            torch.testing.assert_close(found, weight.data, rtol=1e-3, atol=1e-6, msg=name)
    for name, value in expected.named_buffers():
        torch.testing.assert_close(ours.get_buffer(name), value, rtol=1e-4, atol=1e-6, msg=name)


def test_both_have_as_many_parameters(fuxi):
    count = [
        sum(weight.numel() for weight in model.parameters() if weight.requires_grad)
        for model in (fuxi, same_din(fuxi))
    ]
    assert count[0] == count[1]


def test_both_read_the_same_clicks(fuxi, rows):
    index = np.random.default_rng(1).permutation(len(rows))
    theirs = padded(rows).of(index)
    ours = Batches(rows, same_din(fuxi)).of(torch.from_numpy(index))
    items = theirs["items"]["item_id"].view(len(index), -1)
    history, target = items[:, :-1], items[:, -1]
    inside = theirs["mask"].bool()
    assert (history[~inside] == 0).all()
    assert history[inside].tolist() == ours.items[ours.histories.items].tolist()
    assert inside.sum(1).tolist() == ours.histories.offsets.diff().tolist()
    assert target.tolist() == ours.items[ours.target].tolist()
    assert theirs["label"].tolist() == ours.label.tolist()
    levels = CATALOG.likes_level[target], CATALOG.views_level[target]
    for found, level in zip(theirs["levels"].values(), levels, strict=True):
        assert found.tolist() == level.tolist()


def test_an_epoch_reads_every_row_once(rows):
    numbered = rows.select(np.arange(len(rows)))
    numbered.label[:] = np.arange(len(rows))
    labels = [batch["label"] for batch in padded(numbered).shuffled(10, seed=0)]
    assert [len(part) for part in labels] == [10, 10, 10, 6]
    assert sorted(torch.cat(labels).tolist()) == list(range(len(rows)))
