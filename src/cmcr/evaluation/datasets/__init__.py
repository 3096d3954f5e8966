"""Readers of the evaluation data sets, in the layouts in which their authors publish them.

`read_dataset` (registry) gives one of four records (records): `Pairs`, `Labelled`, `Grounded` or `Judged`. One file a data
set or family says its layout and its source; what they share is in layout (finding files, saying what is missing),
annotations (JSON, CSV, boxes), clips and sounding (audio-visual sets), captioned and karpathy (captions).
"""

from cmcr.evaluation.datasets.layout import Layout
from cmcr.evaluation.datasets.records import Grounded, Judged, Labelled, Pairs, Record
from cmcr.evaluation.datasets.registry import LAYOUTS, read_dataset

__all__ = ["LAYOUTS", "Grounded", "Judged", "Labelled", "Layout", "Pairs", "Record", "read_dataset"]
