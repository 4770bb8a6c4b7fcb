"""What is packed agrees with what is said: pyproject, environment.yml, Makefile, changelog, data, notebooks."""

from __future__ import annotations

import ast
import importlib
import importlib.metadata
import json
import re
import shutil
import sys
import sysconfig
import tomllib
from itertools import chain
from pathlib import Path
from typing import Any

import commands
import pytest
import tools
import yaml
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.version import Version

import avlab

ROOT = Path(__file__).parents[1]
PROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
REQUIREMENTS = {r.name: r for r in map(Requirement, PROJECT["dependencies"])}
EXTRAS = PROJECT["optional-dependencies"]
MAKEFILE = (ROOT / "Makefile").read_text()
CONDA_NAMES = {"python-sounddevice": "sounddevice"}
"""What conda-forge calls otherwise than PyPI."""
GIVEN = {"git", "make", "python3"}
"""What a machine has to have before its first `make`."""
NOT_ON_PYPI = {"pip", "portaudio", "python"}
HEAVY = [
    "IPython",
    "av",
    "cv2",
    "ipywidgets",
    "matplotlib",
    "pandas",
    "pyarrow",
    "pyaudio",
    "simplejpeg",
    "sounddevice",
]


def files(pattern: str) -> list[Path]:
    return sorted(path for path in ROOT.glob(pattern) if ".ipynb_checkpoints" not in path.parts)


def names(path: Path) -> str:
    return str(path.relative_to(ROOT))


def make_variable(name: str) -> list[str]:
    """The words of a variable as make itself expands it."""
    command = ["make", "--silent", "--eval", f"say: ; @echo '$({name})'", "say"]
    return tools.run(*command, cwd=ROOT).split()


# --- versions and licence ---------------------------------------------------------------------------------------


