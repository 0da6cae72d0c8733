"""Whatever looks at a history gives the fields that it names."""

import pytest
import torch

from mmctr.errors import ConfigError
from mmctr.model.attention import Histories
from mmctr.model.config import DINConfig
from mmctr.model.interest import interest

WIDTHS = {"id": 4, "tags": 4, "content": 8}


def made(**switches):
    """The attention of small sizes, its fields, and targets, a table and histories for it."""
    torch.manual_seed(0)
    small = {"heads": 2, "embedding_dim": 4, "attention_hidden": (5,), "last_outputs": 3}
    attention, fields = interest(DINConfig.of(**small | switches), WIDTHS)
    histories = Histories.of(torch.tensor([0, 1, 1, 2]), torch.tensor([3, 0, 1]))
    return attention.eval(), fields, (torch.randn(3, 16), torch.randn(5, 16), histories)


@pytest.mark.parametrize("cross", [0, 2])
@pytest.mark.parametrize("attention", ["dot", "mlp", "relu", "transformer"])
def test_fields_are_as_wide_as_they_say(attention, cross):
    attend, fields, inputs = made(attention=attention, cross_attention=cross)
    assert attend(*inputs).shape == (3, sum(fields.values()))
    assert all(name.startswith("interest") for name in fields)
    assert sum("crossed" in name for name in fields) == (len(WIDTHS) if cross else 0)


def test_cross_attention_stands_beside_the_attention():
    attend, fields, inputs = made(cross_attention=2)
    alone, own, _ = made()
    alone.load_state_dict(attend.attention.state_dict())
    width = sum(own.values())
    torch.testing.assert_close(attend(*inputs)[:, :width], alone(*inputs))
    torch.testing.assert_close(attend.weights(*inputs), alone.weights(*inputs))
    assert list(fields)[: len(own)] == list(own)


def test_a_transformer_has_no_weights_to_show():
    attend, _, inputs = made(attention="transformer")
    with pytest.raises(ConfigError, match="gives clicks no weights to show: choose a run"):
        attend.weights(*inputs)
