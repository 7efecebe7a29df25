"""Connections are ADBC's own; only the query options are spelled here."""

_HEADER = "adbc.flight.sql.rpc.call_header.x-thermocline-"


def connect(url="grpc://127.0.0.1:32010", *, db_kwargs=None, **options):
    """An ADBC Flight SQL connection (DB-API 2.0) whose every query has these options.

    Options are those of `system.options`, such as `consistency="eventual"`, `tiers=["hot", "warm"]` or `max_rows=1000`.
    `db_kwargs` go to ADBC as they are, for TLS and logins.
    """
    try:
        import adbc_driver_flightsql.dbapi as flightsql
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError("connecting needs `pip install adbc-driver-flightsql pyarrow`") from error
    headers = {_HEADER + name.replace("_", "-"): _text(value) for name, value in options.items()}
    # Each query is a transaction of its own on the server: there is nothing to commit.
    return flightsql.connect(url, db_kwargs={**headers, **(db_kwargs or {})}, autocommit=True)


def _text(value):
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, (list, tuple)):
        return ",".join(map(_text, value))
    return str(value)
