"""The same server through clients as they are published: ADBC, Polars, pandas and pyarrow."""

import sys

import adbc_driver_flightsql.dbapi
import pandas
import polars
import pyarrow.flight

address = sys.argv[1]


def heading(text):
    print(f"\n-- {text}", flush=True)


with adbc_driver_flightsql.dbapi.connect(address) as connection:
    heading("ADBC, as an Arrow table")
    with connection.cursor() as cursor:
        cursor.execute("SELECT carrier, name FROM airlines ORDER BY carrier LIMIT 3")
        print(cursor.fetch_arrow_table().to_pylist())

    heading("Polars")
    sql = "SELECT origin, count(*) AS flights, avg(dep_delay) AS delay FROM flights GROUP BY origin ORDER BY origin"
    print(polars.read_database(sql, connection))

    heading("pandas")
    sql = "SELECT month(flight_date) AS month, count(*) AS flights FROM flights GROUP BY ALL ORDER BY ALL LIMIT 3"
    print(pandas.read_sql(sql, connection))


def protobuf(field, content):
    """A length-delimited protobuf field."""
    length, size = bytearray(), len(content)
    while size > 0x7F:
        length.append(size & 0x7F | 0x80)
        size >>= 7
    return bytes([field << 3 | 2]) + bytes(length) + bytes([size]) + content


def statement(sql):
    """The Flight SQL command that pyarrow, which knows plain Flight, has no word for."""
    url = b"type.googleapis.com/arrow.flight.protocol.sql.CommandStatementQuery"
    return pyarrow.flight.FlightDescriptor.for_command(protobuf(1, url) + protobuf(2, protobuf(1, sql.encode())))


heading("pyarrow.flight, and where the plan is")
with pyarrow.flight.connect(address.replace("grpc://", "grpc+tcp://")) as client:
    info = client.get_flight_info(statement("SELECT dest, count(*) AS flights FROM flights GROUP BY ALL ORDER BY ALL LIMIT 3"))
    print(client.do_get(info.endpoints[0].ticket).read_all().to_pylist())
    print(info.app_metadata[:100], "…")
