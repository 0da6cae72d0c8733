"""Settings for speed change no number and are put back; the peak is what the process used."""

import numpy as np
import pytest
import torch

from mmctr.devices import autocast, find_device, peak_memory_mb, tuned

CPU = torch.device("cpu")


@pytest.mark.parametrize(("there", "expected"), [(True, "cuda"), (False, "cpu")])
def test_auto_takes_a_gpu_if_there_is_one(monkeypatch, there, expected):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: there)
    assert find_device("auto").type == expected
    assert find_device("cpu").type == "cpu"


@pytest.mark.parametrize(("rows", "width", "out"), [(1, 3, 2), (700, 1440, 256), (64, 300, 1)])
def test_products_stay_float32(rows, width, out):
    """bfloat16 would be off by a thousandth."""
    torch.manual_seed(0)
    x, weight = torch.randn(rows, width), torch.randn(out, width)
    with tuned(CPU):
        found = torch.nn.functional.linear(x, weight)
    exact = x.double() @ weight.double().T
    assert (found - exact).abs().max() < 1e-5 * exact.abs().max()


def test_settings_are_put_back():
    before = torch.get_float32_matmul_precision()
    with pytest.raises(ValueError, match="broken"), tuned(CPU):
        raise ValueError("broken")
    assert torch.get_float32_matmul_precision() == before


@pytest.mark.parametrize(
    ("precision", "kind"),
    [("auto", torch.float32), ("float32", torch.float32), ("bfloat16", torch.bfloat16)],
)
def test_precision_is_that_of_matrix_products(precision, kind):
    with autocast(CPU, precision):
        assert (torch.ones(2, 2) @ torch.ones(2, 2)).dtype == kind


def test_peak_memory_covers_what_was_allocated():
    before = peak_memory_mb(CPU)
    array = np.ones(int(before + 300) * 125_000)  # larger than all that was ever resident
    assert peak_memory_mb(CPU) > array.nbytes / 1e6
