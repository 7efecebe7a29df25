"""Thermocline from Python: connections, plans that draw themselves, and a server for notebooks and tests.

    import thermocline

    connection = thermocline.connect("grpc://127.0.0.1:32010", consistency="eventual")
    thermocline.plan(connection, "SELECT * FROM flights")
    with thermocline.start("thermocline.toml") as server: ...
"""

from ._connection import connect
from ._plan import Plan, plan
from ._server import Server, start

__all__ = ["Plan", "Server", "connect", "plan", "start"]
