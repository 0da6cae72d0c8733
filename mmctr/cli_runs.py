"""The command line of finished runs.

mmctr runs|compare|predict|recommend|export|track|verify|rerun.
"""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mmctr.cli_data import require_one_of
from mmctr.data.schema import SPLITS
from mmctr.errors import ConfigError, MMCTRError, RunError
from mmctr.files import existing_folder, find, home, place
from mmctr.training.config import configs

if TYPE_CHECKING:
    from mmctr.data.dataset import Dataset
    from mmctr.runs.run import Run

runs_app = typer.Typer()
OwnData = Annotated[
    Path | None, typer.Option("--data", help="Folder of a dataset; the run's own if not given.")
]
ClickRate = Annotated[
    float | None,
    typer.Option(help="Known share of clicks in what is shown, where negatives were drawn."),
]
RunFolder = Annotated[Path, typer.Argument(help="Folder of a finished run.")]


@runs_app.command("runs")
def runs_command(
    data: Annotated[
        Path | None, typer.Option("--data", help="Folder of a dataset: only runs on it.")
    ] = None,
) -> None:
    """List the finished runs below runs/; those below one heading are comparable."""
    folder = None if data is None else existing_folder(find(data))
    from mmctr.data.fingerprint import files_fingerprint
    from mmctr.evaluation.listing import listing, runs_below

    runs, passed_over = runs_below(home() / "runs")
    if folder is not None:
        wanted = files_fingerprint(folder)
        runs = [run for run in runs if run.summary["dataset"]["fingerprint"] == wanted]
    of_data = f" on {folder}" if folder else ""
    if runs:
        print("Runs below one heading are comparable: the same data, the same rows of valid.\n")
    print(
        listing(runs) or f"No finished run{of_data} below {home() / 'runs'}: mmctr train makes one."
    )
    if passed_over:
        print(f"\n{passed_over}")


@runs_app.command("compare")
def compare_command(
    names: Annotated[
        list[str],
        typer.Argument(help="Two or more runs: folders, or names as mmctr runs has them."),
    ],
    data: OwnData = None,
    out: Annotated[
        Path | None, typer.Option(help="Also write the differences to this CSV file.")
    ] = None,
) -> None:
    """Compare runs of the same data: AUC, differences in pairs, and where they disagree most.

    Runs that differ in nothing but their seed are one system, unless there are no others.
    """
    from mmctr.evaluation import compare, listing
    from mmctr.files import atomic_path
    from mmctr.runs.provenance import require_same
    from mmctr.runs.run import find_run

    runs = [*{(run := find_run(name)).address: run for name in names}.values()]
    if len(runs) < 2:
        raise ConfigError(f"Found one run, {names[0]}, expected two or more: name another.")
    listing.require_comparable(runs)
    by = "strategy" if len(compare.systems_of(runs)) > 1 else "run"
    try:
        dataset = run_with_data(runs[0].folder, data)[1]
        require_same(runs[0].summary["dataset"], dataset, runs[0].folder)
        apart = listing.disagreements(compare.disagreements(runs, dataset, by))
    except MMCTRError as error:
        if data is not None:
            raise
        apart = f"The rows on which they disagree most are not shown: {error}"
    table = compare.comparison(runs, by)
    if out is not None:
        with atomic_path(out) as temporary:
            table.to_csv(temporary, index=False)
    differing = compare.differing(runs, by)
    print("\n\n".join([listing.listing(runs), listing.comparison(table, differing), apart]))


@runs_app.command("predict")
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
    """Score a split with a trained model; with labels, print AUC and logloss too.

    The catalog may have grown since the run was trained: items are joined by their own ids.

    Under torchrun each process scores its parts of the rows; killed, the same command goes on.
    """
    require_one_of("split", split, SPLITS)
    configs(click_rate=click_rate)
    require_folders(run, data)
    from mmctr import parallel
    from mmctr.devices import find_device
    from mmctr.runs.grown import moved
    from mmctr.runs.provenance import source_hash
    from mmctr.training import prediction
    from mmctr.training.metrics import auc, logloss, reference_aucs
    from mmctr.training.parts import predict_in_parts
    from mmctr.training.trainer import require_drawn

    with parallel.joined():
        found, dataset = parallel.in_turn(lambda: run_with_data(run, data))
        require_drawn(dataset, click_rate)
        rows = dataset.split(split)
        model, drift = found.adapted(dataset, in_shards=True)
        on = {"run": found.weights_hash(), "data": dataset.fingerprint}
        on |= {"split": split, "code": source_hash()}
        probability = predict_in_parts(model.to(find_device("auto")), rows, out, on)
    if probability is None:
        return  # the first of torchrun's processes tells it
    corrected = found.corrected(probability, click_rate)
    prediction.write_predictions(out, dataset, rows, corrected)
    print(f"{out}: {len(rows):,} rows")
    if corrected is not probability:
        print(f"mean probability {corrected.mean():.4g}, corrected from {probability.mean():.4g}")
    if drift is not None:
        print(drift.in_words(dataset, rows))
        print(moved(found.predictions["probability"].to_numpy(), probability))
    if submission:
        prediction.write_submission(submission, probability)
        print(submission)
    if rows.label is not None:
        print(f"{split} AUC {auc(rows.label, probability):.4f}")
        print_references(reference_aucs(dataset, rows))
        print(f"{split} logloss {logloss(rows.label, probability):.4f}")


