"""A progress bar for work that may take long, and mostly does not."""

import os
from collections.abc import Iterable, Iterator
from time import monotonic
from typing import TypeVar

from tqdm.auto import tqdm

PATIENCE = 2  # seconds that nobody minds
Part = TypeVar("Part")


def bar_if_long(parts: Iterable[Part], total: int, what: str) -> Iterator[Part]:
    """Yield the parts of some work; once it has taken PATIENCE, a bar shows how far it is.

    The bar is gone at the end. Of torchrun's processes the first alone shows one.
    """
    began, bar = monotonic(), None
    is_first = os.environ.get("RANK", "0") == "0"
    try:
        for number, part in enumerate(parts, start=1):
            yield part
            if bar is not None:
                bar.update()
            elif is_first and number < total and monotonic() - began > PATIENCE:
                bar = tqdm(desc=what, total=total, initial=number, unit=" parts", leave=False)
    finally:
        if bar is not None:
            bar.close()
