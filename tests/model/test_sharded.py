"""Tables that processes share against whole ones: what is drawn, looked up, learned and kept."""

import numpy as np
import pytest
import torch
import torch.distributed as dist
from safetensors.torch import load_file

from mmctr.model import sharded
from mmctr.model.config import DINConfig
from mmctr.model.din import DIN
from mmctr.model.items import ItemEmbedding
from mmctr.model.pretrained import WEIGHTS
from mmctr.model.sharded import Shard, own_rows
from tests.forks import together

N_ITEMS, DIM = 157, 3
# What three processes look up, one after another: more or less, none, padding, items twice.
ASKED = [
    [[5, 0, 156, 157, 5, 12], [157, 3], [0]],
    [[], [], [1, 2, 3, 4, 5, 6, 7, 8]],
    [[9, 18, 27, 9]],
]


def make_tables():
    """The tables of items, whole: tags, levels, content and which are known."""
    random = np.random.default_rng(0)
    tags = random.integers(0, 4, (N_ITEMS + 1, 2), dtype=np.int32)
    levels = random.integers(0, 11, (N_ITEMS + 1, 2)).astype(np.int8)
    content = random.standard_normal((N_ITEMS + 1, 2), dtype=np.float32)
    known = random.random(N_ITEMS + 1) < 0.8
    for table in (tags, levels, content):
        table[0] = 0
    return tags, levels, content, known


def make_embedding(shard=None):
    """The item embedding of these tables, or of a share of them; the same weights for all."""
    torch.manual_seed(0)
    return ItemEmbedding(
        *(own_rows(table, shard) for table in make_tables()[:3]),
        known=own_rows(make_tables()[3], shard),
        dim=DIM,
        n_tags=4,
        n_levels=11,
        content_mode="finetuned",
        content_dim=4,
        shard=shard,
    )


