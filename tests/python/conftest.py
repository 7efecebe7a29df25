"""The server under test, from THERMOCLINE_ENDPOINT (grpc://HOST:PORT), and what the tests find of each client.

A test marked `cell(client, capability)` stands for that cell of the client matrix: when all tests of a cell have passed,
`CELL client | capability: verdict` is printed. The verdict is `yes`, or the marker's `says`.
"""

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


def pytest_configure(config):
    config.addinivalue_line("markers", "cell(client, capability, says='yes'): the cell of the client matrix")
    config.cells = {}


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item, call):
    report = yield
    for marker in item.iter_markers("cell"):
        client, capability = marker.args
        cell = item.config.cells.setdefault((client, capability), {"passed": True, "says": []})
        cell["passed"] &= report.passed
        if says := marker.kwargs.get("says"):
            if says not in cell["says"]:
                cell["says"].append(says)
    return report


def pytest_terminal_summary(terminalreporter, config):
    for (client, capability), cell in config.cells.items():
        if cell["passed"]:
            terminalreporter.write_line(f"CELL {client} | {capability}: {'; '.join(cell['says']) or 'yes'}")
