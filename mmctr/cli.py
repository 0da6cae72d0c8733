"""The command line: mmctr data|features|train|predict|search|backtest|verify|rerun|report.

Commands check what can be checked at once, parse and print; the work is in the library. Heavy
imports are local to a command and follow its checks, so that `mmctr --help` and a wrong word are
answered at once.
"""

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

import mmctr
from mmctr.cli_backtest import backtest_command
from mmctr.cli_data import data_app, features_app, require_one_of
from mmctr.config import in_words, parse_pairs
from mmctr.content import strategies
from mmctr.data.schema import SPLITS
from mmctr.errors import ConfigError, MMCTRError, RunError
from mmctr.files import DEMO, existing_folder, find, home, place
from mmctr.model.config import DINConfig
from mmctr.model.presets import PRESETS
from mmctr.training.config import TrainConfig, configs

if TYPE_CHECKING:
    from mmctr.data.dataset import Dataset
    from mmctr.runs.run import Run

LISTED = (
    f"Parameters of -p and their defaults: preset=default ({', '.join(PRESETS)}); "
    f"{in_words(DINConfig, TrainConfig)}. What they mean: mmctr/model/config.py and "
    "mmctr/training/config.py."
)
app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="A research workbook for multimodal click-through-rate prediction.",
)
app.add_typer(data_app, name="data")
app.add_typer(features_app, name="features")

Data = Annotated[Path, typer.Option("--data", help="Folder with the dataset's parquet files.")]
OwnData = Annotated[
    Path | None, typer.Option("--data", help="Folder of a dataset; the run's own if not given.")
]
Strategy = Annotated[str, typer.Option(help=f"One of {strategies.choices()}.")]
ClickRate = Annotated[
    float | None,
    typer.Option(help="Known share of clicks in what is shown, where negatives were drawn."),
]
RunFolder = Annotated[Path, typer.Argument(help="Folder of a finished run.")]
Parameters = Annotated[
    list[str] | None,
    typer.Option(
        "-p",
        metavar="KEY=VALUE",
        help="A parameter of the model or of training, such as heads=2; all are listed below.",
    ),
]


def _show_version(wanted: bool) -> None:
    if wanted:
        print(f"mmctr {mmctr.__version__} from {Path(mmctr.__file__).parent}")
        raise typer.Exit


@app.callback()
def options(
    version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_show_version, is_eager=True, help="Print version and place."
        ),
    ] = False,
) -> None:
    """Options of the program itself."""


@app.command("train", epilog=LISTED)
def train_command(
    context: typer.Context,
    data: Data = DEMO,
    strategy: Strategy = "v4",
    seed: Annotated[int, typer.Option(min=0, help="Seed of training.")] = 1,
    click_rate: ClickRate = None,
    parameter: Parameters = None,
    resume: Annotated[
        Path | None, typer.Option(help="Go on with this unfinished run, as it was begun.")
    ] = None,
) -> None:
    """Train a model as 03_train does; the last line printed is the run's folder.

    Under torchrun (torchrun --nproc-per-node 2 -m mmctr train ...) each process computes its part
    of every batch, and the first one writes the run.
    """

    def given(name: str) -> bool:
        return context.get_parameter_source(name).name != "DEFAULT"

    chosen = {"seed": seed, "click_rate": click_rate}
    model, training = configs(**chosen | parse_pairs(parameter))
    strategies.require_known(strategy)
    if resume is not None and any(map(given, ("strategy", "seed", "click_rate", "parameter"))):
        raise ConfigError(
            f"Found --resume {resume} with parameters, expected none, because a run goes on "
            "with those it began with: leave out --strategy, --seed, --click-rate and -p."
        )
    folder = _existing_data(data) if resume is None or given("data") else None
    from mmctr import parallel
    from mmctr.data.dataset import Dataset
    from mmctr.runs import train
    from mmctr.runs.unfinished import UnfinishedRun

    with parallel.joined():
        if resume is None:
            dataset = parallel.in_turn(lambda: Dataset.load(_made(folder)))
            run = train.train(dataset, strategy, model, training, home() / "runs")
        else:
            begun = UnfinishedRun.load(find(resume))
            folder = folder or find(begun.config["dataset"]["folder"])
            run = train.resume(begun.folder, Dataset.load(folder))
    if run is None:
        return  # the first of torchrun's processes tells it
    metrics = run.summary["metrics"]
    low, high = metrics["auc_interval"]
    print(f"valid AUC {metrics['auc']:.4f} (95% interval {low:.4f} to {high:.4f})")
    _print_references(run.summary["reference_auc"])
    print(f"valid logloss {metrics['logloss']:.4f}")
    print(run.folder)


