"""Batches hold exactly what their rows say, each distinct item once."""

from itertools import chain

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mmctr.data.impressions import Impressions
from mmctr.model.config import DINConfig
from mmctr.model.din import DIN
from mmctr.training import batches as batches_module
from mmctr.training.batches import Batches, distinct, distinct_padded

N_ITEMS = 9
histories = st.lists(st.lists(st.integers(1, N_ITEMS), max_size=6), min_size=2, max_size=12)


def impressions(clicks):
    """Rows with the given histories; targets and labels follow from the row number."""
    lengths = np.array([len(history) for history in clicks])
    end = np.cumsum(lengths)
    number = np.arange(len(clicks))
    return Impressions(
        user=number,
        target=(number % N_ITEMS + 1).astype(np.int32),
        label=(number % 2).astype(np.float32),
        history_start=end - lengths,
        history_end=end,
        history_items=np.concatenate([np.array(history, dtype=np.int32) for history in clicks]),
    )


def model(max_history):
    """A small model for the items of `impressions`."""
    sizes = {"n_items": N_ITEMS, "tags_per_item": 1, "n_tags": 2, "content_width": None}
    return DIN.of_sizes(DINConfig.of(max_history=max_history, embedding_dim=2), **sizes)


@given(histories, st.integers(1, 4), st.randoms())
def test_a_batch_equals_a_loop_over_its_rows(clicks, max_history, random):
    rows = impressions(clicks)
    picked = random.choices(range(len(rows)), k=len(rows))
    batch = Batches(rows, model(max_history)).of(torch.tensor(picked))
    ids = batch.items
    assert len(set(ids.tolist())) == len(ids)
    latest = [clicks[row][-max_history:] for row in picked]
    named = set(rows.target[picked].tolist()) | {item for history in latest for item in history}
    assert set(ids.tolist()) == named
    assert ids[batch.target].tolist() == rows.target[picked].tolist()
    assert batch.label.tolist() == rows.label[picked].tolist()
    offsets = batch.histories.offsets.tolist()
    for number, history in enumerate(latest):
        positions = batch.histories.items[offsets[number] : offsets[number + 1]]
        assert ids[positions].tolist() == history
        assert set(batch.histories.rows[offsets[number] : offsets[number + 1]].tolist()) <= {number}


@given(st.lists(st.integers(1, N_ITEMS), min_size=1), st.integers(1, 5), st.data())
def test_rows_may_share_and_overlap_slices(flat, max_history, data):
    spans = st.tuples(st.integers(0, len(flat)), st.integers(0, len(flat))).map(sorted)
    start, end = np.array(data.draw(st.lists(spans, min_size=1, max_size=8))).T
    number = np.arange(len(start))
    target = (number % N_ITEMS + 1).astype(np.int32)
    rows = Impressions(number, target, None, start, end, np.array(flat, dtype=np.int32))
    (batch,) = Batches(rows, model(max_history)).in_order(len(rows))
    assert batch.label is None
    named = batch.items[batch.histories.items].tolist()
    clicks = [flat[first:last][-max_history:] for first, last in zip(start, end, strict=True)]
    assert named == [item for history in clicks for item in history]
    expected = [row for row, history in enumerate(clicks) for _ in history]
    assert batch.histories.rows.tolist() == expected


def test_rows_without_any_click_are_a_batch():
    batch = next(Batches(impressions([[], [], []]), model(4)).in_order(3))
    assert batch.items.tolist() == batch.items[batch.target].tolist() == [1, 2, 3]
    assert batch.histories.offsets.tolist() == [0, 0, 0, 0]
    assert not len(batch.histories.items)


@given(st.integers(2, 60), st.integers(3, 20))
def test_no_row_is_alone_in_a_shuffled_batch(count, size):
    """Batch normalisation cannot learn from one row."""
    batches = Batches(impressions([[1]] * count), model(4))
    lengths = [len(part) for part in batches.shuffled(size, torch.Generator())]
    assert sum(lengths) == count
    assert 2 <= min(lengths) <= max(lengths) <= size


