"""Where the project's folders are, and files that appear whole or not at all."""

import errno
import json
import math
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout
from safetensors import SafetensorError

from mmctr.errors import DataError, MMCTRError, first_line

LIBRARY = Path(__file__).parent
CARRIED = LIBRARY / "notebooks"  # by an installed wheel; in the source tree beside the library
SOURCE = None if CARRIED.is_dir() else LIBRARY.parent  # the source tree, if this runs from it
NOTEBOOKS = SOURCE / "notebooks" if SOURCE else CARRIED
DEMO = Path("data/demo")  # below `home`
LOCK = ".lock"
FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS}  # whatever file they name


def home() -> Path:
    """The folder that holds data/, runs/ and reports/.

    The source tree, whatever the current directory; of an installed wheel, the current directory.
    The environment variable MMCTR_HOME names another.
    """
    return Path(os.environ.get("MMCTR_HOME") or SOURCE or "").resolve()


def find(path: Path | str) -> Path:
    """A path as given if it exists from the current directory, else as seen from `home`.

    If MMCTR_HOME is set, `home` comes first, where `place` makes folders then.
    """
    path = Path(path).expanduser()
    below = home() / path
    comes_first = os.environ.get("MMCTR_HOME") and below.exists()
    return below if comes_first or not path.exists() else path.resolve()


def place(path: Path | str) -> Path:
    """Where a folder is made that is asked for: below `home` if MMCTR_HOME is set, else here."""
    path = Path(path).expanduser()
    return home() / path if os.environ.get("MMCTR_HOME") else path.resolve()


def existing_folder(folder: Path | str) -> Path:
    """A dataset's folder as an absolute path; DataError if there is none."""
    path = Path(folder).expanduser().resolve()
    if not path.is_dir():
        raise DataError(f"{folder} is not a folder: name one that holds a dataset's files.")
    return path


@contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside `path`; move it into place only if the block succeeds.

    Raises MMCTRError if the folder cannot be written or the disk is full. What goes wrong with
    other files within the block is not about `path`, and passes as it is.
    """
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        os.close(handle)
    temporary = Path(name)
    try:
        with writing(path, temporary):
            yield temporary
        with writing(path):
            with temporary.open("rb") as written:
                os.fsync(written.fileno())
            # mkstemp makes files for the owner alone; results are meant to be shared.
            temporary.chmod(0o644)
            temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def atomic_folder(path: Path) -> Iterator[Path]:
    """Yield a temporary folder beside `path`; move it into place only if the block succeeds.

    Raises MMCTRError if it cannot be written or the disk is full, as `atomic_path` does.
    """
    with ExitStack() as stack:
        with writing(path):
            temporary = stack.enter_context(temporary_folder(path))
        with writing(path, temporary):
            yield temporary
        with writing(path):
            # Once for all: thousands of covers, each brought to the disk alone, take seconds.
            os.sync()
            temporary.rename(path)


@contextmanager
def temporary_folder(path: Path) -> Iterator[Path]:
    """Yield a new folder beside `path`, to be moved there; at the end it is gone if it was not."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(dir=path.parent, prefix=f".{path.name}."))
    try:
        # mkdtemp makes folders for the owner alone; results are meant to be shared.
        temporary.chmod(0o755)
        yield temporary
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


@contextmanager
def alone(folder: Path, say: str = "in use by") -> Iterator[None]:
    """Keep other processes out of a folder, made if it is not there; a killed one lets go.

    Raises MMCTRError if another process is in it, or if it cannot be written.
    """
    lock = FileLock(folder / LOCK)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock.acquire(blocking=False)
    except Timeout:
        raise MMCTRError(
            f"{folder} is {say} another process: wait for it, or choose another folder."
        ) from None
    except OSError as error:
        raise MMCTRError(
            f"{folder} cannot be written ({error.strerror or error}): choose a folder that you may "
            "write to."
        ) from error
    try:
        yield
    finally:
        (folder / LOCK).unlink(missing_ok=True)
        lock.release()


def write_json(path: Path, value: Any) -> None:
    """Write `value` as indented JSON, atomically; NaN and infinity, which JSON lacks, as null."""
    text = json.dumps(_finite(value), indent=2, default=str, allow_nan=False) + "\n"
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def _finite(value: Any) -> Any:
    """The value with None in place of numbers that are not finite, however deep."""
    if isinstance(value, dict):
        return {key: _finite(part) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(part) for part in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


@contextmanager
def writing(
    path: Path, temporary: Path | None = None, kind: type[MMCTRError] = MMCTRError
) -> Iterator[None]:
    """Turn errors of writing `path` into a sentence of this kind.

    With `temporary` only those that concern it: a full disk, its name, or that it is gone.
    """
    try:
        yield
    except (OSError, SafetensorError) as error:  # which safetensors raises for a full disk too
        if temporary is not None and isinstance(error, OSError):
            is_named = temporary.name in f"{error.filename} {error.filename2}"
            if error.errno not in FULL and not is_named and temporary.exists():
                raise
        raise kind(
            f"{path} could not be written ({getattr(error, 'strerror', None) or first_line(error)}"
            "): free some space or choose a folder that you may write to."
        ) from error
