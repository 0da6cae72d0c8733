"""The command line of data: mmctr data, mmctr features extract and mmctr content fit."""

from pathlib import Path
from typing import Annotated, get_args

import typer

from mmctr.config import in_words, parse_pairs
from mmctr.content import defaults
from mmctr.content.strategies import STRATEGIES, require_known
from mmctr.data.importing.recipe import Recipe
from mmctr.errors import ConfigError, MMCTRError
from mmctr.files import DEMO, existing_folder, find, home, place
from mmctr.training.config import TrainConfig

IMPORT_LISTED = (
    f"Parameters of -p and their defaults: {in_words(Recipe)}. What they mean: "
    "mmctr/data/importing/recipe.py."
)

TABLE = "CSV, JSON Lines or Parquet; a file (or several), a 'pattern' or a folder of parts"
data_app = typer.Typer(no_args_is_help=True, help="Make, import, check and clean datasets.")
content_app = typer.Typer(no_args_is_help=True, help="Item embeddings of a dataset.")
features_app = typer.Typer(no_args_is_help=True, help="Text and image features of a dataset.")


@data_app.command("demo")
def data_demo(
    out: Annotated[Path, typer.Option(help="Folder to make.")] = DEMO,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the simulation.")] = 0,
) -> None:
    """Simulate the demo dataset: 3,000 items with covers, 8,000 users, 100,000 impressions."""
    from mmctr.data.demo import write_demo

    print(write_demo(home() / out if out == DEMO else place(out), seed=seed))


@data_app.command("check")
def data_check(folder: Annotated[Path, typer.Argument(help="Folder of a dataset.")]) -> None:
    """Validate every file of a dataset and print what is in it, or what is wrong with it."""
    folder = existing_folder(find(folder))
    from mmctr.data.audit import describe
    from mmctr.data.dataset import check

    dataset, errors = check(folder)
    if dataset is None:
        raise MMCTRError("\n".join(errors))
    print(describe(dataset))


@data_app.command("clean")
def data_clean(folder: Annotated[Path, typer.Argument(help="Folder of a dataset.")]) -> None:
    """Find erroneous titles, covers and users, and write them into errors.parquet to decide on.

    Nothing else is changed; train, 03_train and report leave out what --exclude names. What a
    person decided in errors.parquet is kept when this runs again.
    """
    folder = existing_folder(find(folder))
    from mmctr.content.errors import clean, in_words

    errors, table = clean(folder)
    print(in_words(table))
    kept = int((~errors["excluded"]).sum())
    print(f"{folder / 'errors.parquet'}: {len(errors):,} rows, {kept:,} of them kept by a person")


@data_app.command("import", epilog=IMPORT_LISTED)
def data_import(
    context: typer.Context,
    interactions: Annotated[list[Path], typer.Option(help=f"Click log: {TABLE}.")],
    items: Annotated[list[Path], typer.Option(help=f"Items with id, title and tags: {TABLE}.")],
    out: Annotated[Path, typer.Option(help="Folder to make.")],
    covers: Annotated[Path | None, typer.Option(help="Pictures by item id; or a table.")] = None,
    features: Annotated[
        list[Path] | None, typer.Option(help=f"Ready-made embeddings by item id: {TABLE}; or .npy.")
    ] = None,
    users: Annotated[list[Path] | None, typer.Option(help=f"Users with fields: {TABLE}.")] = None,
    label_column: Annotated[
        str | None, typer.Option("--label", help="Column that says which rows are clicks.")
    ] = None,
    where: Annotated[str | None, typer.Option(help="Rows to keep: \"event = 'view'\".")] = None,
    item_fields: Annotated[str | None, typer.Option(help="More of items: brand,price.")] = None,
    user_fields: Annotated[str | None, typer.Option(help="Of --users: country,age.")] = None,
    context_fields: Annotated[str | None, typer.Option(help="More of the log: device.")] = None,
    split: Annotated[str, typer.Option(help="last-two, date or new-items.")] = "last-two",
    new_share: Annotated[float, typer.Option(help="New items of valid, and of test.")] = 0.1,
    new_by: Annotated[str, typer.Option(help="New items: random or first-click.")] = "random",
    negatives: Annotated[int, typer.Option(help="Items not clicked, for each click.")] = 3,
    min_rating: Annotated[float | None, typer.Option(help="Lowest rating of a click.")] = None,
    engine: Annotated[str, typer.Option(help="What reads and sorts: duckdb or spark.")] = "duckdb",
    master: Annotated[
        str | None, typer.Option(help="Of --engine spark: spark://host:7077, yarn, local[2].")
    ] = None,
    parameter: Annotated[
        list[str] | None,
        typer.Option("-p", metavar="KEY=VALUE", help="A column's name or an option; see below."),
    ] = None,
) -> None:
    """Make a dataset of your own click log; -p sets columns (user_column=...) and the rest."""
    chosen = {name: value for name, value in context.params.items() if name in Recipe.model_fields}
    recipe, out = Recipe.of(**chosen | parse_pairs(parameter)), place(out)
    require_one_of("engine", engine, ("duckdb", "spark"))
    if master and engine != "spark":
        raise ConfigError("--master is of a Spark cluster: give --engine spark with it.")
    from mmctr.data.importing.steps import import_dataset

    tables = interactions, items, covers, out, recipe, features, users
    facts = import_dataset(*tables, on_spark=engine == "spark", master=master, say=print)
    print("\n".join(f"{name:<26} {count:>12,}" for name, count in facts["counts"].items()))
    print(out)


