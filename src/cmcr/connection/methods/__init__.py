"""The methods by name: each is a file that finds two maps from unpaired rows, with settings of its own."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from dataclasses import asdict, fields
from typing import Any

from pydantic import ValidationError

from cmcr.connection.methods import (
    auto,
    c_mcr,
    cca,
    clipclap,
    concepts,
    distilled,
    ex_mcr,
    linear,
    mixed,
    posterior,
    residual,
)
from cmcr.connection.methods.fitting import Method
from cmcr.connection.settings import CLAP_CLIP_SHAPE, PUBLISHED, ULIP_CLIP_SHAPE, MethodSettings, Settings
from cmcr.errors import ConfigError, unknown_name, validation_problems

METHODS: dict[str, Method] = {
    "auto": Method(auto.AutoSettings, auto.fit, into=auto.into),
    "c-mcr": Method(Settings, c_mcr.fit),
    "c-mcr-published": Method(Settings, c_mcr.fit, {**PUBLISHED, **asdict(CLAP_CLIP_SHAPE)}),
    "c-mcr-published-ulip": Method(Settings, c_mcr.fit, {**PUBLISHED, **asdict(ULIP_CLIP_SHAPE)}),
    "ridge": Method(linear.RidgeSettings, linear.ridge, into=linear.ridge_into),
    "procrustes": Method(MethodSettings, linear.procrustes, into=linear.procrustes_into),
    "c-mcr-residual": Method(residual.ResidualSettings, residual.fit),
    "distilled": Method(distilled.DistilledSettings, distilled.fit),
    "cca": Method(cca.CorrelationSettings, cca.fit),
    "mixed": Method(mixed.MixedSettings, mixed.fit),
    "ex-mcr": Method(Settings, ex_mcr.fit, into=ex_mcr.into),
    "posterior": Method(posterior.PosteriorSettings, posterior.fit, into=posterior.into),
    "concepts": Method(concepts.ConceptSettings, concepts.fit, into=concepts.into),
    "clipclap-text": Method(clipclap.TextSettings, clipclap.fit_text, into=clipclap.text_into),
    "clipclap": Method(clipclap.PairSettings, clipclap.fit_pairs, into=clipclap.pairs_into),
}


def settings_of(method: str, /, **changes: Any) -> Any:
    """Look up a method's settings and change some of them.

    Args:
        method: one of `METHODS`.
        **changes: attributes of the method's settings.

    Raises:
        ConfigError: an unknown method or setting (all of them named, each with a method that has it or the nearest valid
            one), or a value out of range.
    """
    if not isinstance(method, str) or method not in METHODS:
        raise unknown_name("method", method, METHODS)
    found = METHODS[method]
    known = [field.name for field in fields(found.settings)]
    wrong = [name for name in changes if name not in known]
    if wrong:
        raise ConfigError(
            f"unknown settings of method {method!r}: {', '.join(_with_nearest(n, known) for n in wrong)}. Known: "
            f"{', '.join(known)}."
        )
    return settings_from(method, {**found.changes, **changes})


def settings_from(method: str, values: Mapping[str, Any]) -> Any:
    """Make the settings of a method of all their values.

    Raises:
        ConfigError: an unknown method, or a value out of range.
    """
    if method not in METHODS:
        raise unknown_name("method", method, METHODS)
    try:
        return METHODS[method].settings(**values)
    except ValidationError as error:
        raise ConfigError(f"settings: {validation_problems(error)}.") from error


def _with_nearest(name: str, known: list[str]) -> str:
    for method, other in METHODS.items():
        if name in (field.name for field in fields(other.settings)):
            return f"{name!r} (it is one of {method!r}: pass method={method!r})"
    near = difflib.get_close_matches(name, known, n=1, cutoff=0.4)
    return f"{name!r} (did you mean {near[0]!r}?)" if near else repr(name)
