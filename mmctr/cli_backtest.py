"""The command line of backtests: mmctr backtest, whose options and help mmctr.cli adds to."""

from pathlib import Path
from typing import Annotated

import typer

from mmctr.config import parse_pairs
from mmctr.content import strategies
from mmctr.files import existing_folder, find, home, place
from mmctr.training.config import configs


def backtest_command(
    data: Annotated[Path, typer.Option("--data", help="Folder of a dataset with times.")],
    windows: Annotated[int, typer.Option(min=1, help="Windows of time to test on.")] = 5,
    strategy: Annotated[str, typer.Option(help=f"One of {strategies.choices()}.")] = "v4",
    seed: Annotated[int, typer.Option(min=0, help="Seed of training.")] = 1,
    out: Annotated[
        Path | None, typer.Option(help="Folder of the backtest; below runs if not given.")
    ] = None,
    parameter: Annotated[
        list[str] | None,
        typer.Option(
            "-p",
            metavar="KEY=VALUE",
            help="A parameter of the model or of training, such as heads=2; all are listed below.",
        ),
    ] = None,
) -> None:
    """Train and test on one window of time after another, cold and warm started, and draw it.

    Goes on where it was.
    """
    fixed = {"seed": seed, **parse_pairs(parameter)}
    configs(**fixed)
    strategies.require_known(strategy)
    data = existing_folder(find(data))
    from mmctr.data.dataset import Dataset
    from mmctr.evaluation.backtest import backtest, backtest_folder
    from mmctr.report.make import make_page

    dataset = Dataset.load(data)
    folder = place(out) if out else backtest_folder(home() / "runs", dataset, strategy)
    tested = backtest(dataset, strategy, folder, count=windows, fixed=fixed)
    print(tested.summary.to_string(index=False, float_format="{:.4f}".format, na_rep="-"))
    print(tested.verdict)
    parameters = {"backtest": str(folder)}
    print(make_page("10_backtest", dataset, parameters, home() / "reports" / folder.name))
