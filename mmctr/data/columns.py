"""Arrays that need not fit in memory: a large one lies in a file without a name.

Such a file is gone with its last user, however that ends, and its memory is the system's to take.
Where a disk is full, or none can be written, memory is used after all.
"""

import os
import tempfile
from pathlib import Path
from typing import BinaryIO

import numpy as np

LARGE = 1 << 26  # bytes from which on a column lies on the disk


class Column:
    """An array that grows by parts; folder: on whose disk it lies once it is large."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.parts, self.written = folder, [], 0  # rows in the file
        self.file: BinaryIO | None = None
        self.has_room = True

    def append(self, part: np.ndarray) -> None:
        """Rows that follow, [n, ...], of the type and width of those before."""
        self.kind, self.row = part.dtype, part.shape[1:]
        self.parts.append(part)
        if self.has_room and (self.file or sum(part.nbytes for part in self.parts) >= LARGE):
            self._write()

    def whole(self) -> np.ndarray:
        """All rows, [total, ...]; those of a file are mapped, and changed in memory alone."""
        return self._mapped() if self.file else np.concatenate(self.parts)

    def _write(self) -> None:
        try:
            self.file = self.file or _nameless(self.folder)
            while self.parts:
                self.parts[0].tofile(self.file)
                self.written += len(self.parts.pop(0))
        except OSError:
            self.has_room = False
            self.parts[:0] = [np.array(self._mapped())] if self.written else []
            self.file = None

    def _mapped(self) -> np.ndarray:
        shape = (self.written, *self.row)
        return np.asarray(np.memmap(self.file, self.kind, "c", shape=shape))


def room(rows: int, folder: Path, kind: type = np.int64) -> np.ndarray:
    """An array to be filled, [rows]; folder: on whose disk it lies if it is large."""
    size = rows * np.dtype(kind).itemsize
    if size >= LARGE:
        try:
            file = _nameless(folder)
            # What a map writes to a disk that has become full ends the process.
            os.posix_fallocate(file.fileno(), 0, size)
            return np.asarray(np.memmap(file, kind, "r+", shape=rows))
        except OSError:
            pass
    return np.empty(rows, kind)


def _nameless(folder: Path) -> BinaryIO:
    """A new file of the folder's disk or, if none can be made there, of that of temporary files."""
    try:
        return tempfile.TemporaryFile(buffering=0, dir=folder)
    except OSError:
        return tempfile.TemporaryFile(buffering=0)
