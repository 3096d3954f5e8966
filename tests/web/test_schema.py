"""The API, fuzzed from its own OpenAPI document: no mistake of the server, and no answer that is not documented."""

import os

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from schemathesis.checks import not_a_server_error
from schemathesis.generation import GenerationMode
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from cmcr.web.app import create_app
from cmcr.web.served import Served

EXAMPLES = int(os.environ.get("CMCR_FUZZ_EXAMPLES", "6"))  # of each route and kind; more for a longer run by hand
HERE = {"host": "localhost"}
CHECKS = [not_a_server_error, status_code_conformance, content_type_conformance, response_schema_conformance]
ROUTES = 11


@pytest.fixture(scope="module")
def routes(index):
    served = Served(lambda earlier: index)
    served.close = lambda: None  # the client of schemathesis starts and stops the application around every request
    schema = schemathesis.openapi.from_asgi("/openapi.json", create_app(served), headers=HERE)
    return [found.ok() for found in schema.get_all_operations()]


@pytest.mark.parametrize("number", range(ROUTES))
def test_the_api_keeps_to_its_document(routes, number):
    assert len(routes) == ROUTES
    route = routes[number]
    takes_something = route.body or route.query or route.path_parameters
    for mode in [GenerationMode.POSITIVE, *([GenerationMode.NEGATIVE] if takes_something else [])]:

        @given(case=route.as_strategy(generation_mode=mode))
        @settings(max_examples=EXAMPLES, phases=[Phase.generate], suppress_health_check=list(HealthCheck))
        def holds(case):
            case.call_and_validate(checks=CHECKS, headers=HERE)

        holds()
