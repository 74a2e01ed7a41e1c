"""The SDK installs alone, into an empty environment, and its README example runs there."""

import os
import re
import subprocess
import sys
import tomllib
import venv
from pathlib import Path
from shutil import copytree, ignore_patterns

import pytest

import experiments.sdk

SDK = Path(experiments.sdk.__file__).parent
README = (SDK / "README.md").read_text("utf-8")
UNREACHABLE = ("No matching distribution found", "Could not find a version", "Could not fetch URL")

LIST_FOREIGN_MODULES = """
import sys
names = {name.partition(".")[0] for name in sys.modules}
print(sorted(names - sys.stdlib_module_names - {"__main__", "upturn"}))
"""


def run(*command, cwd):
    """Run a command outside this repository, so that nothing of it is importable."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    return subprocess.run(
        [str(part) for part in command], cwd=cwd, env=environment, capture_output=True, encoding="utf-8"
    )


@pytest.fixture(scope="module")
def empty_python(tmp_path_factory):
    """The interpreter of an environment that holds the SDK and nothing else, not even pip."""
    folder = tmp_path_factory.mktemp("light")
    source = copytree(SDK, folder / "sdk", ignore=ignore_patterns("__pycache__", "build", "*.egg-info"))
    pip = (sys.executable, "-m", "pip", "--disable-pip-version-check")
    built = run(*pip, "wheel", "--no-deps", "--wheel-dir", folder, source, cwd=folder)
    if built.returncode and any(sign in built.stdout + built.stderr for sign in UNREACHABLE):
        pytest.skip("the package registry cannot be reached, and building the SDK needs setuptools from it")
    assert built.returncode == 0, built.stderr
    (wheel,) = folder.glob("upturn_sdk-*.whl")
    venv.create(folder / "venv")
    python = folder / "venv" / ("Scripts" if os.name == "nt" else "bin") / "python"
    installed = run(*pip, "--python", python, "install", "--no-index", wheel, cwd=folder)
    assert installed.returncode == 0, installed.stderr
    return python


def test_readme_example_runs_with_the_standard_library_alone(empty_python, tmp_path):
    (example,) = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    (tmp_path / "example.py").write_text(example + LIST_FOREIGN_MODULES, "utf-8")
    result = run(empty_python, "example.py", cwd=tmp_path)
    assert (result.returncode, result.stdout.strip()) == (0, "[]"), result.stderr


def test_installed_package_is_typed_and_has_the_version_of_its_metadata(empty_python, tmp_path):
    code = (
        "import upturn, importlib.metadata as m; from pathlib import Path;"
        "print(upturn.__version__, m.version('upturn-sdk'), m.requires('upturn-sdk'),"
        " (Path(upturn.__file__).parent / 'py.typed').exists())"
    )
    version = tomllib.loads((SDK / "pyproject.toml").read_text("utf-8"))["project"]["version"]
    result = run(empty_python, "-c", code, cwd=tmp_path)
    assert result.stdout.split() == [version, version, "None", "True"], result.stderr


def test_every_public_name_is_exported():
    names = {name for name in vars(experiments.sdk) if not name.startswith("_")}
    modules = {path.stem for path in SDK.glob("*.py")}
    assert names - modules | {"__version__"} == set(experiments.sdk.__all__)
