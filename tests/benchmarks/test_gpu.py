"""The GPU's benchmark, as far as a CPU can tell: the same steps on a few rows."""

import sys
from dataclasses import replace

import pytest
import torch

from benchmarks import gpu
from benchmarks import microlens_shape as shape

CPU = torch.device("cpu")
PLAN = replace(gpu.TINY, rows=600, valid_rows=60, items=50, batch=64, seconds=0.01, side=16)


def moved_by(call):
    with gpu.Traffic() as traffic:
        call()
    return traffic.bytes


def test_what_operations_move():
    table, one, other = torch.ones(100, 4), torch.ones(5, 4), torch.ones(5, 4)
    rows = torch.tensor([1, 7])
    assert moved_by(lambda: one + other) == 3 * 80, "two are read, one is written"
    assert moved_by(lambda: one.add_(other)) == 3 * 80, "its own is read and written"
    assert moved_by(lambda: one.view(4, 5).T) == 0
    assert moved_by(lambda: one @ other.T) == 2 * 80 + 100
    assert moved_by(lambda: table[rows]) == 2 * (16 + 32), "of a table only the rows"
    assert moved_by(lambda: table.index_add_(0, rows, one[:2])) == 2 * (16 + 32)
    assert moved_by(lambda: torch._foreach_add_([one, other], 1.0)) == 4 * 80


@pytest.fixture(scope="module")
def result():
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(gpu, "find_spec", lambda name: None)
        return gpu.measure(PLAN, CPU)


def test_an_epoch_with_its_validations(result):
    found = result["epoch"]
    assert (found["steps"], found["validations"]) == (10, 4)
    assert found["samples_per_s"] * found["seconds"] == pytest.approx(PLAN.rows)
    assert sum(found["parts"].values()) <= found["seconds"]
    assert found["flop_per_s"] > 0 and found["bytes_per_s"] > 0


def test_the_report_says_what_is_missing(result):
    text = gpu.report(result)
    assert "FuxiCTR is not installed" in text
    assert "600 rows, 50 items, batches of 64" in text
    beside = {"samples_per_s": 300.0, "samples_per_s_without_cutting": 600.0}
    text = gpu.report(result | {"fuxictr": beside})
    assert "not installed" not in text
    lines = [line.split() for line in text.splitlines()]
    assert ["FuxiCTR", "DIN", "300", "2.0"] in lines, "rows and samples/s make an epoch"


def test_beside_fuxictr():
    pytest.importorskip("fuxictr")
    found = gpu.fuxictr(PLAN, shape.catalog(PLAN.items), CPU)
    assert all(rate > 0 for rate in found.values())


def test_without_a_gpu_it_says_so(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(sys, "argv", ["gpu"])
    with pytest.raises(SystemExit, match="This machine has no GPU that PyTorch can use"):
        gpu.main()
