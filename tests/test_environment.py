"""setup.py, constraints.txt and environment.yml name the same packages at the same versions."""

import importlib.util
import re
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parent.parent


def pins(lines: list[str]) -> dict[str, str]:
    return {canonicalize_name(name): version for name, version in (line.split("==") for line in lines)}


@pytest.fixture(scope="module")
def constraints() -> dict[str, str]:
    lines = [line for line in (ROOT / "constraints.txt").read_text().splitlines() if line and not line.startswith("#")]
    wrong = [line for line in lines if not re.fullmatch(r"[A-Za-z0-9._-]+==[A-Za-z0-9.+!]+", line)]
    assert not wrong, f"constraints.txt holds only name==version lines, not {wrong}"
    return pins(lines)


@pytest.fixture(scope="module")
def setup():
    spec = importlib.util.spec_from_file_location("minigpt4o_setup", ROOT / "setup.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def conda() -> dict:
    return yaml.safe_load((ROOT / "environment.yml").read_text())


def requirements(setup) -> list[Requirement]:
    return [Requirement(line) for line in [*setup.INSTALL, *setup.EXTRAS["all"]]]


def test_every_requirement_has_a_pin_that_satisfies_it(setup, constraints) -> None:
    for requirement in requirements(setup):
        name = canonicalize_name(requirement.name)
        assert name in constraints, f"{name} of setup.py has no pin in constraints.txt"
        assert requirement.specifier.contains(constraints[name]), f"{requirement} refuses the pin {constraints[name]}"


def test_the_conda_environment_pins_the_direct_requirements_as_the_constraints_do(setup, constraints, conda) -> None:
    listed = next(d["pip"] for d in conda["dependencies"] if isinstance(d, dict))
    told = pins([line for line in listed if not line.startswith("--")])
    wanted = [*setup.INSTALL, *(line for extra in ("train", "demo", "test") for line in setup.EXTRAS[extra])]
    names = {canonicalize_name(Requirement(line).name) for line in wanted}
    assert told == {name: constraints[name] for name in names}
    assert {"--constraint constraints.txt", "--editable ."} <= set(listed)


def test_the_conda_python_is_one_the_package_accepts(conda) -> None:
    python = next(d for d in conda["dependencies"] if isinstance(d, str) and d.startswith("python="))
    assert python == "python=3.11"
    assert 'python_requires=">=3.11"' in (ROOT / "setup.py").read_text()