@pytest.mark.parametrize("size", [2, 3, 7, 100])
def test_shuffled_visits_every_row_once_in_nearly_equal_batches(size):
    rows = impressions([[1 + number % N_ITEMS] for number in range(15)])
    rows = Impressions(**(vars(rows) | {"label": np.arange(15, dtype=np.float32)}))
    batches = Batches(rows, model(4))
    parts = list(batches.shuffled(size, torch.Generator().manual_seed(0)))
    assert len(parts) == batches.count(size) == -(-15 // size)
    assert sorted(label for part in parts for label in part.label.tolist()) == list(range(15))
    lengths = [len(part) for part in parts]
    assert max(lengths) <= size
    assert max(lengths) - min(lengths) <= 1
    again = list(batches.shuffled(size, torch.Generator().manual_seed(0)))
    assert [part.label.tolist() for part in parts] == [part.label.tolist() for part in again]
    other = list(batches.shuffled(size, torch.Generator().manual_seed(1)))
    assert [part.label.tolist() for part in parts] != [part.label.tolist() for part in other]


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.integers(1, 60), st.integers(1, 20), st.integers(1, 3))
def test_ranks_share_each_batch_of_the_same_order(monkeypatch, count, size, parts):
    """Several small windows: batches are cut across their borders."""
    monkeypatch.setattr(batches_module, "BLOCK", 4)
    monkeypatch.setattr(batches_module, "WINDOW", 3)
    rows = impressions([[1]] * count)
    rows = Impressions(**(vars(rows) | {"label": np.arange(count, dtype=np.float32)}))

    def labels(process):
        batches, generator = Batches(rows, model(4), process), torch.Generator().manual_seed(0)
        return [part.label.tolist() for part in batches.shuffled(size, generator)]

    whole = labels((0, 1))
    shares = [labels((number, parts)) for number in range(parts)]
    assert [list(chain(*batch)) for batch in zip(*shares, strict=True)] == whole
    assert sorted(chain(*whole)) == list(range(count))
    assert len(whole) == -(-count // size)
    assert max(map(len, whole)) - min(map(len, whole)) <= 1


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.integers(1, 80), st.integers(1, 20), st.sampled_from([1, 2, 3]), st.integers(1, 3))
def test_a_process_holds_its_shares_and_batches_are_the_same(
    monkeypatch, count, size, processes, of_each
):
    monkeypatch.setattr(batches_module, "BLOCK", 4)
    monkeypatch.setattr(batches_module, "WINDOW", 3)
    shares = max(2, processes * of_each) if processes == 1 else processes * of_each
    random = np.random.default_rng(count)
    clicks = [random.integers(1, N_ITEMS + 1, length) for length in random.integers(0, 4, count)]
    rows = impressions(clicks)
    rows = Impressions(**(vars(rows) | {"label": np.arange(count, dtype=np.float32)}))

    def cut(process, first=0):
        batches, generator = Batches(rows, model(2), process, shares), torch.Generator()
        found = list(batches.shuffled(size, generator.manual_seed(0), first))
        for batch in found:  # what a row says goes with it
            numbers = batch.label.long().tolist()
            assert batch.items[batch.target].tolist() == rows.target[numbers].tolist()
            read = batch.items[batch.histories.items].tolist()
            assert read == [item for number in numbers for item in clicks[number][-2:]]
        return batches, [batch.label.tolist() for batch in found]

    whole = cut((0, 1))[1]
    every = [cut((number, processes)) for number in range(processes)]
    assert [list(chain(*batch)) for batch in zip(*(own for _, own in every), strict=True)] == whole
    assert sorted(chain(*whole)) == list(range(count))
    assert cut((0, 1), first=2)[1] == whole[2:]
    borders = [count * share // shares for share in range(shares + 1)]
    for batch in whole:
        held = np.histogram(batch, bins=np.array(borders) - 0.5)[0] if count >= shares else [0]
        wanted = np.diff(borders) / len(whole)
        assert count < shares or (np.abs(held - wanted) < 1).all()
    # Each holds its own rows and, of the flat histories, what they name.
    for number, (batches, own) in enumerate(every):
        mine = range(borders[number * of_each], borders[(number + 1) * of_each])
        if processes > 1:
            assert sorted(chain(*own)) == list(mine)
            assert len(batches.target) == len(mine)
            assert len(batches.history_items) == sum(len(clicks[row]) for row in mine)


def test_shuffling_mixes_rows_of_distant_blocks(monkeypatch):
    monkeypatch.setattr(batches_module, "BLOCK", 10)
    monkeypatch.setattr(batches_module, "WINDOW", 8)
    rows = impressions([[1]] * 4000)
    rows = Impressions(**(vars(rows) | {"label": np.arange(4000, dtype=np.float32)}))
    for part in Batches(rows, model(4)).shuffled(80, torch.Generator().manual_seed(0)):
        blocks = np.unique(part.label.numpy() // 10)
        assert len(blocks) >= 8
        assert blocks.max() - blocks.min() > 100


@given(st.lists(st.integers(1, 20), min_size=1, max_size=40))
def test_distinct_items_of_known_size_are_those_of_numpy_and_padding(ids):
    expected, inverse = np.unique(ids, return_inverse=True)
    for found in (distinct, distinct_padded):
        items, position = found(torch.tensor(ids))
        assert items[: len(expected)].tolist() == expected.tolist()
        assert not items[len(expected) :].any()
        assert position.tolist() == inverse.tolist()
    assert len(items) == len(ids)


def test_impressions_are_not_copied():
    """Memory-mapped data may be larger than memory."""
    rows = impressions([[1, 2], [3]])
    batches = Batches(rows, model(4))
    for found, array in (
        (batches.target, rows.target),
        (batches.start, rows.history_start),
        (batches.history_items, rows.history_items),
        (batches.label, rows.label),
    ):
        assert found.data_ptr() == array.ctypes.data


@pytest.mark.parametrize("clicks", [[], [3], [1, 2, 3, 4, 5, 6]])
def test_rows_of_one_history_hold_it_once(clicks):
    rows = Impressions(
        user=np.zeros(4, dtype=np.int64),
        target=np.array([1, 2, 3, 1], dtype=np.int32),
        label=None,
        history_start=np.zeros(4, dtype=np.int64),
        history_end=np.full(4, len(clicks)),
        history_items=np.array(clicks, dtype=np.int32),
    )
    (batch,) = Batches(rows, model(4)).in_order(4, one_history=True)
    assert batch.items[batch.histories.items].tolist() == clicks[-4:]
    assert len(batch.histories) == 1
    assert batch.items[batch.target].tolist() == rows.target.tolist()
    (plain,) = Batches(rows, model(4)).in_order(4)
    repeated = batch.histories.for_rows(4)
    assert batch.items[repeated.items].tolist() == plain.items[plain.histories.items].tolist()
    assert torch.equal(repeated.offsets, plain.histories.offsets)
    assert torch.equal(repeated.rows, plain.histories.rows)


def test_in_order_keeps_the_order():
    rows = impressions([[1]] * 7)
    batches = Batches(rows, model(4))
    found = [batch.items[batch.target] for batch in batches.in_order(3)]
    assert [len(part) for part in found] == [3, 3, 1]
    assert torch.cat(found).tolist() == rows.target.tolist()
