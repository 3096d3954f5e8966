"""A client of the application in this process."""

from starlette.testclient import TestClient

from cmcr.web.app import create_app


def client_of(served, hosts=()):
    return TestClient(create_app(served, hosts), base_url="http://localhost:8000")
