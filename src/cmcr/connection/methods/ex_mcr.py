"""Ex-MCR: one space is the base and stays as it is, the other gets a projector into it (Wang et al., arXiv 2310.08884).

The training is that of C-MCR, with the identity in place of the base's projector: its dense losses pull overlap items and
their semantically consistent rows of the leaf to those of the base. (Ex-MCR adds further kinds of overlap and a projector
of two stages; neither is here.)

Cost: the training, two thirds of C-MCR's. Prefer it where an index of the base's rows exists, or several spaces are to
be carried into one; otherwise a common space of its own, `c-mcr`, leaves the training more room.
"""

from __future__ import annotations

from dataclasses import replace

from cmcr.connection.maps import Map
from cmcr.connection.methods.c_mcr import enhanced, trained
from cmcr.connection.methods.fitting import Fitted, Parent, Run
from cmcr.connection.settings import Settings
from cmcr.errors import ConfigError


def fit(left: Parent, right: Parent, settings: Settings, run: Run) -> Fitted:
    """Train a projector of the right space; the left one is the base, centred where the settings say so."""
    return _trained(left, right, settings, run, settings.centring)


def into(base: Parent, leaf: Parent, settings: Settings, run: Run) -> Map:
    """Carry a space into the coordinates of another, which stay as they are: its rows are not even centred."""
    return _trained(base, leaf, settings, run, False).right


def _trained(base: Parent, leaf: Parent, settings: Settings, run: Run, centred: bool) -> Fitted:
    if settings.width not in (None, base.width):
        raise ConfigError(
            f"width: the common space is the base, {base.width} wide, got {settings.width}. Leave it out."
        )
    kept, carried = enhanced(base, leaf, settings, run)
    kept = replace(kept, stays=True, centring=kept.centring if centred else None)
    return trained(kept, carried, replace(settings, width=base.width), run)