@runs_app.command("recommend")
def recommend_command(
    run: RunFolder,
    data: OwnData = None,
    users: Annotated[
        str | None, typer.Option(help="Ids of users, by comma; all users if not given.")
    ] = None,
    candidates: Annotated[
        Path | None,
        typer.Option(help="Items to rank: an id a line, or CSV or Parquet with item_id; else all."),
    ] = None,
    top: Annotated[int, typer.Option(min=1, help="Items for each user.")] = 20,
    out: Annotated[Path, typer.Option(help="CSV or Parquet file to write.")] = Path(
        "recommend.csv"
    ),
) -> None:
    """Rank the items that users have not clicked yet, by their clicks in the dataset so far.

    The catalog may have grown since the run was trained: new items are among them.
    """
    if out.suffix not in (".csv", ".parquet"):
        raise ConfigError(f"Found --out {out}, expected a name that ends in .csv or .parquet.")
    found, dataset = run_with_data(run, data)
    from mmctr.evaluation import recommend

    asked = None if users is None else [name for name in users.split(",") if name]
    items = None if candidates is None else recommend.read_candidates(candidates, dataset.catalog)
    table = recommend.recommend(found, dataset, asked, items, top)
    recommend.write_table(out, table)
    print(f"{out}: {len(table):,} rows, {table['user_id'].nunique():,} users")
    print(f"{int(table['new'].sum()):,} rows are of items that the run does not know.")


@runs_app.command("export")
def export_command(
    run: RunFolder,
    data: OwnData = None,
    onnx: Annotated[bool, typer.Option("--onnx", help="As ONNX, the only form so far.")] = False,
    out: Annotated[
        Path | None, typer.Option(help="Folder to write; below exports if not given.")
    ] = None,
) -> None:
    """Write the scorer of one user's candidates for serving elsewhere, and the items' vectors.

    The catalog may have grown since the run was trained: new items are among them.
    """
    if not onnx:
        raise ConfigError("Found no form to export to, expected --onnx: name it.")
    found, dataset = run_with_data(run, data)
    from mmctr.runs.export import export_onnx

    made = export_onnx(found, dataset, place(out) if out else home() / "exports" / found.name)
    print(f"scorer.onnx, and items.parquet with {made.items:,} vectors of {made.width} numbers")
    if made.difference is None:
        print("Not checked against PyTorch, because onnxruntime is not installed.")
    else:
        print(f"largest difference of a probability from PyTorch {made.difference:.2g}")
    print(made.folder)


@runs_app.command("track")
def track_command(
    names: Annotated[
        list[str], typer.Argument(help="Runs: folders, or names as mmctr runs has them.")
    ],
) -> None:
    """Write curves, parameters and metrics for TensorBoard into runs' folders."""
    from mmctr.runs.run import find_run
    from mmctr.runs.tracking import track

    for run in [find_run(name) for name in names]:
        print(track(run))


@runs_app.command("verify")
def verify_command(run: RunFolder, data: OwnData = None) -> None:
    """Compute a run's metrics and predictions again, and say whether they are as it states.

    Under torchrun each process computes its part of the predictions.
    """
    require_folders(run, data)
    from mmctr import parallel
    from mmctr.runs.verify import verify

    with parallel.joined():
        found, dataset = parallel.in_turn(lambda: run_with_data(run, data))
        differing, remarks = verify(found, dataset)
        is_first = parallel.share()[0] == 0
    if not is_first:
        return
    if differing:
        raise MMCTRError(f"{found.folder} does not verify. {' '.join(differing)}")
    print(
        "\n".join([*remarks, f"{found.folder}: metrics, predictions and weights are as it says."])
    )


@runs_app.command("rerun")
def rerun_command(run: RunFolder, data: OwnData = None) -> None:
    """Train again with a run's parameters and compare; the last line is the new run's folder."""
    found, dataset = run_with_data(run, data)
    from mmctr.runs.verify import rerun

    again, comparison = rerun(found, dataset, home() / "runs")
    print(comparison)
    print(again.folder)


def require_folders(folder: Path, data: Path | None) -> Path:
    """Where a run is that is asked for; an error, before anything is imported, if it cannot be."""
    folder = find(folder)
    if not folder.is_dir():
        raise RunError(
            f"{folder} is not a finished run, there is no such folder: choose one that mmctr train "
            "has written."
        )
    if data:
        existing_folder(find(data))
    return folder


def run_with_data(folder: Path, data: Path | None) -> "tuple[Run, Dataset]":
    """A finished run, and a dataset: the one given or else the run's own, read by its fields."""
    folder = require_folders(folder, data)
    from mmctr.data.dataset import Dataset
    from mmctr.runs.provenance import find_dataset
    from mmctr.runs.run import Run

    run = Run.load(folder)
    place = find(data) if data else find_dataset(run.summary["dataset"], run.folder)
    if not data and not place.is_dir():
        raise RunError(
            f"{place}, on which {run.name} was trained, is not there: name its folder with --data."
        )
    return run, Dataset.load(place, run.fields)


def print_references(auc: dict[str, float]) -> None:
    """Print what stands beside an AUC, a line each."""
    for name, value in auc.items():
        print(f"  beside it: {name} AUC {value:.4f}")
