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
    "auto": Method(auto.AutoSettings, auto.fit, "chooses one of the others without a pair", into=auto.into),
    "c-mcr": Method(Settings, c_mcr.fit, "two trained projectors: the paper, with the best of what it leaves open"),
    "c-mcr-published": Method(
        Settings, c_mcr.fit, "the paper as published, CLAP-CLIP projectors", {**PUBLISHED, **asdict(CLAP_CLIP_SHAPE)}
    ),
    "c-mcr-published-ulip": Method(
        Settings, c_mcr.fit, "the paper as published, ULIP-CLIP projectors", {**PUBLISHED, **asdict(ULIP_CLIP_SHAPE)}
    ),
    "ridge": Method(linear.RidgeSettings, linear.ridge, "centred least squares, closed form", into=linear.ridge_into),
    "procrustes": Method(
        MethodSettings, linear.procrustes, "centred rotation, closed form", into=linear.procrustes_into
    ),
    "c-mcr-residual": Method(
        residual.ResidualSettings, residual.fit, "canonical correlations, corrected by trained projectors"
    ),
    "distilled": Method(
        distilled.DistilledSettings,
        distilled.fit,
        "the residual form that also learns what concepts say of the memories",
    ),
    "cca": Method(cca.CorrelationSettings, cca.fit, "centred canonical correlations: the best closed form"),
    "mixed": Method(mixed.MixedSettings, mixed.fit, "the distilled form and concepts side by side"),
    "ex-mcr": Method(Settings, ex_mcr.fit, "one trained projector into a space that stays as it is", into=ex_mcr.into),
    "posterior": Method(
        posterior.PosteriorSettings, posterior.fit, "which overlap item an item could be", into=posterior.into
    ),
    "concepts": Method(
        concepts.ConceptSettings, concepts.fit, "which concept of the overlap an item could be", into=concepts.into
    ),
    "clipclap-text": Method(
        clipclap.TextSettings,
        clipclap.fit_text,
        "baseline: one matrix by cosine of the overlap",
        into=clipclap.text_into,
    ),
    "clipclap": Method(
        clipclap.PairSettings, clipclap.fit_pairs, "baseline: one matrix by contrast", into=clipclap.pairs_into
    ),
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
