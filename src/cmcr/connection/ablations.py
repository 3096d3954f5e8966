"""The ablations of the method: one ingredient off at a time, and at last all of them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

FULL = "full method"
"""What every ablation is compared with."""

ABLATIONS: Mapping[str, Mapping[str, Any]] = {
    "no semantic consistency": {"semantic_consistency": False},
    "no noise (semantic completion off)": {"noise_variance": 0.0},
    "only L_ttc": {"avc_weight": 0.0},
    "only L_avc": {"ttc_weight": 0.0},
    "no L_intra": {"intra_weight": 0.0},
    "consistent rows not made unit rows": {"normalize_consistency": False},
    "L_ttc alone, nothing else": {
        "semantic_consistency": False,
        "noise_variance": 0.0,
        "avc_weight": 0.0,
        "intra_weight": 0.0,
    },
}
"""What each ablation changes in the settings."""
