"""A wheel is enough: it carries the notebooks and all that pages are made of."""

import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
BUILD = "import sys; from setuptools.build_meta import build_wheel; build_wheel(sys.argv[1])"
DEMO = "from pathlib import Path; from mmctr.data.demo import write_demo; "
DEMO += "write_demo(Path('data/demo'), seed=1, items=200, users=64)"
SAY = "import mmctr; from mmctr.files import home; print(mmctr.__file__, home(), sep='\\n')"


def source_files():
    """What a wheel has to hold, as a path in it, with its content."""
    library = (path for path in (ROOT / "mmctr").rglob("*") if "__pycache__" not in path.parts)
    files = {path.relative_to(ROOT): path for path in library if path.is_file()}
    for path in (ROOT / "notebooks").glob("[0-9][0-9]_*.ipynb"):
        files[Path("mmctr", "notebooks", path.name)] = path
    return {str(place): path.read_bytes() for place, path in files.items()}


@pytest.fixture(scope="module")
def unpacked(tmp_path_factory):
    """A wheel built from a copy of the source tree, unpacked as pip would."""
    place = tmp_path_factory.mktemp("wheel")
    source = place / "source"
    for name in ("mmctr", "notebooks"):
        shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    (source / "notebooks" / "out.ipynb").write_text("{}")  # what somebody left there
    command = [sys.executable, "-c", BUILD, str(place)]
    done = subprocess.run(command, cwd=source, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    (wheel,) = place.glob("*.whl")
    zipfile.ZipFile(wheel).extractall(place / "unpacked")
    return place / "unpacked"


@pytest.fixture
def python(unpacked, tmp_path):
    """Runs Python in an empty folder, where mmctr is what the wheel holds; its output."""
    environment = os.environ | {"PYTHONPATH": str(unpacked)}
    environment.pop("MMCTR_HOME", None)

    def run(*words):
        command = [sys.executable, *words]
        options = {"cwd": tmp_path, "env": environment, "capture_output": True, "text": True}
        done = subprocess.run(command, **options)
        assert done.returncode == 0, done.stderr
        return done.stdout

    return run


def test_a_wheel_holds_every_file_of_the_library_and_every_notebook(unpacked):
    files = {path.relative_to(unpacked): path for path in unpacked.rglob("*") if path.is_file()}
    held = {str(place): path.read_bytes() for place, path in files.items()}
    expected = source_files()
    assert sum(name.endswith(".ipynb") for name in expected) >= 10
    assert {name for name in held if not name.startswith("mmctr-")} == set(expected)
    assert held | expected == held


def test_the_notebooks_of_a_wheel_are_found_and_data_and_runs_go_to_the_current_folder(
    python, unpacked, tmp_path
):
    assert python("-c", SAY).split() == [str(unpacked / "mmctr" / "__init__.py"), str(tmp_path)]
    assert python("-m", "mmctr", "notebooks", "--out", "nb") == f"{tmp_path / 'nb'}\n"
    copies = {path.name: path.read_bytes() for path in (tmp_path / "nb").iterdir()}
    own = (ROOT / "notebooks").glob("[0-9][0-9]_*.ipynb")
    assert copies == {path.name: path.read_bytes() for path in own}
    assert python("-m", "mmctr", "lab", "--version").strip()[0].isdigit()
    assert len(list((tmp_path / "notebooks").iterdir())) == len(copies)


def test_a_wheel_trains_tracks_and_exports(python, tmp_path):
    for extra in ("onnx", "onnxscript", "onnxruntime", "tensorboard"):
        pytest.importorskip(extra)
    python("-c", DEMO)
    small = ["-p", "epochs=1", "-p", "embedding_dim=4", "-p", "heads=1", "-p", "hidden=[8]"]
    run = Path(python("-m", "mmctr", "train", "--track", *small).splitlines()[-1])
    assert run.parent == tmp_path / "runs"
    assert len(list(run.glob("events.out.tfevents.*"))) == 1
    assert "are as it says" in python("-m", "mmctr", "verify", f"runs/{run.name}")
    python("-m", "mmctr", "export", f"runs/{run.name}", "--onnx")
    written = {path.name for path in (tmp_path / "exports" / run.name).iterdir()}
    assert written == {"scorer.onnx", "items.parquet", "scorer.json"}