@pytest.mark.parametrize("n_items", [1, 2, 63, 64, 95, 96, 97, 157, 256])
@pytest.mark.parametrize("processes", [1, 2, 5])
def test_every_row_has_one_place(monkeypatch, n_items, processes):
    monkeypatch.setattr(sharded, "BLOCK", 32)
    table, places = np.arange(n_items + 1), {}
    for number in range(processes):
        shard = Shard(number, processes, n_items)
        own = shard.own(table)
        assert len(own) == len(shard)
        assert own[0] == 0, "padding"
        found = np.zeros_like(own)
        for rows, within, mine in shard.blocks():
            found[mine] = table[rows][within]
        np.testing.assert_array_equal(found, own)
        places |= {int(item): (number, row) for row, item in enumerate(own) if item}
    items = np.arange(1, n_items + 1)
    expected = {item: (item % processes, -(-item // processes)) for item in items.tolist()}
    assert places == expected


@pytest.mark.parametrize("n_items", [0, 4, 31, 150, 1000])
def test_shares_are_drawn_as_the_whole_is(monkeypatch, n_items):
    monkeypatch.setattr(sharded, "BLOCK", 32)
    torch.manual_seed(7)
    whole = torch.empty(n_items + 1, DIM).normal_(std=0.01)
    following = torch.rand(4)
    whole[0] = 0
    for number in range(3):
        shard = Shard(number, 3, n_items)
        torch.manual_seed(7)
        found = shard.normal_(torch.full((len(shard), DIM), np.nan), std=0.01)
        assert torch.equal(torch.rand(4), following), "what is drawn next stays the same"
        np.testing.assert_array_equal(found.numpy(), shard.own(whole.numpy()))


@pytest.mark.parametrize("number", [0, 1])
def test_a_model_begins_with_the_weights_of_the_whole_one(tiny, number):
    config, content = DINConfig(embedding_dim=4, hidden=(8,)), tiny.catalog.text_features
    shard = Shard(number, 2, tiny.catalog.n_items)
    torch.manual_seed(3)
    whole = DIN.for_dataset(config, tiny, content)
    torch.manual_seed(3)
    part = DIN.for_dataset(config, tiny, content, shard=shard)
    assert part.sizes == whole.sizes
    expected = whole.state_dict()
    assert part.sharded == {
        name for name, one in expected.items() if one.shape[:1] == (shard.n_items + 1,)
    }
    for name, value in part.state_dict().items():
        wanted = expected[name].numpy()
        np.testing.assert_array_equal(value, shard.own(wanted) if name in part.sharded else wanted)


def look_up(number, folder):
    """What one process is told of the items that it asks for, and the gradients of its tables."""
    embedding = make_embedding(Shard.here(N_ITEMS))
    embedding.sparse_gradients(True)
    for step, items in enumerate(ASKED[number]):
        found = embedding.look_up(torch.tensor(items, dtype=torch.int64))
        torch.save(found, folder / f"{number}-{step}.pt")
    embedding.answer_others()
    # Learning needs all of them in every step.
    items = torch.tensor(ASKED[number][0], dtype=torch.int64)
    vectors = embedding(items)
    (vectors * weigh(number, vectors.shape)).sum().backward()
    gradients = {
        name: getattr(embedding, table).grad.to_dense() for name, table in (("content", "content"),)
    }
    gradients["id.weight"] = embedding.id.weight.grad.to_dense()
    torch.save(gradients, folder / f"{number}-gradients.pt")


def weigh(number, shape):
    """Weights of the entries of a process's vectors in its loss."""
    return torch.randn(shape, generator=torch.Generator().manual_seed(number))


def test_rows_are_those_of_whole_tables_and_so_are_gradients(tmp_path):
    together(look_up, tmp_path)
    whole = make_embedding()
    for number, asked in enumerate(ASKED):
        for step, items in enumerate(asked):
            found = torch.load(tmp_path / f"{number}-{step}.pt", weights_only=False)
            expected = whole.look_up(torch.tensor(items, dtype=torch.int64))
            for name, one, other in zip(found._fields, found, expected, strict=True):
                assert (one is None) == (other is None), name
                assert one is None or torch.equal(one, other), name
    loss = 0
    for number, asked in enumerate(ASKED):
        vectors = whole(torch.tensor(asked[0], dtype=torch.int64))
        loss = loss + (vectors * weigh(number, vectors.shape)).sum() / 3
    loss.backward()
    for number in range(3):
        found = torch.load(tmp_path / f"{number}-gradients.pt")
        shard = Shard(number, 3, N_ITEMS)
        for name, table in (("id.weight", whole.id.weight), ("content", whole.content)):
            expected = torch.from_numpy(shard.own(table.grad.numpy()))
            assert expected.any()
            first = int(number > 0)  # padding is asked of the first process
            torch.testing.assert_close(found[name][first:], expected[first:])
            assert not found[name][:first].any()


def small_model(shard=None):
    """A model with the tables of these items, ids known to all processes."""
    torch.manual_seed(0)
    sizes = {"n_items": N_ITEMS, "tags_per_item": 2, "n_tags": 4, "content_width": 2}
    model = DIN.of_sizes(DINConfig(embedding_dim=4, heads=1, hidden=(3,)), **sizes, shard=shard)
    for name, table in zip(("item_tags", "item_levels"), make_tables()[:2], strict=False):
        setattr(model.embedding, name, own_rows(table, shard))
    return model


def write_and_read(number, folder):
    """Write a shared model, read it again, and compare."""
    sharded.BLOCK = 32  # so that the tables have several
    model = small_model(Shard.here(N_ITEMS))
    model.save_weights(folder / WEIGHTS if number == 0 else None)
    dist.barrier()
    config = DINConfig(embedding_dim=4, heads=1, hidden=(3,)).model_dump()
    again = DIN.load(folder, config, model.sizes, in_shards=True)
    expected, found = model.state_dict(), again.state_dict()
    assert len(found["embedding.id.weight"]) == len(model.embedding.shard)
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[name], expected[name]) for name in expected)


def test_a_shared_model_is_written_as_the_whole_one_is(tmp_path):
    together(write_and_read, tmp_path)
    expected, found = small_model().state_dict(), load_file(tmp_path / WEIGHTS)
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        assert torch.equal(found[name], value), name


def test_a_file_with_other_rows_is_refused(tmp_path):
    small_model().save_weights(tmp_path / WEIGHTS)
    shard, tables = Shard(0, 2, N_ITEMS + 1), small_model(Shard(0, 2, N_ITEMS)).sharded
    with pytest.raises(ValueError, match=f"has {N_ITEMS + 1} rows, expected {N_ITEMS + 2}"):
        shard.read(tmp_path / WEIGHTS, tables)
