"""The installed program and the module are one; tests/demo runs the demonstration through it, as a newcomer does."""

import re
import subprocess
import sys
import tomllib
from pathlib import Path

import cmcr

PROGRAM = Path(sys.executable).parent / "cmcr"
REPOSITORY = Path(__file__).parents[2]
PROJECT = tomllib.loads((REPOSITORY / "pyproject.toml").read_text(encoding="utf-8"))["project"]


def test_python_m_cmcr_is_cmcr():
    as_module = subprocess.run([sys.executable, "-m", "cmcr", "--version"], capture_output=True, text=True, check=True)
    as_program = subprocess.run([PROGRAM, "--version"], capture_output=True, text=True, check=True)
    assert as_module.stdout == as_program.stdout


def test_extras_that_messages_and_the_readme_name_exist():
    sources = [path.read_text(encoding="utf-8") for path in Path(cmcr.__file__).parent.rglob("*.py")]
    asked_for = {
        extra for source in sources for extra in re.findall(r'missing_dependency\(.*\bextra="([\w-]+)"', source)
    }
    assert {"demo", "encoders"} <= asked_for <= set(PROJECT["optional-dependencies"])
    line = re.search("^Extras: .*$", (REPOSITORY / "README.md").read_text(encoding="utf-8"), re.MULTILINE).group()
    assert {"demo", "encoders"} <= set(re.findall(r"`([\w-]+)`", line)) <= set(PROJECT["optional-dependencies"])


def test_citation_has_the_version_of_the_package():
    citation = (REPOSITORY / "CITATION.cff").read_text(encoding="utf-8")
    assert re.search(r"^version: (.*)$", citation, re.MULTILINE).group(1) == cmcr.__version__
