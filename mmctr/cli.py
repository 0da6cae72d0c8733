"""The command line: mmctr data|features|train|predict|search|report.

Commands parse and print; the work is in the library. Heavy imports are local to a command, so
that `mmctr --help` answers at once.
"""

import sys
from pathlib import Path
from typing import Annotated

import typer

from mmctr.config import parse_pairs
from mmctr.errors import ConfigError, MMCTRError
from mmctr.files import DEMO, find, home

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="A research workbook for multimodal click-through-rate prediction.",
)
data_app = typer.Typer(no_args_is_help=True, help="Make, import, check and download datasets.")
app.add_typer(data_app, name="data")
features_app = typer.Typer(no_args_is_help=True, help="Text and image features of a dataset.")
app.add_typer(features_app, name="features")

Data = Annotated[Path, typer.Option("--data", help="Folder with the dataset's parquet files.")]
Parameters = Annotated[
    list[str] | None,
    typer.Option("-p", metavar="KEY=VALUE", help="A parameter of the model or of training."),
]


@data_app.command("demo")
def data_demo(
    out: Annotated[
        Path | None, typer.Option(help="Folder to make; data/demo if not given.")
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the simulation.")] = 0,
) -> None:
    """Simulate the demo dataset: 3,000 items with covers, 8,000 users, 100,000 impressions."""
    from mmctr.data.demo import write_demo

    print(write_demo(out or home() / DEMO, seed=seed))


@data_app.command("check")
def data_check(folder: Annotated[Path, typer.Argument(help="Folder of a dataset.")]) -> None:
    """Validate every file of a dataset and print what is in it, or what is wrong with it."""
    from mmctr.data.audit import describe
    from mmctr.data.dataset import check

    dataset, errors = check(find(folder))
    if dataset is None:
        raise MMCTRError("\n".join(errors))
    print(describe(dataset))


@data_app.command("import")
def data_import(
    interactions: Annotated[Path, typer.Option(help="Click log, CSV or Parquet.")],
    items: Annotated[Path, typer.Option(help="Items with id, title and tags, CSV or Parquet.")],
    out: Annotated[Path, typer.Option(help="Folder to make.")],
    covers: Annotated[Path | None, typer.Option(help="Pictures named by item id.")] = None,
    features: Annotated[
        Path | None, typer.Option(help="Ready-made embeddings by item id, Parquet.")
    ] = None,
    split: Annotated[str, typer.Option(help="last-two (per user) or date.")] = "last-two",
    negatives: Annotated[int, typer.Option(help="Items not clicked, for each click.")] = 3,
    min_rating: Annotated[float | None, typer.Option(help="Lowest rating of a click.")] = None,
    parameter: Parameters = None,
) -> None:
    """Make a dataset of your own click log; -p sets columns (user_column=...) and the rest."""
    from mmctr.data.importing.steps import Recipe, import_dataset

    options = {"split": split, "negatives": negatives, "min_rating": min_rating}
    recipe = Recipe.of(**options | parse_pairs(parameter))
    facts = import_dataset(interactions, items, covers, out, recipe, features)
    print("\n".join(f"{name:<26} {count:>12,}" for name, count in facts["counts"].items()))
    print(out)


@data_app.command("download")
def data_download(
    name: Annotated[str, typer.Argument(help="The dataset: microlens-1m.")],
    out: Annotated[
        Path | None, typer.Option(help="Folder to make; data/microlens-1m if not given.")
    ] = None,
    accept_terms: Annotated[
        bool, typer.Option("--accept-terms", help="Accept the terms that are printed first.")
    ] = False,
    base_url: Annotated[
        str | None, typer.Option(help="Another public folder that has the files.")
    ] = None,
) -> None:
    """Download a public dataset; a run that broke off is resumed by running it again."""
    from mmctr.data.download import BASE_URL, download

    if name != "microlens-1m":
        raise ConfigError(f"Found dataset {name!r}, expected microlens-1m.")
    folder = out or home() / "data" / name
    print(download(folder, base_url=base_url or BASE_URL, accept_terms=accept_terms))


@features_app.command("extract")
def features_extract(
    folder: Annotated[Path, typer.Argument(help="Folder of a dataset.")],
    text_model: Annotated[
        str, typer.Option(help="Encoder of transformers: hub name or folder; none leaves it out.")
    ] = "google-bert/bert-base-uncased",
    image_model: Annotated[
        str, typer.Option(help="Model of open_clip: name or folder; none leaves it out.")
    ] = "RN50",
    image_pretrained: Annotated[
        str, typer.Option(help="Weights of open_clip: tag or checkpoint file.")
    ] = "openai",
    pooling: Annotated[str, typer.Option(help="Text vector: cls or mean of the tokens.")] = "cls",
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or mps.")] = "auto",
    batch_size: Annotated[int, typer.Option(min=1, help="Items encoded at once.")] = 64,
) -> None:
    """Run encoders over titles and covers; a killed run goes on where it was."""
    from mmctr.content.extract import extract
    from mmctr.devices import find_device

    summary = extract(
        find(folder),
        text_model=None if text_model == "none" else text_model,
        image_model=None if image_model == "none" else image_model,
        image_pretrained=image_pretrained,
        pooling=pooling,
        device=find_device(device),
        batch_size=batch_size,
    )
    print(summary)


@app.command("train")
def train_command(
    context: typer.Context,
    data: Data = DEMO,
    strategy: Annotated[str, typer.Option(help="v1, v2, v3, v4 or provided:COLUMN.")] = "v4",
    seed: Annotated[int, typer.Option(min=0, help="Seed of training.")] = 1,
    parameter: Parameters = None,
    resume: Annotated[
        Path | None, typer.Option(help="Go on with this unfinished run, as it was begun.")
    ] = None,
) -> None:
    """Train a model as 03_train does; the last line printed is the run's folder."""
    from mmctr.data.dataset import Dataset
    from mmctr.runs.run import UnfinishedRun
    from mmctr.training import trainer

    def given(name: str) -> bool:
        return context.get_parameter_source(name).name != "DEFAULT"

    if resume is None:
        model, training = trainer.configs(**{"seed": seed, **parse_pairs(parameter)})
        dataset = Dataset.load(_find_data(data))
        run = trainer.train(dataset, strategy, model, training, home() / "runs")
    else:
        if any(map(given, ("strategy", "seed", "parameter"))):
            raise ConfigError(
                f"Found --resume {resume} with parameters, expected none, because a run goes on "
                "with those it began with: leave out --strategy, --seed and -p."
            )
        begun = UnfinishedRun.load(find(resume))
        folder = data if given("data") else Path(begun.config["dataset"]["folder"])
        run = trainer.resume(begun.folder, Dataset.load(find(folder)))
    metrics = run.summary["metrics"]
    low, high = metrics["auc_interval"]
    print(f"valid AUC {metrics['auc']:.4f} (95% interval {low:.4f} to {high:.4f})")
    _print_references(run.summary["reference_auc"])
    print(f"valid logloss {metrics['logloss']:.4f}")
    print(run.folder)


@app.command("predict")
def predict_command(
    run: Annotated[Path, typer.Argument(help="Folder of a finished run.")],
    data: Data = DEMO,
    split: Annotated[str, typer.Option(help="train, valid or test.")] = "test",
    out: Annotated[Path, typer.Option(help="CSV file to write.")] = Path("prediction.csv"),
    submission: Annotated[
        Path | None, typer.Option(help="Also write the challenge's zip (ID, Task2) here.")
    ] = None,
) -> None:
    """Score a split with a trained model; with labels, print AUC and logloss too."""
    from mmctr.data.dataset import Dataset
    from mmctr.devices import find_device
    from mmctr.runs.run import Run
    from mmctr.training import prediction
    from mmctr.training.metrics import auc, logloss
    from mmctr.training.trainer import reference_aucs

    found, dataset = Run.load(find(run)), Dataset.load(_find_data(data))
    found.require_fit(dataset)
    rows = dataset.split(split)
    probability = prediction.predict(found.model().to(find_device("auto")), rows)
    prediction.write_predictions(out, rows, probability)
    print(f"{out}: {len(rows):,} rows")
    if submission:
        prediction.write_submission(submission, probability)
        print(submission)
    if rows.label is not None:
        print(f"{split} AUC {auc(rows.label, probability):.4f}")
        _print_references(reference_aucs(dataset, rows))
        print(f"{split} logloss {logloss(rows.label, probability):.4f}")


@app.command("search")
def search_command(
    data: Data = DEMO,
    strategy: Annotated[str, typer.Option(help="v1, v2, v3, v4 or provided:COLUMN.")] = "v4",
    trials: Annotated[int, typer.Option(min=1, help="Trials of the whole study.")] = 20,
    seed: Annotated[int, typer.Option(min=0, help="Seed of training and of the search.")] = 1,
    out: Annotated[
        Path | None, typer.Option(help="Folder of the study; below runs if not given.")
    ] = None,
    parameter: Parameters = None,
) -> None:
    """Search for parameters with Optuna, on valid alone; -p fixes one. Goes on where it was."""
    from mmctr.data.dataset import Dataset
    from mmctr.evaluation.search import search, study_folder
    from mmctr.report.make import make_page

    dataset, fixed = Dataset.load(_find_data(data)), {"seed": seed, **parse_pairs(parameter)}
    folder = out.resolve() if out else study_folder(home() / "runs", dataset, strategy)
    study = search(dataset, strategy, folder, trials=trials, fixed=fixed)
    print(f"best valid AUC {study.best_auc:.4f} of {study.done} trials")
    defaults = {} if study.default_auc is None else {"defaults": study.default_auc}
    _print_references(defaults | study.facts["reference_auc"])
    print("The best of many trials is flattered on valid: train it with several seeds.")
    print(study.pairs)
    parameters = {"study": str(folder)}
    print(make_page("07_search", dataset, parameters, home() / "reports" / folder.name))


@app.command("verify")
def verify_command(
    run: Annotated[Path, typer.Argument(help="Folder of a finished run.")],
    data: Annotated[
        Path | None, typer.Option(help="Folder of its dataset; the one it names if not given.")
    ] = None,
) -> None:
    """Compute a run's metrics and predictions again, and say whether they are as it states."""
    from mmctr.data.dataset import Dataset
    from mmctr.runs.run import Run
    from mmctr.runs.verify import verify

    found = Run.load(find(run))
    dataset = Dataset.load(find(data or Path(found.summary["dataset"]["folder"])))
    differing, remarks = verify(found, dataset)
    if differing:
        raise MMCTRError(f"{found.folder} does not verify. {' '.join(differing)}")
    print(
        "\n".join([*remarks, f"{found.folder}: metrics, predictions and weights are as it says."])
    )


@app.command("rerun")
def rerun_command(
    run: Annotated[Path, typer.Argument(help="Folder of a finished run.")],
    data: Annotated[
        Path | None, typer.Option(help="Folder of its dataset; the one it names if not given.")
    ] = None,
) -> None:
    """Train again with a run's parameters and compare; the last line is the new run's folder."""
    from mmctr.data.dataset import Dataset
    from mmctr.runs.run import Run
    from mmctr.runs.verify import rerun

    found = Run.load(find(run))
    dataset = Dataset.load(find(data or Path(found.summary["dataset"]["folder"])))
    again, comparison = rerun(found, dataset, home() / "runs")
    print(comparison)
    print(again.folder)


@app.command("report")
def report_command(
    data: Data = DEMO,
    strategies: Annotated[str, typer.Option(help="Strategies, by comma.")] = "v1,v2,v3,v4,ids",
    seeds: Annotated[str, typer.Option(help="Seeds of training, by comma.")] = "1,2",
    out: Annotated[
        Path | None, typer.Option(help="Folder to write to; reports if not given.")
    ] = None,
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
    from mmctr.report.make import make_report, write_single_file

    try:
        seed_numbers = [int(seed) for seed in seeds.split(",")]
    except ValueError:
        raise ConfigError(f"Seeds are {seeds!r}, expected whole numbers such as 1,2.") from None
    report = make_report(
        _find_data(data),
        [name.strip() for name in strategies.split(",")],
        seed_numbers,
        out or home() / "reports",
        parameters=parse_pairs(parameter),
        ablation=ablation,
    )
    if single_file:
        print(write_single_file(report))
    print(report.index)
    if report.failed:
        raise MMCTRError(f"{len(report.failed)} pages failed: {report.index} says where and why.")


def main() -> None:
    """Run the command line; an error a user can cause is one sentence and exit status 1."""
    try:
        app()
    except MMCTRError as error:
        print(f"mmctr: {error}", file=sys.stderr)
        sys.exit(1)
    except OSError as error:
        if error.filename is None:
            raise
        reason = f"cannot be used ({error.strerror}): check its name and your rights to it."
        print(f"mmctr: {error.filename} {reason}", file=sys.stderr)
        sys.exit(1)


def _find_data(data: Path) -> Path:
    from mmctr.data.demo import find_data

    return find_data(data, say=lambda text: print(text, file=sys.stderr))


def _print_references(auc: dict[str, float]) -> None:
    for name, value in auc.items():
        print(f"  beside it: {name} AUC {value:.4f}")
