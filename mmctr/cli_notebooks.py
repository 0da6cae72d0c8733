"""The command line of the notebooks: mmctr notebooks|lab."""

import os
import sys
from pathlib import Path
from typing import Annotated

import typer

from mmctr.errors import ConfigError
from mmctr.files import NOTEBOOKS, atomic_path, home, place

notebooks_app = typer.Typer()


@notebooks_app.command("notebooks")
def notebooks_command(
    out: Annotated[Path, typer.Option(help="Folder to copy them to.")] = Path("notebooks"),
) -> None:
    """Copy the notebooks into a folder, to be changed there and run by papermill or Jupyter."""
    folder = place(out)
    copy_notebooks(folder)
    print(folder)


@notebooks_app.command(
    "lab", context_settings={"allow_extra_args": True, "ignore_unknown_options": True}
)
def lab_command(context: typer.Context) -> None:
    """Open the notebooks in JupyterLab, whose options it takes: mmctr lab --no-browser.

    They are those of notebooks/ below the folder that holds data/ and runs/: copies, made if there
    are none.
    """
    folder = home() / "notebooks"
    if not folder.exists():
        copy_notebooks(folder)
        print(f"Copied the notebooks to {folder}.", file=sys.stderr)
    # In a process of its own, Jupyter would outlive a command that is killed.
    command = [sys.executable, "-m", "jupyterlab", f"--notebook-dir={folder}", *context.args]
    sys.stderr.flush()
    os.execve(sys.executable, command, os.environ | {"MMCTR_HOME": str(home())})


def copy_notebooks(folder: Path) -> None:
    """Copy all notebooks into a folder, made if need be; what is there already stays as it is.

    Raises ConfigError, and copies none, if one of them is there with another content.
    """
    sources = sorted(NOTEBOOKS.glob("[0-9][0-9]_*.ipynb"))
    contents = {folder / path.name: path.read_bytes() for path in sources}
    missing = [path for path in contents if not path.exists()]
    for path in contents.keys() - set(missing):
        if path.read_bytes() != contents[path]:
            raise ConfigError(
                f"{path} is there already with another content: choose another folder with --out."
            )
    for path in missing:
        with atomic_path(path) as temporary:
            temporary.write_bytes(contents[path])
