"""The command line: mmctr data|features|train|predict|report.

Commands parse and print; the work is in the library. Heavy imports are local to a command, so
that `mmctr --help` answers at once.
"""

import sys
from pathlib import Path
from typing import Annotated

import typer

from mmctr.errors import MMCTRError

app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False)
data_app = typer.Typer(no_args_is_help=True, help="Make, import, check and download datasets.")
app.add_typer(data_app, name="data")

Folder = Annotated[Path, typer.Argument(help="Folder with the dataset's parquet files.")]


def main() -> None:
    """Run the command line; an error a user can cause is one sentence and exit status 1."""
    try:
        app()
    except MMCTRError as error:
        print(f"mmctr: {error}", file=sys.stderr)
        sys.exit(1)
