"""Command lines with odd values, on inputs that are spoilt or sound."""

from collections.abc import Callable
from pathlib import Path

import numpy as np

from tests.fuzz import datasets, logs, runs

Command = Callable[[np.random.Generator, Path], list[str]]
COMMANDS: dict[str, Command] = {}
QUICK = ["epochs=1", "embedding_dim=2", "heads=1", "hidden=[2]", "validations=1", "batch_size=4"]
ODD = [
    "", " ", "0", "-1", "1", "3", "0.5", "1e400", "nan", "null", "true", "[1", "{}", "[]", "é",
    "a/b", "../..", "x" * 300, "9" * 5000, "v1", "v4", "test", "valid", "date", "--help",
    "provided:item_emb_d128", "provided:", "provided:x\ny", "1099511627776",
]  # fmt: skip
PARAMETERS = ["learning_rate", "heads", "seed", "bilinear", "senet", "dropout", "patience", "x", ""]


def command(place: Path, names: list[str], seed: int) -> list[str]:
    """The words of a case: the last of its names is the command."""
    rng = np.random.default_rng(seed)
    (place / "file").touch()
    return COMMANDS[names[-1] if names else "check"](rng, place)


def register(make: Command) -> Command:
    """Register a command by its function's name."""
    COMMANDS[make.__name__] = make
    return make


def odd(rng: np.random.Generator) -> str:
    """A value that an option may not expect."""
    return ODD[int(rng.integers(len(ODD)))]


def options(rng: np.random.Generator, *names: str) -> list[str]:
    """Some of the options, each with an odd value."""
    return [word for name in names if rng.random() < 0.4 for word in (name, odd(rng))]


def spoilt(rng: np.random.Generator, names: list[str]) -> list[str]:
    """One mutation, half of the time."""
    return [str(rng.choice(sorted(names)))] if rng.random() < 0.5 else []


def dataset(rng: np.random.Generator, place: Path) -> str:
    """The folder of a dataset, mostly."""
    if rng.random() < 0.1:
        return str(rng.choice([place / "file", place / "none", place / "file" / "x", "x" * 300]))
    names = spoilt(rng, list(datasets.TABLES | datasets.BYTES))
    return str(datasets.write_dataset(place / "data", names, int(rng.integers(2**32))))


def target(rng: np.random.Generator, place: Path) -> str:
    """A path to write to, mostly one that cannot be."""
    (place / "there").mkdir(exist_ok=True)
    places = [place / "new", place / "a" / "b", place / "file", place / "file" / "x"]
    places += [place / "there", place / ("x" * 300), place / "there" / "..", place / "é\n"]
    return str(places[int(rng.integers(len(places)))])


@register
def check(rng, place):
    return ["data", "check", dataset(rng, place)]


@register
def demo(rng, place):
    """Only what is refused before anything is simulated, for that takes long."""
    outs = [place / "file", place / "file" / "x", place / "file" / "x" / "y", place / ("x" * 300)]
    words = ["data", "demo", "--out", str(outs[int(rng.integers(len(outs)))])]
    return [*words, *options(rng, "--seed")]


@register
def importing(rng, place):
    names = spoilt(rng, list(datasets.TABLES | datasets.BYTES))
    log, items, _ = logs.write_tables(place / "tables", names, int(rng.integers(2**32)))
    words = ["data", "import", "--interactions", str(log), "--items", str(items)]
    words += ["--out", target(rng, place)]
    words += options(rng, "--negatives") if rng.random() < 0.5 else ["--negatives", "1"]
    words += options(rng, "--min-rating", "--split", "--covers") if rng.random() < 0.3 else []
    keys = ["user_column", "time_column", "sampling", "max_history", "valid_from", "seed", "x"]
    if rng.random() < 0.3:
        words += ["-p", f"{rng.choice(keys)}={odd(rng)}"]
    return words


@register
def training(rng, place):
    words = ["train", "--data", dataset(rng, place)]
    words += ["--strategy", "provided:item_emb_d128"] if rng.random() < 0.5 else []
    words += options(rng, "--seed", "--strategy") if rng.random() < 0.3 else []
    words += [word for pair in QUICK for word in ("-p", pair)]
    if rng.random() < 0.3:
        words += ["-p", f"{rng.choice(PARAMETERS)}={odd(rng)}"]
    return words


@register
def predicting(rng, place):
    own, _ = runs.base()
    folder = runs.write_run(
        place / "run", spoilt(rng, list(runs.MUTATIONS)), int(rng.integers(2**32))
    )
    data = str(own.folder) if rng.random() < 0.6 else dataset(rng, place)
    words = ["predict", str(folder), "--data", data, "--out", target(rng, place)]
    words += ["--split", str(rng.choice(["train", "valid", "test", odd(rng)]))]
    return [*words, *(["--submission", target(rng, place)] if rng.random() < 0.3 else [])]


@register
def reporting(rng, place):
    """Only what is refused before a notebook runs, for that takes long."""
    words = ["report", "--data", dataset(rng, place), "--strategies", "v1,v9"]
    return [*words, *options(rng, "--seeds", "--out"), *(["-p", odd(rng)] * int(rng.integers(2)))]
