"""Readers of the evaluation data sets, in the layouts in which their authors publish them."""

from cmcr.evaluation.datasets.records import (
    ClassificationRecord,
    CounterfactualRecord,
    LocalizationRecord,
    Record,
    RetrievalRecord,
)
from cmcr.evaluation.datasets.registry import LAYOUTS, read_dataset

__all__ = [
    "LAYOUTS",
    "ClassificationRecord",
    "CounterfactualRecord",
    "LocalizationRecord",
    "Record",
    "RetrievalRecord",
    "read_dataset",
]
