"""By what a dataset is known: its files' contents, wherever they are."""

import hashlib
from concurrent.futures import ThreadPoolExecutor
from itertools import repeat
from pathlib import Path

from mmctr.bars import bar_if_long
from mmctr.data import schema
from mmctr.data.address import Address, known
from mmctr.data.parquet import parts, unreadable


def files_fingerprint(folder: Path) -> str:
    """SHA-256 over the contents of a dataset's parquet files, its first 16 digits."""
    return combined(file_hashes(folder, read=True))


def file_hashes(folder: Path, read: bool = False) -> dict[str, bytes | None]:
    """SHA-256 of each of a dataset's files; of a split in parts, of their names and hashes.

    read: bring parts over that are elsewhere and were never read; None for a split that has such
    parts if not.
    """
    found = {name: path for name in schema.FILES if (path := schema.find_file(folder, name))}
    with ThreadPoolExecutor() as threads:  # hashing does not hold the interpreter's lock
        hashes = threads.map(_hash, found.values(), repeat(read))
        return dict(zip(found, hashes, strict=True))


def combined(hashes: dict[str, bytes | None]) -> str | None:
    """The fingerprint of a dataset by the hashes of its files; None if one is not known."""
    if None in hashes.values():
        return None
    named = (name.encode() + content for name, content in hashes.items())
    return hashlib.sha256(b"".join(named)).hexdigest()[:16]


def _hash(path: Path | Address, read: bool) -> bytes | None:
    found = parts(path)
    hashes = _elsewhere(found, read) if isinstance(path, Address) else list(map(_of_file, found))
    if None in hashes:
        return None
    if not path.is_dir():
        return hashes[0]
    named = (part.name.encode() + content for part, content in zip(found, hashes, strict=True))
    return hashlib.sha256(b"".join(named)).digest()


def _of_file(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").digest()
    except OSError as error:
        raise unreadable(path, error.strerror or str(error)) from error


def _elsewhere(files: list[Address], read: bool) -> list[bytes | None]:
    hashes = known(files)
    if not read or None not in hashes:
        return hashes
    new = [file for file, content in zip(files, hashes, strict=True) if content is None]
    for file in bar_if_long(new, len(new), "parts"):
        with file.brought():
            pass
    return known(files)