@app.command("predict")
def predict_command(
    run: RunFolder,
    data: OwnData = None,
    split: Annotated[str, typer.Option(help="train, valid or test.")] = "test",
    out: Annotated[Path, typer.Option(help="CSV file to write.")] = Path("prediction.csv"),
    submission: Annotated[
        Path | None, typer.Option(help="Also write the challenge's zip (ID, Task2) here.")
    ] = None,
    click_rate: ClickRate = None,
) -> None:
    """Score a split with a trained model; with labels, print AUC and logloss too."""
    require_one_of("split", split, SPLITS)
    configs(click_rate=click_rate)
    found, dataset = _run_with_data(run, data)
    from mmctr.devices import find_device
    from mmctr.training import prediction
    from mmctr.training.metrics import auc, logloss, reference_aucs
    from mmctr.training.trainer import require_drawn

    found.require_fit(dataset)
    rows = dataset.split(split)
    probability = prediction.predict(found.model().to(find_device("auto")), rows)
    require_drawn(dataset, click_rate)
    corrected = found.corrected(probability, click_rate)
    prediction.write_predictions(out, dataset, rows, corrected)
    print(f"{out}: {len(rows):,} rows")
    if corrected is not probability:
        print(f"mean probability {corrected.mean():.4g}, corrected from {probability.mean():.4g}")
    if submission:
        prediction.write_submission(submission, probability)
        print(submission)
    if rows.label is not None:
        print(f"{split} AUC {auc(rows.label, probability):.4f}")
        _print_references(reference_aucs(dataset, rows))
        print(f"{split} logloss {logloss(rows.label, probability):.4f}")


@app.command("search", epilog=LISTED)
def search_command(
    data: Data = DEMO,
    strategy: Strategy = "v4",
    trials: Annotated[int, typer.Option(min=1, help="Trials of the whole study.")] = 20,
    seed: Annotated[int, typer.Option(min=0, help="Seed of training and of the search.")] = 1,
    out: Annotated[
        Path | None, typer.Option(help="Folder of the study; below runs if not given.")
    ] = None,
    parameter: Parameters = None,
) -> None:
    """Search for parameters with Optuna, on valid alone; -p fixes one. Goes on where it was."""
    fixed = {"seed": seed, **parse_pairs(parameter)}
    configs(**fixed)
    strategies.require_known(strategy)
    data = _existing_data(data)
    from mmctr.data.dataset import Dataset
    from mmctr.evaluation.search import search, study_folder
    from mmctr.report.make import make_page

    dataset = Dataset.load(_made(data))
    folder = place(out) if out else study_folder(home() / "runs", dataset, strategy)
    study = search(dataset, strategy, folder, trials=trials, fixed=fixed)
    print(f"best valid AUC {study.best_auc:.4f} of {study.done} trials")
    default = {} if study.default_auc is None else {"defaults": study.default_auc}
    _print_references(default | study.facts["reference_auc"])
    print("The best of many trials is flattered on valid: train it with several seeds.")
    print(study.pairs)
    parameters = {"study": str(folder)}
    print(make_page("07_search", dataset, parameters, home() / "reports" / folder.name))


app.command("backtest", epilog=LISTED)(backtest_command)


@app.command("verify")
def verify_command(run: RunFolder, data: OwnData = None) -> None:
    """Compute a run's metrics and predictions again, and say whether they are as it states."""
    found, dataset = _run_with_data(run, data)
    from mmctr.runs.verify import verify

    differing, remarks = verify(found, dataset)
    if differing:
        raise MMCTRError(f"{found.folder} does not verify. {' '.join(differing)}")
    print(
        "\n".join([*remarks, f"{found.folder}: metrics, predictions and weights are as it says."])
    )


