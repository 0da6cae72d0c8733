"""What covers look like, measured once: brightness, sharpness, shape, and a fingerprint of each.

Covers are read in shards, each kept in FOLDER/.cache/covers under a hash of the names, sizes and
times of its files: a killed measuring goes on where it was, and a changed cover costs one shard.
"""

import hashlib
import json
import os
import zipfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, fields
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from tqdm.auto import tqdm

from mmctr.content.image import READING, open_cover
from mmctr.data.catalog import Catalog
from mmctr.errors import MMCTRError
from mmctr.files import atomic_path

SHARD = 1024
VERSION = 1  # to be raised whenever a measure is taken another way
SIDE = 128  # pixels that a cover is measured at, whatever its size and shape
COLOURS = 8  # the side of the small picture that colours are compared by
FLAT_STEP = 10  # of 255, in a bright cover: pixels so near to the median colour show nothing
NOISE = 50.0  # variance of grey values; below, what JPEG rounds off passes for detail
MISSING = "no cover"


@dataclass(frozen=True)
class CoverFacts:
    """Measures of covers; every array has n_items + 1 rows, NaN or 0 where none was read.

    reason: why a cover was not read, "" if it was. aspect: width / height. flat: share of pixels
    about the median colour. bright: 95th percentile of luminance, 0 to 1. sharp: variance of the
    Laplacian over that of the grey values, of SIDE x SIDE pixels. hash: uint64, perceptual.
    colours: uint8 [n_items + 1, COLOURS, COLOURS, 3], the picture at its smallest.
    """

    reason: np.ndarray
    aspect: np.ndarray
    flat: np.ndarray
    bright: np.ndarray
    sharp: np.ndarray
    hash: np.ndarray
    colours: np.ndarray

    @property
    def read(self) -> np.ndarray:
        """Which covers could be read, bool [n_items + 1]."""
        return self.reason == ""


def cover_facts(catalog: Catalog, folder: Path) -> CoverFacts:
    """Measure all covers of a catalog, or take what was measured before; with progress."""
    shards = [
        range(start, min(start + SHARD, catalog.n_items + 1))
        for start in range(0, catalog.n_items + 1, SHARD)
    ]
    found = []
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    with (
        ThreadPoolExecutor(cores or 1) as threads,
        tqdm(total=len(catalog.covers), desc="covers", unit=" covers") as bar,
    ):
        for items in shards:
            paths = [catalog.covers.get(item) for item in items]
            path = folder / ".cache" / "covers" / f"{_name(paths)}.npz"
            facts = _kept(path, len(paths))
            if facts is None:
                facts = _stacked(list(threads.map(_measure, paths)))
                # A folder that cannot be written is measured again: what is kept saves time only.
                with (
                    suppress(MMCTRError),
                    atomic_path(path) as temporary,
                    temporary.open("wb") as f,
                ):
                    np.savez(f, **facts)
            found.append(facts)
            bar.update(sum(path is not None for path in paths))
    return CoverFacts(**{name: np.concatenate([one[name] for one in found]) for name in _FORMS})


def measure(cover: Any) -> dict[str, Any]:
    """The measures of one cover, a PIL image in RGB, by name."""
    import PIL.Image

    small = cover.resize((SIDE, SIDE), PIL.Image.Resampling.BOX)
    grey = np.asarray(small.convert("L"), np.float32)
    inner = grey[1:-1, 1:-1]
    laplacian = grey[:-2, 1:-1] + grey[2:, 1:-1] + grey[1:-1, :-2] + grey[1:-1, 2:] - 4 * inner
    bright = float(np.sort(grey, axis=None)[int(0.95 * grey.size)]) / 255
    half = np.asarray(small.resize((SIDE // 2, SIDE // 2), PIL.Image.Resampling.BOX), np.int16)
    # What is dark all over is not empty for that.
    step, near = 1 + FLAT_STEP * bright, np.ones(half.shape[:2], dtype=bool)
    for channel in np.moveaxis(half, 2, 0):
        middle = np.bincount(channel.ravel()).cumsum().searchsorted(channel.size / 2)
        near &= np.abs(channel - middle) <= step
    square = SIDE // 2 // COLOURS
    colours = half.reshape(COLOURS, square, COLOURS, square, 3).mean(axis=(1, 3))
    return {
        "reason": "",
        "aspect": cover.width / cover.height,
        "flat": float(near.mean()),
        "bright": bright,
        "sharp": float(laplacian.var() / (inner.var() + NOISE)),
        "hash": perceptual_hash(grey),
        "colours": np.rint(colours).astype(np.uint8),
    }


def perceptual_hash(grey: np.ndarray) -> int:
    """64 bits: which of the 8 x 8 lowest cosine coefficients are above their median.

    Of float32 [128, 128], as DCT-based hashes are made (Zauner, 2010): flat pictures of any colour
    share one, which whoever compares them must know.
    """
    side = len(_COSINES[0])
    small = grey.reshape(side, len(grey) // side, side, -1).mean(axis=(1, 3))
    low = _COSINES @ small @ _COSINES.T
    bits = low.ravel() > np.median(low.ravel()[1:])  # the first is the mean brightness
    bits[0] = False
    return int(np.packbits(bits).view(">u8")[0])


# The DCT-II of 32 values, its 8 lowest frequencies.
_COSINES = np.cos(np.pi / 32 * np.outer(np.arange(8), np.arange(32) + 0.5)).astype(np.float32)
_FORMS: dict[str, Callable[[int], np.ndarray]] = {
    **{
        name: partial(np.full, fill_value=np.nan, dtype=np.float32)
        for name in ("aspect", "flat", "bright", "sharp")
    },
    "reason": partial(np.full, fill_value="", dtype="<U32"),
    "hash": partial(np.zeros, dtype=np.uint64),
    "colours": lambda n: np.zeros((n, COLOURS, COLOURS, 3), np.uint8),
}
assert set(_FORMS) == {field.name for field in fields(CoverFacts)}


def _measure(path: Path | None) -> dict[str, Any]:
    if path is None:
        return {"reason": MISSING}
    cover = open_cover(path, enough=SIDE)
    return {"reason": cover} if isinstance(cover, str) else measure(cover)


def _stacked(found: list[dict[str, Any]]) -> dict[str, np.ndarray]:
    columns = {name: form(len(found)) for name, form in _FORMS.items()}
    for row, one in enumerate(found):
        for name, value in one.items():
            columns[name][row] = value
    return columns


def _name(paths: list[Path | None]) -> str:
    known: list[Any] = [VERSION, READING]
    for path in paths:
        stat = path.stat() if path else None
        known.append(stat and (path.name, stat.st_size, stat.st_mtime_ns))
    return hashlib.blake2b(json.dumps(known).encode(), digest_size=16).hexdigest()


def _kept(path: Path, size: int) -> dict[str, np.ndarray] | None:
    """What a shard's file holds; None if it is not there or damaged."""
    try:
        with np.load(path, allow_pickle=False) as file:
            facts = {name: file[name] for name in _FORMS}
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
        return None
    return facts if all(len(values) == size for values in facts.values()) else None
