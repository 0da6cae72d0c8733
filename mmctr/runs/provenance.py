"""Where a result comes from: data, versions, commit and machine."""

import os
import platform
import subprocess
from contextlib import suppress
from datetime import UTC, datetime
from hashlib import sha256
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

import mmctr
from mmctr.data.catalog import Catalog
from mmctr.data.dataset import Dataset
from mmctr.data.fingerprint import combined, file_hashes
from mmctr.errors import MMCTRError, RunError
from mmctr.files import SOURCE, find


def describe(dataset: Dataset) -> dict[str, Any]:
    """What identifies a dataset: name, folder, fingerprint, sizes, and whether it is simulated.

    And where its negatives come from, and hashes of its own names for items and tags, where it has
    any: the fingerprint knows numbers.
    """
    catalog = dataset.catalog
    known = {"item_ids_sha256": catalog.ids_hash, "tag_names_sha256": catalog.tags_hash}
    known["negatives_per_click"] = dataset.negatives_per_click
    return {
        "name": dataset.name,
        "folder": str(dataset.folder),
        "fingerprint": dataset.fingerprint,
        "simulated": dataset.simulated,
        "items": catalog.n_items,
        "rows": {name: len(rows) for name, rows in dataset.splits.items()},
        "negatives": dataset.negatives_from,
        **{name: value for name, value in known.items() if value is not None},
    }


def in_utc(date: str) -> str:
    """A date with its zone, as results have it, by one clock for all machines.

    What is no date stays as it is.
    """
    try:
        return f"{datetime.fromisoformat(date).astimezone(UTC):%Y-%m-%d %H:%M}"
    except (TypeError, ValueError, OverflowError):
        return str(date)


def find_dataset(stated: dict[str, Any], run: Path) -> Path:
    """The folder of the dataset that `describe` stated for a run: where it was, or where it is now.

    Whoever moves both, as parts of one folder, finds them together: below each folder that holds
    the run the dataset's path is tried, its whole first and its name last, and only the very files
    that were stated are taken. Where there are none, the folder that was stated.
    """
    folder = find(stated["folder"])
    if folder.is_dir():
        return folder
    names = Path(stated["folder"]).parts[1:]
    ends = [Path(*names[start:]) for start in range(len(names))]
    moved = (above / end for above in run.resolve().parents for end in ends)
    there = (place for place in moved if _holds(place, stated["fingerprint"]))
    return next(there, folder)


def _holds(place: Path, fingerprint: str) -> bool:
    """Whether the files of a dataset are at a place, as far as nothing is brought over for it."""
    with suppress(OSError, MMCTRError):  # what it is instead need not be sound
        return place.is_dir() and combined(file_hashes(place)) == fingerprint
    return False


def has_other_ids(stated: dict[str, Any], catalog: Catalog) -> bool:
    """Whether items have other own ids than a dataset had that `describe` stated.

    One of which no own ids are known passes.
    """
    return stated.get("item_ids_sha256") not in (None, catalog.ids_hash)


def require_same(stated: dict[str, Any], dataset: Dataset, folder: Path) -> None:
    """Raise RunError unless a dataset is the very one that was stated when `folder` was begun."""
    own = f"choose the run's own dataset, {stated['folder']}."
    if stated["fingerprint"] != dataset.fingerprint:
        raise RunError(
            f"{folder} was trained on data with fingerprint {stated['fingerprint']}, but "
            f"{dataset.folder} has {dataset.fingerprint}: {own}"
        )
    if has_other_ids(stated, dataset.catalog):
        raise RunError(
            f"{folder} was trained on items with other ids than those of {dataset.folder}: {own}"
        )


def provenance() -> dict[str, Any]:
    """Versions, git commit and hardware behind a result."""
    packages = ("torch", "numpy", "pandas", "scikit-learn")
    return {
        "versions": {
            "mmctr": mmctr.__version__,
            "python": platform.python_version(),
            **{name: version(name) for name in packages},
        },
        "git": _git_commit(),
        "hardware": {
            "machine": platform.machine(),
            "system": platform.system(),
            "processor": _processor(),
            "cores": os.cpu_count(),
            "threads": torch.get_num_threads(),
            "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        },
    }


def _processor() -> str | None:
    """The processor's name, where the system tells it."""
    try:
        facts = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    except OSError:
        return platform.processor() or None
    names = [line.split(":", 1)[1].strip() for line in facts.split("\n") if "model name" in line]
    return names[0] if names else None


def source_hash() -> str:
    """A hash of the library's code, which a commit with changes does not tell."""
    root = Path(mmctr.__file__).parent
    digest = sha256()
    for path in sorted(root.rglob("*.py")):
        digest.update(f"{path.relative_to(root)}\0".encode() + path.read_bytes())
    return digest.hexdigest()


def _git_commit() -> dict[str, Any] | None:
    """The commit of the source tree and whether it has uncommitted changes; None outside git."""
    if SOURCE is None:  # an environment may lie in the repository of something else
        return None

    def git(*words: str) -> str:
        command = ["git", "-C", str(SOURCE), *words]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()

    try:
        return {
            "commit": git("rev-parse", "HEAD"),
            "dirty": bool(git("status", "--porcelain", "--untracked-files=no")),
        }
    except (OSError, subprocess.CalledProcessError):
        return None