@app.command("rerun")
def rerun_command(run: RunFolder, data: OwnData = None) -> None:
    """Train again with a run's parameters and compare; the last line is the new run's folder."""
    found, dataset = _run_with_data(run, data)
    from mmctr.runs.verify import rerun

    again, comparison = rerun(found, dataset, home() / "runs")
    print(comparison)
    print(again.folder)


@app.command("report", epilog=LISTED)
def report_command(
    data: Data = DEMO,
    strategy_names: Annotated[
        str, typer.Option("--strategies", help=f"By comma, of {strategies.choices()}.")
    ] = "v1,v2,v3,v4,ids",
    seeds: Annotated[str, typer.Option(help="Seeds of training, by comma.")] = "1,2",
    out: Annotated[Path | None, typer.Option(help="Folder to write to; else reports.")] = None,
    single_file: Annotated[
        bool, typer.Option("--single-file", help="Also write all pages as one file, for e-mail.")
    ] = False,
    ablation: Annotated[
        bool, typer.Option("--ablation", help="Also change each part of the model at a time.")
    ] = False,
    parameter: Parameters = None,
) -> None:
    """Run all notebooks on a dataset and write them as HTML pages with an index.

    Notebooks that ran before on the same inputs are reused; a killed report goes on.
    """
    try:
        seed_numbers = [int(seed) for seed in seeds.split(",")]
    except ValueError:
        raise ConfigError(f"Seeds are {seeds!r}, expected whole numbers such as 1,2.") from None
    parameters = parse_pairs(parameter)
    for seed in seed_numbers:
        configs(**parameters | {"seed": seed})
    names = [name.strip() for name in strategy_names.split(",")]
    for name in names:
        strategies.require_known(name)
    data, out = _existing_data(data), place(out) if out else home() / "reports"
    from mmctr.report.make import make_report, write_single_file

    report = make_report(
        _made(data), names, seed_numbers, out, parameters=parameters, ablation=ablation
    )
    if single_file:
        print(write_single_file(report))
    print(report.index)
    if report.failed:
        raise MMCTRError(f"{len(report.failed)} pages failed: {report.index} says where and why.")


def main() -> None:
    """Run the command line; an error a user can cause is one sentence and exit status 1."""
    status: Any = 1
    try:
        app(prog_name="mmctr")
    except SystemExit as end:
        status = end.code
    except MMCTRError as error:
        print(f"mmctr: {error}", file=sys.stderr)
    except OSError as error:
        if error.filename is None:
            raise
        reason = f"cannot be used ({error.strerror}): check its name and your rights to it."
        print(f"mmctr: {error.filename} {reason}", file=sys.stderr)
    if "WORLD_SIZE" in os.environ:
        from mmctr.parallel import leave

        leave(status or 0)
    sys.exit(status)


def _existing_data(data: Path) -> Path:
    """The folder of a dataset; the demo alone may still have to be made."""
    return find(data) if data == DEMO else existing_folder(find(data))


def _made(folder: Path) -> Path:
    """The folder of a dataset, where the demo is simulated if it is not there yet."""
    if not folder.exists():
        from mmctr.data.demo import find_data

        find_data(DEMO, say=lambda text: print(text, file=sys.stderr))
    return folder


def _run_with_data(folder: Path, data: Path | None) -> "tuple[Run, Dataset]":
    """A finished run, and a dataset: the one given or else the run's own."""
    folder = find(folder)
    if not folder.is_dir():
        raise RunError(
            f"{folder} is not a finished run, there is no such folder: choose one that mmctr train "
            "has written."
        )
    if data:
        existing_folder(find(data))
    from mmctr.data.dataset import Dataset
    from mmctr.runs.run import Run

    run = Run.load(folder)
    own = run.summary["dataset"]["folder"]
    if not data and not find(own).is_dir():
        raise RunError(
            f"{own}, on which {run.name} was trained, is not there: name its folder with --data."
        )
    return run, Dataset.load(find(data or own))


def _print_references(auc: dict[str, float]) -> None:
    for name, value in auc.items():
        print(f"  beside it: {name} AUC {value:.4f}")
