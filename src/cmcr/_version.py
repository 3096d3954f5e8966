"""The version, read by the build and recorded in every artefact, and those of the libraries that decide about numbers."""

from __future__ import annotations

import contextlib
from importlib.metadata import PackageNotFoundError, version

__version__ = "0.1.0"

_LIBRARIES = ("torch", "numpy", "pillow", "soundfile", "soxr", "transformers")


def versions_here() -> dict[str, str]:
    """Find the installed versions of the libraries that decide about the numbers in a memory or a connection."""
    found = {"cmcr": __version__}
    for library in _LIBRARIES:
        with contextlib.suppress(PackageNotFoundError):
            found[library] = version(library)
    return found
