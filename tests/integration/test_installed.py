"""The installed program and the module are one; tests/demo runs the demonstration through it, as a newcomer does."""

import subprocess
import sys
from pathlib import Path

PROGRAM = Path(sys.executable).parent / "cmcr"


def test_python_m_cmcr_is_cmcr():
    as_module = subprocess.run([sys.executable, "-m", "cmcr", "--version"], capture_output=True, text=True, check=True)
    as_program = subprocess.run([PROGRAM, "--version"], capture_output=True, text=True, check=True)
    assert as_module.stdout == as_program.stdout
