"""The embedding of items against its fields, one by one."""

import numpy as np
import pytest
import torch

from mmctr.model.items import ItemEmbedding
from tests.model.ragged import close

TAGS = torch.tensor([[0, 0, 0], [1, 2, 0], [3, 0, 0], [0, 2, 3], [0, 0, 0]], dtype=torch.int32)
LEVELS = torch.tensor([[0, 0], [1, 10], [2, 0], [3, 8], [10, 7]], dtype=torch.int8)


def make_embedding(content_mode="projected", content=True):
    """An item embedding of four items with two content columns."""
    torch.manual_seed(0)
    table = torch.randn(5, 2) * (torch.arange(5) > 0)[:, None] if content else None
    return ItemEmbedding(
        TAGS,
        LEVELS,
        table,
        dim=3,
        n_tags=4,
        n_levels=11,
        content_mode=content_mode,
        content_dim=5,
    )


@pytest.mark.parametrize("content_mode", ["projected", "frozen", "finetuned", None])
def test_item_embedding_concatenates_its_fields(content_mode):
    layer = make_embedding(content_mode, content=content_mode is not None)
    items = torch.tensor([3, 1, 0, 1, 4])
    expected = []
    for item in items.tolist():
        tags = [layer.tags.weight[tag] for tag in TAGS[item].tolist() if tag]
        fields = [
            layer.id.weight[item],
            torch.stack(tags).mean(0) if tags else torch.zeros(3),
        ]
        if content_mode:
            content = layer.content[item]
            fields.append(
                content if content_mode == "frozen" else layer.projection.weight @ content
            )
        likes, views = LEVELS[item].tolist()
        fields += [layer.likes_level.weight[likes], layer.views_level.weight[views]]
        expected.append(torch.cat(fields))
    close(layer(items), torch.stack(expected))
    names = ["id", "tags", "content", "likes_level", "views_level"]
    widths = [3, 3, 2 if content_mode == "frozen" else 5, 3, 3]
    expected_widths = dict(zip(names, widths, strict=True))
    if content_mode is None:
        del expected_widths["content"]
    assert layer.widths == expected_widths


def test_padding_has_no_id_tags_or_content_and_learns_none():
    layer = make_embedding("projected")
    vector = layer(torch.tensor([0]))
    assert not vector[:, :11].any()
    vector.sum().backward()
    for table in (layer.id, layer.tags):
        assert not table.weight.grad.any()


@pytest.mark.parametrize(
    ("content_mode", "learns"), [("projected", False), ("frozen", False), ("finetuned", True)]
)
def test_only_finetuned_content_learns(content_mode, learns):
    layer = make_embedding(content_mode)
    layer(torch.tensor([1, 2])).sum().backward()
    assert layer.content.requires_grad == learns
    assert (layer.content.grad is not None) == learns


def test_finetuning_leaves_the_callers_array_alone():
    """One item embedding serves several models."""
    array = np.ones((5, 2), dtype=np.float32)
    layer = ItemEmbedding(
        TAGS,
        LEVELS,
        torch.from_numpy(array),
        dim=3,
        n_tags=4,
        n_levels=11,
        content_mode="finetuned",
        content_dim=3,
    )
    optimizer = torch.optim.SGD(layer.parameters(), lr=1.0)
    layer(torch.tensor([1, 2])).sum().backward()
    optimizer.step()
    assert (array == 1).all()
    assert not (layer.content[1:3] == 1).all()


def test_a_hidden_item_shows_content_and_tags_alone():
    torch.manual_seed(0)
    tags = torch.tensor([[0, 0], [1, 2], [2, 0], [1, 0]])
    levels = torch.tensor([[0, 0], [3, 4], [5, 6], [1, 2]])
    known = torch.tensor([False, True, False, True])
    content = torch.randn(4, 3)
    sizes = {"dim": 2, "n_tags": 3, "n_levels": 11, "content_mode": "projected", "content_dim": 2}
    embedding = ItemEmbedding(tags, levels, content, known=known, **sizes)
    items = torch.tensor([1, 2, 3])
    found = embedding(items)
    widths = list(embedding.widths.values())
    for row, item in enumerate(items.tolist()):
        number, at = (item, levels[item]) if known[item] else (0, torch.zeros(2, dtype=torch.int64))
        used = tags[item][tags[item] > 0]
        expected = [
            embedding.id.weight[number],
            embedding.tags.weight[used].mean(dim=0),
            content[item] @ embedding.projection.weight.T,
            embedding.likes_level.weight[at[0]],
            embedding.views_level.weight[at[1]],
        ]
        assert [len(field) for field in expected] == widths
        torch.testing.assert_close(found[row], torch.cat(expected))
    assert not embedding.id.weight[0].any(), "who is not known has no id at all"
