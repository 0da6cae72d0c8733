"""What the machine offers: its devices, their number formats, its memory."""

import ctypes
import re
import resource
import sys
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from functools import cache
from pathlib import Path

import torch

from mmctr.errors import ConfigError


def find_device(name: str) -> torch.device:
    """The device of that name; "auto" takes a GPU if there is one. ConfigError if it is absent."""
    there = {"cpu": True, "cuda": torch.cuda.is_available(), "mps": torch.mps.is_available()}
    if name == "auto":
        return torch.device("cuda" if there["cuda"] else "cpu")
    if not there[name]:
        raise ConfigError(
            f"Parameter 'device' is {name!r}, which this machine does not have: choose one of "
            f"{', '.join(repr(known) for known, found in there.items() if found)}."
        )
    return torch.device(name)


@contextmanager
def tuned(device: torch.device) -> Iterator[None]:
    """Run a block with the settings under which a CPU is quickest; results stay float32.

    PyTorch multiplies float32 matrices by MKL, which leaves AVX-512 unused on AMD; oneDNN, which
    it takes at "medium" precision, uses it. Only with AMX would that mean bfloat16 products.
    """
    before = torch.get_float32_matmul_precision()
    if device.type == "cpu":
        _keep_memory()
        features = torch.cpu.get_capabilities()
        if features.get("avx512_f") and not features.get("amx_tile"):
            torch.set_float32_matmul_precision("medium")
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)


def number_format(device: torch.device, precision: str) -> torch.dtype:
    """Of matrix products; "auto" means bfloat16 on CUDA and float32 elsewhere."""
    if precision == "auto":
        precision = "bfloat16" if device.type == "cuda" else "float32"
    return getattr(torch, precision)


def autocast(device: torch.device, precision: str) -> AbstractContextManager:
    """Matrix products in the number format of this precision."""
    dtype = number_format(device, precision)
    return torch.autocast(device.type, torch.bfloat16, enabled=dtype == torch.bfloat16)


def peak_memory_mb(device: torch.device) -> float:
    """The most memory used so far: of the GPU by PyTorch, or resident of the process."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated() / 1e6
    status = Path("/proc/self/status")
    if status.is_file():  # rusage would start from the peak of the process that started this one
        return int(re.search(r"VmHWM:\s*(\d+) kB", status.read_text())[1]) * 1024 / 1e6
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e6


@cache
def _keep_memory() -> None:
    """Have glibc keep freed memory for the next step, instead of returning it to the system.

    Otherwise every large tensor of every step is zeroed anew by the kernel, page by page, which
    takes longer than most computations on it.
    """
    if sys.platform == "linux" and hasattr(libc := ctypes.CDLL(None), "mallopt"):
        trim_threshold, largest_mapped = -1, -4
        libc.mallopt(largest_mapped, 0)
        libc.mallopt(trim_threshold, 2**31 - 1)
