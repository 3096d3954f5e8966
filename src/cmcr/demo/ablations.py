"""The paper's ablations: one ingredient off at a time."""

from __future__ import annotations

from typing import Any

ABLATIONS: dict[str, dict[str, Any]] = {
    "no noise (semantic completion off)": {"noise_variance": 0.0},
    "only L_ttc": {"avc_weight": 0.0},
    "only L_avc": {"ttc_weight": 0.0},
    "no L_intra": {"intra_weight": 0.0},
    "no semantic consistency": {"semantic_consistency": False},
}
"""What each ablation changes in the settings."""