def test_one_version_everywhere() -> None:
    version = PROJECT["version"]
    assert importlib.metadata.version("avlab") == version, "pyproject.toml has changed: 'make setup' installs it anew"
    assert avlab.__version__ == version
    said = rf"^## \[{re.escape(version)}\]|^The version being built is {re.escape(version)}\b"
    assert re.search(said, (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE), f"CHANGELOG.md does not name {version}"


def test_changelog_begins_with_what_is_unreleased() -> None:
    titles = re.findall(r"^## (.*)$", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert titles[0] == "[Unreleased]"
    released = [Version(title[1 : title.index("]")]) for title in titles[1:]]
    assert released == sorted(released, reverse=True)


def test_licence_is_mit() -> None:
    text = (ROOT / "LICENSE").read_text()
    assert PROJECT["license"] == "MIT"
    assert text.startswith("MIT License\n\nCopyright (c) 2026 The avlab authors\n")
    assert 'THE SOFTWARE IS PROVIDED "AS IS"' in text


def test_supported_pythons_agree() -> None:
    assert PROJECT["requires-python"] == ">=3.11"
    assert "sys.version_info < (3, 11)" in MAKEFILE
    assert "Operating System :: OS Independent" in PROJECT["classifiers"]
    assert "Programming Language :: Python :: 3" in PROJECT["classifiers"]


# --- conda ------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def conda() -> dict[str, Any]:
    environment = yaml.safe_load((ROOT / "environment.yml").read_text())
    assert isinstance(environment, dict)
    return environment


def conda_packages(conda: dict[str, Any]) -> dict[str, SpecifierSet]:
    """Name and allowed versions of what conda itself installs; `python=3.12` means any 3.12."""
    packages = {}
    for line in conda["dependencies"]:
        if isinstance(line, str):
            match = re.fullmatch(r"([a-z0-9-]+)(?:=([\d.]+)|([<>=]=.*))?", line)
            assert match, line
            packages[match[1]] = SpecifierSet(f"=={match[2]}.*" if match[2] else match[3] or "")
    return packages


def test_binder_gets_what_opencv_needs_of_the_system() -> None:
    packages = (ROOT / "apt.txt").read_text().split()
    assert "libgl1" in packages
    assert set(packages) <= set(make_variable("SYSTEM_lab"))


def pip_lines(conda: dict[str, Any]) -> list[str]:
    (pip,) = (line["pip"] for line in conda["dependencies"] if isinstance(line, dict))
    return list(pip)


def test_conda_takes_nothing_from_the_default_channel(conda: dict[str, Any]) -> None:
    assert conda["name"] == "avlab"
    assert conda["channels"] == ["conda-forge", "nodefaults"]


def test_conda_python_is_one_that_avlab_runs_on(conda: dict[str, Any]) -> None:
    (spec,) = conda_packages(conda)["python"]
    assert Version(spec.version.removesuffix(".*")) in SpecifierSet(PROJECT["requires-python"])


def test_conda_mirrors_only_what_pyproject_asks_for(conda: dict[str, Any]) -> None:
    for name, versions in conda_packages(conda).items():
        if name not in NOT_ON_PYPI:
            required = REQUIREMENTS[CONDA_NAMES.get(name, name)]
            assert versions == required.specifier, f"{name} in environment.yml and {required} in pyproject.toml differ"


def test_conda_installs_avlab_with_the_same_pyaudio(conda: dict[str, Any]) -> None:
    editable, *others = pip_lines(conda)
    assert editable == "-e ."
    assert [Requirement(line) for line in others] == [REQUIREMENTS["pyaudio"]]


def test_there_is_one_opencv(conda: dict[str, Any]) -> None:
    everything = [*PROJECT["dependencies"], *chain(*EXTRAS.values()), *conda_packages(conda), *pip_lines(conda)]
    assert [line for line in everything if "opencv" in line] == [str(REQUIREMENTS["opencv-python"])]
    installed = {d.metadata["Name"].lower() for d in importlib.metadata.distributions()}
    assert [name for name in sorted(installed) if name.startswith("opencv")] == ["opencv-python"]


@pytest.mark.parametrize(
    ("system", "python", "wanted"),
    [("win32", "3.12", True), ("win32", "3.14", False), ("darwin", "3.12", False), ("linux", "3.12", False)],
)
def test_pyaudio_is_asked_for_only_where_a_wheel_is(system: str, python: str, wanted: bool) -> None:
    marker = REQUIREMENTS["pyaudio"].marker
    assert marker is not None
    assert marker.evaluate({"sys_platform": system, "python_version": python}) is wanted


# --- make -------------------------------------------------------------------------------------------------------


def needed_tools() -> set[str]:
    """What the tests' `needs(...)` markers name, read from their source."""
    calls = (
        node
        for path in files("tests/test_*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "needs"
    )
    return {str(argument.value) for call in calls for argument in call.args if isinstance(argument, ast.Constant)}


@pytest.mark.needs("make")
def test_make_test_installs_every_tool_that_a_test_needs() -> None:
    installed = {*make_variable("SYSTEM_test"), *GIVEN}
    for tool in {*needed_tools(), "xvfb", "pulse"}:
        for package in tools.packages(tool):
            assert package in installed, f"{tool} needs Debian's {package}: add it to SYSTEM_test in the Makefile"


@pytest.mark.needs("make")
@pytest.mark.parametrize("target", ["check", "lab", "test", "bench"])
def test_make_installs_extras_that_exist(target: str) -> None:
    # pip only warns of an extra that it does not know, and goes on.
    extras = re.findall(r"[^\[\],]+", "".join(make_variable(f"EXTRAS_{target}")))
    assert set(extras) <= set(EXTRAS)
    assert set(extras) >= {"check", "test"} & {target}


def test_ci_runs_what_the_readme_says() -> None:
    run = ROOT / ".ci/run"
    assert run.stat().st_mode & 0o111, ".ci/run is not executable"
    assert "set -euo pipefail" in run.read_text()
    assert run.read_text().splitlines()[-1] == "make test"
    assert "--require-all" in MAKEFILE


def test_limits_are_as_told() -> None:
    """Each row of docs/trust.md that names a constant has its value: in whole units, and seconds where it is in ns."""
    rows = re.findall(r"^\| .* \| ([\d,]+) \| ([\w.]+)\.([A-Z_]+) \|$", (ROOT / "docs/trust.md").read_text(), re.M)
    assert len(rows) > 20
    for told, module, name in rows:
        value = getattr(importlib.import_module(f"avlab.{module}"), name)
        value = value / 1e9 if name.endswith("_NS") else value
        assert int(told.replace(",", "")) == value, f"docs/trust.md says {told}; {module}.{name} is {value:,}"


# --- files ------------------------------------------------------------------------------------------------------


def test_what_is_no_code_is_packed() -> None:
    packed = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["package-data"]
    others = [path for path in files("avlab/**/*") if path.suffix not in (".py", ".pyc") and path.is_file()]
    assert {path.name for path in others} >= {"view.js", "view.css", "work.csv", "sizes.csv"}
    for path in others:
        patterns = packed[".".join(path.parent.relative_to(ROOT).parts)]
        assert any(path.match(pattern) for pattern in patterns), names(path)


def test_data_stays_small() -> None:
    size = sum(path.stat().st_size for path in files("data/**/*") if path.is_file())
    assert size < 2_000_000, f"data/ has {size:,} bytes; the clips have to stay under 2 MB"


@pytest.mark.parametrize("path", files("avlab/**/*.py"), ids=names)
def test_every_file_says_what_it_is(path: Path) -> None:
    docstring = ast.get_docstring(ast.parse(path.read_text()))
    assert docstring, f"{names(path)} has no docstring"
    assert docstring.rstrip()[-1] in ".:", f"the docstring of {names(path)} is no sentence"


def test_notebooks_are_committed_without_outputs() -> None:
    for path in files("notebooks/**/*.ipynb"):
        cells = json.loads(path.read_text())["cells"]
        run = [n for n, cell in enumerate(cells) if cell.get("outputs") or cell.get("execution_count")]
        assert not run, f"cells {run} of {names(path)} hold outputs: clear them"


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The programs of an environment into which avlab's wheel was installed: nothing of this repository is in it.

    What avlab depends on is lent by the environment that the tests run in, so that nothing is downloaded.
    """
    folder = tmp_path_factory.mktemp("wheel")
    source, environment = folder / "source", folder / "environment"
    hidden = shutil.ignore_patterns("__pycache__", "*.egg-info")
    shutil.copytree(ROOT / "avlab", source / "avlab", ignore=hidden)
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    pip = (sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet")
    tools.run(*pip, "wheel", "--no-deps", "--no-build-isolation", "--wheel-dir", folder, source)
    tools.run(sys.executable, "-m", "venv", "--without-pip", environment)
    programs = environment / ("Scripts" if sys.platform == "win32" else "bin")
    said = tools.run(programs / "python", "-c", "import sysconfig; print(sysconfig.get_path('purelib'))")
    # A .pth file that is found on a path from a .pth file is not read: the editable avlab of this one stays outside.
    (Path(said.strip()) / "lent.pth").write_text(sysconfig.get_path("purelib") + "\n")
    (wheel,) = folder.glob("avlab-*.whl")
    tools.run(*pip, "--python", programs / "python", "install", "--no-deps", "--no-index", wheel)
    return programs


def test_the_wheel_is_whole(installed: Path, tmp_path: Path) -> None:
    """`simulate` and the checks read recorded work times and frame sizes, the notebook its page's code."""
    code = """
import avlab
from avlab.lab.notebook import view

network = avlab.Network(loss=0.1)
print(avlab.__file__)
print(len(avlab.simulate(30.0, seconds=2, network=network).frames))
print(bool(avlab.check.rule(avlab.pi_rule())))
"""
    where, *said = tools.run(installed / "python", "-c", code, cwd=tmp_path).splitlines()
    assert installed.parent in Path(where).parents
    assert said == ["60", "True"]


@pytest.mark.slow
def test_the_wheel_s_command_streams(installed: Path, clip: Path, tmp_path: Path) -> None:
    alone = tools.finished(installed / "avlab", "demo", "--audio", "null", cwd=tmp_path)
    assert alone.returncode == 1
    assert commands.sentence(alone.stderr).endswith(
        "name a clip, as in avlab demo CLIP, or run avlab in its repository"
    )
    said = tools.run(installed / "avlab", "demo", clip, "--seconds", 1, "--audio", "null", "--out", "out", cwd=tmp_path)
    assert "shown" in said
    assert {path.name for path in (tmp_path / "out").iterdir()} >= {"page.png", "demo.avtrace"}


def test_import_takes_no_heavy_module() -> None:
    code = f"import avlab, sys; print([name for name in {HEAVY} if name in sys.modules])"
    assert tools.run(sys.executable, "-c", code).strip() == "[]"
