"""The version, read by the build and recorded in every artefact."""

__version__ = "0.1.0"
