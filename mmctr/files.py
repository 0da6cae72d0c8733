"""Where the project's folders are, and files that appear whole or not at all."""

import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from mmctr.errors import MMCTRError

DEMO = Path("data/demo")  # below `home`


def home() -> Path:
    """The folder that holds data/, runs/ and reports/, whatever the current directory.

    The source tree, unless the environment variable MMCTR_HOME names another folder.
    """
    return Path(os.environ.get("MMCTR_HOME") or Path(__file__).parent.parent).resolve()


def find(path: Path | str) -> Path:
    """A path as given if it exists from the current directory, else as seen from `home`."""
    path = Path(path).expanduser()
    return path.resolve() if path.exists() else home() / path


@contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside `path`; move it into place only if the block succeeds.

    Raises MMCTRError if the folder cannot be written or the disk is full.
    """
    temporary = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        temporary = Path(name)
        os.close(handle)
        yield temporary
        with temporary.open("rb") as written:
            os.fsync(written.fileno())
        # mkstemp makes files for the owner alone; results are meant to be shared.
        temporary.chmod(0o644)
        temporary.replace(path)
    except OSError as error:
        raise _unwritable(path, error) from error
    finally:
        if temporary is not None:
            temporary.unlink(missing_ok=True)


@contextmanager
def atomic_folder(path: Path) -> Iterator[Path]:
    """Yield a temporary folder beside `path`; move it into place only if the block succeeds.

    Raises MMCTRError if it cannot be written or the disk is full.
    """
    temporary = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(dir=path.parent, prefix=f".{path.name}."))
        yield temporary
        # mkdtemp makes folders for the owner alone; results are meant to be shared.
        temporary.chmod(0o755)
        temporary.rename(path)
    except OSError as error:
        raise _unwritable(path, error) from error
    finally:
        if temporary is not None:
            shutil.rmtree(temporary, ignore_errors=True)


def write_json(path: Path, value: Any) -> None:
    """Write `value` as indented JSON, atomically."""
    with atomic_path(path) as temporary:
        temporary.write_text(json.dumps(value, indent=2, default=str) + "\n", encoding="utf-8")


def _unwritable(path: Path, error: OSError) -> MMCTRError:
    return MMCTRError(
        f"{path} could not be written ({error.strerror or error}): "
        "free some space or choose a folder that you may write to."
    )
