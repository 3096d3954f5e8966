"""Connect frozen contrastive encoders without paired data (C-MCR, NeurIPS 2023)."""

from __future__ import annotations

import os
import sys
from importlib import import_module
from typing import TYPE_CHECKING, Any

from cmcr._version import __version__

if "torch" not in sys.modules and "OMP_WAIT_POLICY" not in os.environ:
    # Threads of torch wait for each other by spinning for milliseconds, which makes a busy machine ten times slower. Only
    # the environment can tell them (those of GNU's OpenMP, on Linux) to sleep sooner, and only before torch is loaded.
    os.environ.setdefault("GOMP_SPINCOUNT", "1000")

if TYPE_CHECKING:
    from cmcr.connecting import connect_on_disk
    from cmcr.connection.compare import compare
    from cmcr.connection.connect import connect
    from cmcr.connection.connection import Connection
    from cmcr.connection.enhancement import semantic_completion, semantic_consistency
    from cmcr.errors import CmcrError
    from cmcr.evaluation.baselines import baselines
    from cmcr.loading import load
    from cmcr.memories.embed import embed
    from cmcr.memories.memories import Memories
    from cmcr.memories.memory import Memory
    from cmcr.memories.precomputed import write_memory
    from cmcr.published import import_published
    from cmcr.search.building import index
    from cmcr.search.engine import SearchIndex
    from cmcr.spaces.custom import CustomSpace, PrecomputedSpace, from_open_clip, from_sentence_transformers
    from cmcr.spaces.registry import register_space, space

__all__ = [
    "CmcrError",
    "Connection",
    "CustomSpace",
    "Memories",
    "Memory",
    "PrecomputedSpace",
    "SearchIndex",
    "__version__",
    "baselines",
    "compare",
    "connect",
    "connect_on_disk",
    "embed",
    "from_open_clip",
    "from_sentence_transformers",
    "import_published",
    "index",
    "load",
    "register_space",
    "semantic_completion",
    "semantic_consistency",
    "space",
    "write_memory",
]

# Public names are imported at their first use (PEP 562), so that `import cmcr` and `cmcr --help` do not wait for torch.
_HOME = {
    "CustomSpace": "cmcr.spaces.custom",
    "PrecomputedSpace": "cmcr.spaces.custom",
    "SearchIndex": "cmcr.search.engine",
    "from_open_clip": "cmcr.spaces.custom",
    "from_sentence_transformers": "cmcr.spaces.custom",
    "import_published": "cmcr.published",
    "index": "cmcr.search.building",
    "register_space": "cmcr.spaces.registry",
    "CmcrError": "cmcr.errors",
    "baselines": "cmcr.evaluation.baselines",
    "Connection": "cmcr.connection.connection",
    "Memories": "cmcr.memories.memories",
    "Memory": "cmcr.memories.memory",
    "compare": "cmcr.connection.compare",
    "connect": "cmcr.connection.connect",
    "connect_on_disk": "cmcr.connecting",
    "embed": "cmcr.memories.embed",
    "load": "cmcr.loading",
    "semantic_completion": "cmcr.connection.enhancement",
    "semantic_consistency": "cmcr.connection.enhancement",
    "space": "cmcr.spaces.registry",
    "write_memory": "cmcr.memories.precomputed",
}


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'cmcr' has no attribute {name!r}")
    value = getattr(import_module(_HOME[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
