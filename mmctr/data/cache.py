"""The large arrays of a dataset, memory-mapped from a cache in its own folder.

Decoding and validating millions of rows takes minutes; opening their arrays takes none, and their
memory is the operating system's to take back. An entry is `.cache/mmctr/<fingerprint>-<LAYOUT>/`:
one .npy file an array, named part.field.npy, and FORMS, which says what must be there. It is known
by the contents of the files it was read from, so it is never stale, and it goes with its dataset.
A cache saves time and nothing else: one that cannot be read or written is done without.
"""

import json
import os
import shutil
from contextlib import suppress
from pathlib import Path

import numpy as np

from mmctr.errors import MMCTRError
from mmctr.files import atomic_folder, write_json

LAYOUT = 3  # to be raised whenever loading changes what an array holds
# Bytes of arrays from which on an entry is written. The demo (25 MB) is read in 0.15 s and opened
# in 0.07 s: not worth doubling its size on the disk.
SMALLEST = 1 << 26
FORMS = "arrays.json"  # dtype and shape by part and field; null for an array that is None
Parts = dict[str, dict[str, np.ndarray | None]]  # arrays by part ("catalog", "train") and field


def read(folder: Path, fingerprint: str) -> Parts | None:
    """The arrays of a dataset's files, or None without a sound entry.

    Whatever is changed in them stays in memory: it never reaches the entry's files.
    """
    entry = _entry(folder, fingerprint)
    try:
        forms = json.loads((entry / FORMS).read_text(encoding="utf-8"))
        return {
            part: {name: form and _open(entry, part, name, form) for name, form in fields.items()}
            for part, fields in forms.items()
        }
    except Exception:  # damage shows in many ways, and the dataset's own files are still there
        return None


def pays(parts: Parts) -> bool:
    """Whether arrays are large enough for a cache to be worth its disk space."""
    arrays = (array for fields in parts.values() for array in fields.values())
    return sum(array.nbytes for array in arrays if array is not None) >= SMALLEST


def write(folder: Path, fingerprint: str, parts: Parts) -> None:
    """Write an entry, whole or not at all, in place of all others."""
    entry, forms = _entry(folder, fingerprint), {}
    # What lies there is of other contents or another layout, damaged, or was never finished. If
    # another process is just writing it, that one does without a cache and this one makes it.
    shutil.rmtree(entry.parent, ignore_errors=True)
    with suppress(MMCTRError, OSError), atomic_folder(entry) as temporary:
        for part, fields in parts.items():
            forms[part] = {name: _form(array) for name, array in fields.items()}
            for name, array in fields.items():
                if array is not None:
                    _save(temporary / f"{part}.{name}.npy", array)
        write_json(temporary / FORMS, forms)


def _entry(folder: Path, fingerprint: str) -> Path:
    # .cache/ alone may also hold what other tools keep there, such as huggingface_hub.
    return folder / ".cache" / "mmctr" / f"{fingerprint}-{LAYOUT}"


def _form(array: np.ndarray | None) -> list | None:
    return None if array is None else [array.dtype.str, list(array.shape)]


def _open(entry: Path, part: str, name: str, form: list) -> np.ndarray:
    path = entry / f"{part}.{name}.npy"
    # Copy-on-write: torch takes such arrays without a warning, and the file stays as it is.
    array = np.asarray(np.load(path, mmap_mode="c", allow_pickle=False))
    if _form(array) != form:
        raise ValueError(f"{path} does not hold {form}.")
    return array


def _save(path: Path, array: np.ndarray) -> None:
    with path.open("xb") as file:
        np.save(file, array, allow_pickle=False)
        # A name may outlive a crash of the machine that its content did not reach the disk before.
        file.flush()
        os.fsync(file.fileno())
