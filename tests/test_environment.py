"""pyproject.toml, requirements.lock and environment.yml name the same packages and versions."""

import re
import tomllib
from pathlib import Path

import pytest
import yaml
from packaging.markers import default_environment
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
LOCK = [Requirement(line) for line in (ROOT / "requirements.lock").read_text().splitlines()]
PYTHONS = ("3.11", "3.12", "3.13")
SYSTEMS = ({"sys_platform": "linux", "os_name": "posix"}, {"sys_platform": "darwin"})


def locked(python, system):
    """The versions that the lock pins for a Python version and system, by package name."""
    environment = default_environment() | {
        "python_version": python,
        "python_full_version": f"{python}.9",
        "implementation_name": "cpython",
        "platform_machine": "arm64" if system["sys_platform"] == "darwin" else "x86_64",
        **system,
    }
    there = [line for line in LOCK if line.marker is None or line.marker.evaluate(environment)]
    names = [canonicalize_name(line.name) for line in there]
    assert len(names) == len(set(names)), "a package is pinned twice"
    return dict(zip(names, (str(line.specifier) for line in there), strict=True))


def test_lock_has_plain_pins_only():
    for line in (ROOT / "requirements.lock").read_text().splitlines():
        assert re.fullmatch(r"[A-Za-z0-9_.-]+==[^\s;]+( ; .+)?", line), line


@pytest.mark.parametrize("python", PYTHONS)
@pytest.mark.parametrize("system", SYSTEMS, ids=lambda system: system["sys_platform"])
def test_lock_satisfies_pyproject(python, system):
    pins = locked(python, system)
    wanted = [*PROJECT["dependencies"], *PROJECT["optional-dependencies"]["dev"]]
    for requirement in map(Requirement, wanted):
        pin = pins[canonicalize_name(requirement.name)].removeprefix("==")
        assert requirement.specifier.contains(pin), f"{requirement} but {pin} is locked"


def test_environment_is_built_on_the_lock():
    environment = yaml.safe_load((ROOT / "environment.yml").read_text())
    assert environment["name"] == PROJECT["name"]
    python, _, pip = environment["dependencies"]
    assert SpecifierSet(PROJECT["requires-python"]).contains(f"{python.removeprefix('python=')}.0")
    assert pip["pip"] == ["--requirement requirements.lock", "--editable ."]


@pytest.mark.parametrize("name", ["jupyterlab", "papermill", "transformers", "open-clip-torch"])
def test_the_packages_that_users_asked_for_are_pinned(name):
    assert name in locked("3.12", SYSTEMS[0])
