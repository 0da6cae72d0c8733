"""The rooms of the house: imports run one way, every file has its test, and heavy things wait."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
LIBRARY = ROOT / "mmctr"
# From the top floor down: a file may import from its own floor and from those below it.
ROOMS = ["report", "evaluation", "runs", "training", "model", "content", "data"]
COMMANDS = ["cli_backtest", "cli_runs", "cli_data", "cli_notebooks"]
FLOORS = ["__main__", "cli", *COMMANDS, *ROOMS, "ground"]
# What must run where none of this is installed.
CORE = ["data", "content/strategies", "content/fusion", "model", "training", "runs"]
HEAVY = {"plotly", "papermill", "transformers", "open_clip", "duckdb", "IPython", "nbconvert"}
# Tested with their package, as one door.
TOGETHER = {"report/figures": "report/test_figures.py", "report/widgets": "report/test_widgets.py"}


def imported(source):
    """The modules that a file's source names, at its top or within a function."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def floor(name):
    """Counted from the top; what stands beside the rooms (config, errors, ...) is the ground."""
    return FLOORS.index(name if name in FLOORS else "ground")


def arrows_back(place, source):
    """The imports of a file that run up the house. place: below mmctr."""
    own = floor(place.split("/")[0].removesuffix(".py"))
    modules = [module.split(".") for module in imported(source)]
    return [path for path in modules if path[0] == "mmctr" and floor("".join(path[1:2])) < own]


def sources():
    """Every file of the library, as its path below mmctr."""
    return sorted(str(path.relative_to(LIBRARY)) for path in LIBRARY.rglob("*.py"))


@pytest.mark.parametrize("place", sources())
def test_imports_run_one_way(place):
    assert not arrows_back(place, (LIBRARY / place).read_text(encoding="utf-8"))


@pytest.mark.parametrize(
    ("place", "source"),
    [
        ("training/trainer.py", "from mmctr.runs.unfinished import UnfinishedRun"),
        ("data/audit.py", "from mmctr.training.metrics import auc"),
        ("model/din.py", "def later():\n    import mmctr.training.batches"),
        ("runs/run.py", "from mmctr import report"),
        ("files.py", "from mmctr.data import schema"),
        ("report/index.py", "from mmctr import cli"),
    ],
)
def test_an_arrow_back_is_found(place, source):
    assert arrows_back(place, source)
    assert not arrows_back("cli.py", source) or "cli" in source


def test_every_room_stands_in_the_house_and_says_what_it_is_for():
    there = {path.parent.name for path in LIBRARY.glob("*/__init__.py")}
    assert there == set(ROOMS)
    for path in LIBRARY.rglob("__init__.py"):
        assert ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))), path


@pytest.mark.parametrize("place", sources())
def test_every_file_that_does_something_has_its_test(place):
    path, tree = Path(place), ast.parse((LIBRARY / place).read_text(encoding="utf-8"))
    if not any(isinstance(node, ast.FunctionDef | ast.ClassDef) for node in tree.body):
        return
    mirrored = TOGETHER.get(str(path.parent), str(path.with_name(f"test_{path.name}")))
    assert (ROOT / "tests" / mirrored).is_file()


def test_every_test_has_its_file():
    for folder in [*ROOMS, "data/importing"]:
        for path in (ROOT / "tests" / folder).glob("test_*.py"):
            place = LIBRARY / folder / path.name.removeprefix("test_")
            assert place.is_file() or place.with_suffix("").is_dir(), path


@pytest.mark.parametrize("place", sources())
def test_a_file_is_read_in_one_sitting(place):
    lines = (LIBRARY / place).read_text(encoding="utf-8").splitlines()
    assert len(lines) <= 360


def test_the_core_imports_nothing_heavy_at_module_level():
    for place in sources():
        if place.startswith(tuple(CORE)):
            tree = ast.parse((LIBRARY / place).read_text(encoding="utf-8"))
            top = "\n".join(
                ast.unparse(node)
                for node in tree.body
                if isinstance(node, ast.Import | ast.ImportFrom)
            )
            assert not HEAVY & {module.split(".")[0] for module in imported(top)}, place


def test_what_the_command_line_checks_at_once_needs_no_arrays():
    code = (
        "import sys, mmctr.cli\n"
        "assert not {'torch', 'numpy', 'pandas', 'sklearn', 'pyarrow'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
