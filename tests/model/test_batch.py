"""A batch names items once; how often it names them is no matter to the scores."""

import torch

from mmctr.model.attention import Histories
from mmctr.model.batch import Batch
from mmctr.model.config import DINConfig
from mmctr.model.din import DIN


def test_items_that_are_named_twice_are_the_same_items(tiny):
    torch.manual_seed(0)
    model = DIN.for_catalog(DINConfig.of(embedding_dim=4, hidden=(8,)), tiny.catalog, None).eval()
    lengths = torch.tensor([2, 0, 1])
    once = Batch(
        torch.tensor([3, 5, 9]),
        torch.tensor([0, 1, 0]),
        Histories.of(torch.tensor([1, 2, 1]), lengths),
    )
    repeated = Batch(
        torch.tensor([3, 5, 3, 5, 9, 5]),
        torch.tensor([0, 1, 2]),
        Histories.of(torch.tensor([3, 4, 5]), lengths),
    )
    assert len(once) == len(repeated) == 3
    torch.testing.assert_close(model(once), model(repeated))
