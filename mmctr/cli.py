"""The command line: mmctr data|features|train|runs|compare|search|report|lab, and more.

Commands check what can be checked at once, parse and print; the work is in the library. Heavy
imports are local to a command and follow its checks, so that `mmctr --help` and a wrong word are
answered at once.
"""

import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer

import mmctr
from mmctr.cli_backtest import backtest_command
from mmctr.cli_data import content_app, data_app, features_app
from mmctr.cli_notebooks import notebooks_app
from mmctr.cli_runs import ClickRate, print_references, run_with_data, runs_app
from mmctr.config import in_words, parse_pairs
from mmctr.content import strategies
from mmctr.errors import ConfigError, MMCTRError
from mmctr.files import DEMO, existing_folder, find, home, place
from mmctr.model.config import DINConfig
from mmctr.model.presets import PRESETS
from mmctr.training.config import TrainConfig, configs

OF_TRAINING = ("strategy", "seed", "click_rate", "exclude", "parameter")
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
app.add_typer(runs_app)
app.add_typer(notebooks_app)
app.add_typer(data_app, name="data")
app.add_typer(features_app, name="features")
app.add_typer(content_app, name="content")

Data = Annotated[Path, typer.Option("--data", help="Folder with the dataset's parquet files.")]
Strategy = Annotated[str, typer.Option(help=f"One of {strategies.choices()}.")]
Parameters = Annotated[
    list[str] | None,
    typer.Option(
        "-p",
        metavar="KEY=VALUE",
        help="A parameter of the model or of training, such as heads=2; all are listed below.",
    ),
]
Exclude = Annotated[
    str | None,
    typer.Option(help="Kinds of errors.parquet to leave out, by comma, or all: mmctr data clean."),
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
    exclude: Exclude = None,
    parameter: Parameters = None,
    resume: Annotated[
        Path | None, typer.Option(help="Go on with this unfinished run, as it was begun.")
    ] = None,
    track: Annotated[
        bool, typer.Option("--track", help="Also write it for TensorBoard, as mmctr track does.")
    ] = False,
    origin: Annotated[
        Path | None,
        typer.Option("--from", help="Start from this run's weights, on a catalog that has grown."),
    ] = None,
) -> None:
    """Train a model as 03_train does; the last line printed is the run's folder.

    With --from it starts with a run's weights, strategy and parameters, of which -p may change
    those of training; data are the run's own if not given.

    Under torchrun (torchrun --nproc-per-node 2 -m mmctr train ...) each process computes its part
    of every batch, and the first one writes the run; --resume takes as many as it was begun with.
    """

    def given(name: str) -> bool:
        return context.get_parameter_source(name).name != "DEFAULT"

    chosen = {"seed": seed, "click_rate": click_rate}
    model, training = configs(**chosen | parse_pairs(parameter))
    strategies.require_known(strategy)
    if resume is not None and any(map(given, OF_TRAINING)):
        raise ConfigError(
            f"Found --resume {resume} with parameters, expected none, because a run goes on with "
            "those it began with: leave out --strategy, --seed, --click-rate, --exclude and -p."
        )
    changes = {name: value for name, value in chosen.items() if given(name)}
    changes |= parse_pairs(parameter)
    if origin is not None:
        _require_changes_of_training(changes, origin, given("strategy"), resume)
        folder = data if given("data") else None
    else:
        folder = _existing_data(data) if resume is None or given("data") else None
    from mmctr import parallel
    from mmctr.data.dataset import Dataset
    from mmctr.data.erroneous import excluding
    from mmctr.runs import tracking, train
    from mmctr.runs.provenance import find_dataset
    from mmctr.runs.unfinished import UnfinishedRun

    if track:
        tracking.import_tensorboard()  # or else a training would end in the error
    with parallel.joined():
        if origin is not None:
            start, dataset = parallel.in_turn(lambda: run_with_data(origin, folder))
            _, training = configs(**start.config["training"] | changes)
            drift = start.adapted(dataset)[1] if parallel.share()[0] == 0 else None
            if drift is not None:
                print(drift.in_words(dataset, dataset.train))
            run = train.train_from(start, excluding(dataset, exclude), training, home() / "runs")
        elif resume is None:
            dataset = parallel.in_turn(lambda: Dataset.load(_made(folder)))
            run = train.train(
                excluding(dataset, exclude), strategy, model, training, home() / "runs"
            )
        else:
            begun = parallel.of_first(lambda: UnfinishedRun.load(find(resume)))
            folder = folder or find_dataset(begun.config["dataset"], begun.folder)
            dataset = parallel.in_turn(lambda: Dataset.load(folder, begun.fields))
            run = train.resume(begun.folder, dataset)
    if run is None:
        return  # the first of torchrun's processes tells it
    metrics = run.summary["metrics"]
    low, high = metrics["auc_interval"]
    print(f"valid AUC {metrics['auc']:.4f} (95% interval {low:.4f} to {high:.4f})")
    print_references(run.summary["reference_auc"])
    print(f"valid logloss {metrics['logloss']:.4f}")
    if run.first_look:
        print(f"learned from {run.first_look}")
    if run.exclusion is not None:
        print(f"left out as erroneous: {run.exclusion.in_words()}")
    if track:
        tracking.track(run)
    print(run.folder)


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
    print_references(default | study.facts["reference_auc"])
    print("The best of many trials is flattered on valid: train it with several seeds.")
    print(study.pairs)
    parameters = {"study": str(folder)}
    print(make_page("07_search", dataset, parameters, home() / "reports" / folder.name))


