"""Notebooks in git hold words and code only: no outputs, and the form that papermill needs."""

from pathlib import Path

import nbformat
import pytest

FOLDER = Path(__file__).parents[2] / "notebooks"
NOTEBOOKS = sorted(FOLDER.glob("*.ipynb"))


def test_the_notebooks_are_numbered_in_order():
    numbers = [int(path.name[:2]) for path in NOTEBOOKS]
    assert len(set(numbers)) == len(numbers)
    assert len(NOTEBOOKS) >= 5


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebook_is_clean_and_thin(path):
    notebook = nbformat.read(path, as_version=4)
    nbformat.validate(notebook)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert not any(cell.outputs or cell.execution_count for cell in code), "it has outputs"
    assert notebook.metadata.kernelspec.language == "python", "papermill needs the language"
    work = [cell for cell in code if "parameters" not in cell.metadata.get("tags", [])]
    assert len(code) - len(work) == 1, "it needs one cell of parameters"
    assert notebook.cells[0].source.splitlines()[1].startswith("You will learn")
    longest = max(len(cell.source.splitlines()) for cell in work)
    assert longest <= 18, f"a cell has {longest} lines: move work to the library"
    assert not any(
        line.startswith(("def ", "class ")) for c in code for line in c.source.split("\n")
    )
