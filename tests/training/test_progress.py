"""What training says it cost."""

import pytest


def test_a_run_says_what_it_cost(tiny_run):
    cost = tiny_run.summary["cost"]
    seconds = cost["seconds"]
    assert list(seconds) == ["data", "forward", "backward", "optimizer", "validation"]
    assert min(seconds.values()) >= 0
    assert 0 < sum(seconds.values()) <= tiny_run.summary["seconds"]["training"]
    rows = tiny_run.summary["dataset"]["rows"]["train"]
    training = sum(seconds.values()) - seconds["validation"]
    assert cost["samples_per_s"] == pytest.approx(rows / training, rel=0.02)  # rounded seconds
    assert cost["peak_memory_mb"] > 50