app.command("backtest", epilog=LISTED)(backtest_command)


@app.command("report", epilog=LISTED)
def report_command(
    data: Data = DEMO,
    strategy_names: Annotated[
        str, typer.Option("--strategies", help=f"By comma, of {strategies.choices()}.")
    ] = "v1,v2,v3,v4,v5,ids",
    seeds: Annotated[str, typer.Option(help="Seeds of training, by comma.")] = "1,2",
    out: Annotated[Path | None, typer.Option(help="Folder to write to; else reports.")] = None,
    single_file: Annotated[
        bool, typer.Option("--single-file", help="Also write all pages as one file, for e-mail.")
    ] = False,
    ablation: Annotated[
        bool, typer.Option("--ablation", help="Also change each part of the model at a time.")
    ] = False,
    challenge: Annotated[
        bool, typer.Option("--challenge", help="Also train the challenge's systems, side by side.")
    ] = False,
    exclude: Exclude = None,
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
    from mmctr.evaluation.verdict import Verdict, verdict
    from mmctr.report.make import make_report, write_single_file

    made = _made(data)
    chosen = {"parameters": parameters, "ablation": ablation, "challenge": challenge}
    if challenge:
        print(_estimate(made, parameters, len(seed_numbers)), file=sys.stderr)
    with _ended_as_by_ctrl_c():
        report = make_report(made, names, seed_numbers, out, exclude=exclude, **chosen)
    if single_file:
        print(write_single_file(report))
    if isinstance(report.answer, dict):
        print(Verdict(**report.answer))
    elif runs := report.load_runs():
        print(verdict(runs))
    print(report.index)
    if report.failed:
        raise MMCTRError(
            f"{len(report.failed)} pages failed: {report.index} says where and why, and the same "
            "command tries them again."
        )


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


@contextmanager
def _ended_as_by_ctrl_c() -> Iterator[None]:
    """Let SIGTERM, which schedulers send, end a block as Ctrl-C does."""
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _existing_data(data: Path) -> Path:
    """The folder of a dataset; the demo alone may still have to be made."""
    return find(data) if data == DEMO else existing_folder(find(data))


def _made(folder: Path) -> Path:
    """The folder of a dataset, where the demo is simulated if it is not there yet."""
    if not folder.exists():
        from mmctr.data.demo import find_data

        find_data(DEMO, say=lambda text: print(text, file=sys.stderr))
    return folder


def _estimate(data: Path, parameters: dict[str, Any], seeds: int) -> str:
    """How long the challenge's systems take to train, in a sentence."""
    from mmctr.data.dataset import Dataset
    from mmctr.evaluation import ablation, challenge

    dataset = Dataset.load(data)
    shared = {name: parameters.get(name) for name in ablation.SHARED}
    table = challenge.estimate(dataset, challenge.default_strategy(dataset), **shared)
    return challenge.estimate_in_words(table, seeds)


def _require_changes_of_training(
    changes: dict[str, Any], origin: Path, strategy_given: bool, resume: Path | None
) -> None:
    """Raise ConfigError unless a training that starts from a run changes what it may."""
    if resume is not None:
        raise ConfigError(
            f"Found --from {origin} with --resume {resume}, expected one of them: a run in work "
            "knows what it started from, leave out --from."
        )
    wrong = [f"-p {name}" for name in changes if name not in TrainConfig.model_fields]
    wrong += ["--strategy"] if strategy_given else []
    if wrong:
        raise ConfigError(
            f"Found {wrong[0]} with --from {origin}, expected parameters of training alone, "
            "because strategy and model are those of that run: leave it out, or train without "
            "--from."
        )
