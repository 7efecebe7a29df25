"""The server under test, from THERMOCLINE_ENDPOINT (grpc://HOST:PORT)."""

import os

import adbc_driver_flightsql.dbapi
import pyarrow.flight
import pytest


@pytest.fixture(scope="session")
def endpoint():
    return os.environ["THERMOCLINE_ENDPOINT"]


@pytest.fixture
def flight(endpoint):
    with pyarrow.flight.connect(endpoint) as client:
        yield client


@pytest.fixture
def adbc(endpoint):
    with adbc_driver_flightsql.dbapi.connect(endpoint) as connection:
        yield connection