@data_app.command("download")
def data_download(
    name: Annotated[str, typer.Argument(help="The dataset: microlens-1m.")],
    out: Annotated[Path | None, typer.Option(help="Folder to make; else data/NAME.")] = None,
    accept_terms: Annotated[
        bool, typer.Option("--accept-terms", help="Accept the terms that are printed first.")
    ] = False,
    base_url: Annotated[str | None, typer.Option(help="Another place of the files.")] = None,
) -> None:
    """Download a public dataset; a run that broke off is resumed by running it again."""
    from mmctr.data.download import BASE_URL, download

    if name != "microlens-1m":
        raise ConfigError(f"Found dataset {name!r}, expected microlens-1m.")
    folder = place(out) if out else home() / "data" / name
    print(download(folder, base_url=base_url or BASE_URL, accept_terms=accept_terms))


@features_app.command("extract")
def features_extract(
    folder: Annotated[Path, typer.Argument(help="Folder of a dataset.")],
    text_model: Annotated[
        str, typer.Option(help="Encoder of transformers: hub name or folder; none leaves it out.")
    ] = defaults.TEXT_MODEL,
    image_model: Annotated[
        str, typer.Option(help="Model of open_clip: name or folder; none leaves it out.")
    ] = defaults.IMAGE_MODEL,
    image_pretrained: Annotated[
        str, typer.Option(help="Weights of open_clip: tag or checkpoint file.")
    ] = defaults.IMAGE_WEIGHTS,
    pooling: Annotated[
        str, typer.Option(help="Text vector of the tokens: auto, cls, mean, max or lasttoken.")
    ] = "auto",
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or mps.")] = "auto",
    batch_size: Annotated[int, typer.Option(min=1, help="Items encoded at once.")] = 64,
) -> None:
    """Run encoders over titles and covers; a killed run goes on where it was."""
    folder = existing_folder(find(folder))
    require_one_of("pooling", pooling, defaults.POOLINGS)
    require_one_of("device", device, get_args(TrainConfig.model_fields["device"].annotation))
    from mmctr.content.extract import extract
    from mmctr.devices import find_device

    summary = extract(
        folder,
        text_model=None if text_model == "none" else text_model,
        image_model=None if image_model == "none" else image_model,
        image_pretrained=image_pretrained,
        pooling=pooling,
        device=find_device(device),
        batch_size=batch_size,
    )
    print(summary)


@content_app.command("fit")
def content_fit(
    strategy: Annotated[str, typer.Argument(help=f"One of {', '.join(STRATEGIES)}.")],
    data: Annotated[Path, typer.Option(help="Folder of a dataset.")] = DEMO,
    column: Annotated[str | None, typer.Option(help="Its name; else the strategy's.")] = None,
) -> None:
    """Keep a strategy's item embedding as a column of item_emb.parquet, for use elsewhere."""
    require_known(strategy)
    folder = existing_folder(find(data))
    from mmctr.content.fusion import provide
    from mmctr.data.dataset import Dataset

    print(provide(Dataset.load(folder), strategy, column or strategy))


def require_one_of(option: str, value: str, choices: tuple[str, ...]) -> None:
    """Raise ConfigError unless an option has one of its choices."""
    if value not in choices:
        raise ConfigError(f"Found --{option} {value!r}, expected one of {', '.join(choices)}.")
