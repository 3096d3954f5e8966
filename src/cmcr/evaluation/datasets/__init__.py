"""Readers of the evaluation data sets, in the layouts in which their authors publish them.

`read_dataset` (registry) gives one of four records (records): `RetrievalRecord`, `ClassificationRecord`,
`LocalizationRecord` or `CounterfactualRecord`. One file a data set or family
holds its layout and its source.
"""

from cmcr.evaluation.datasets.layout import Layout
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
    "Layout",
    "LocalizationRecord",
    "Record",
    "RetrievalRecord",
    "read_dataset",
]
