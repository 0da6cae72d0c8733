"""The loss of a batch, by hand."""

import pytest
import torch
from torch.nn import functional as F

from mmctr.training.config import configs
from mmctr.training.loss import batch_loss

LOGITS = torch.tensor([0.5, -1.0, 2.0, 0.25, -0.5])
LABEL = torch.tensor([1.0, 0.0, 1.0, 0.0, 0.0])


def loss(**parameters):
    return batch_loss(LOGITS, LABEL, configs(**parameters)[1])


def test_the_default_is_cross_entropy():
    expected = F.binary_cross_entropy_with_logits(LOGITS, LABEL)
    torch.testing.assert_close(loss(), expected)


def test_clicks_have_their_weight_and_the_mean_is_over_rows():
    each = F.binary_cross_entropy_with_logits(LOGITS, LABEL, reduction="none")
    weight = torch.where(LABEL == 1, 0.4, 1.0)
    torch.testing.assert_close(loss(click_weight=0.4), (weight * each).mean())


@pytest.mark.parametrize("share", [0.2, 1.0])
def test_pairs_have_their_share(share):
    gaps = LOGITS[LABEL == 1][:, None] - LOGITS[LABEL == 0]
    rows = loss(click_weight=0.4)
    expected = (1 - share) * rows - share * F.logsigmoid(gaps).mean()
    torch.testing.assert_close(loss(click_weight=0.4, pairwise=share), expected)
