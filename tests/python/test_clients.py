"""Unmodified Python clients against a running server.

The server holds `things` (row_id, name, n, note, size_cm, created_at, updated_at): 120 rows, 90 `base` from base files, 15
`delta` from delta files, 15 `it's hot` from PostgreSQL; and `everything`, an entity with a column of every type.
"""

import datetime
import decimal
import json
import uuid

import adbc_driver_flightsql.dbapi
import adbc_driver_manager
import pandas
import polars
import pyarrow
import pyarrow.flight
import pytest

COLUMNS = ["row_id", "name", "n", "note", "size_cm", "created_at", "updated_at"]
UTC = pyarrow.timestamp("us", tz="UTC")


def varint(number):
    encoded = bytearray()
    while number > 0x7F:
        encoded.append(number & 0x7F | 0x80)
        number >>= 7
    encoded.append(number)
    return bytes(encoded)


def field(number, content):
    """A length-delimited protobuf field."""
    return varint(number << 3 | 2) + varint(len(content)) + content


def command(name, message):
    """A Flight SQL command, packed as google.protobuf.Any."""
    url = f"type.googleapis.com/arrow.flight.protocol.sql.{name}".encode()
    return pyarrow.flight.FlightDescriptor.for_command(field(1, url) + field(2, message))


def statement(sql):
    return command("CommandStatementQuery", field(1, sql.encode()))


def read(client, descriptor, options=None):
    options = options or pyarrow.flight.FlightCallOptions()
    info = client.get_flight_info(descriptor, options)
    return client.do_get(info.endpoints[0].ticket, options).read_all()


# pyarrow.flight: raw Flight SQL


def test_flight_reads_a_statement(flight):
    table = read(flight, statement("SELECT name, count(*) AS c FROM things GROUP BY name ORDER BY name"))
    assert table.to_pydict() == {"name": ["base", "delta", "it's hot"], "c": [90, 15, 15]}


def test_flight_info_promises_the_schema_that_comes(flight):
    info = flight.get_flight_info(statement("SELECT * FROM things"))
    assert info.schema.names == COLUMNS
    table = flight.do_get(info.endpoints[0].ticket).read_all()
    assert table.schema.equals(info.schema)
    assert table.num_rows == 120
    assert flight.get_schema(statement("SELECT * FROM things")).schema.equals(info.schema)


def test_flight_info_carries_the_plan(flight):
    info = flight.get_flight_info(statement("SELECT name FROM things WHERE n = 3"))
    plan = json.loads(info.app_metadata)
    assert plan["version"] == 1
    assert plan["references"][0]["entity"] == "things"
    reader = flight.do_get(info.endpoints[0].ticket)
    last = None
    rows = 0
    while True:
        try:
            chunk = reader.read_chunk()
        except StopIteration:
            break
        rows += chunk.data.num_rows if chunk.data is not None else 0
        if chunk.app_metadata is not None:
            last = json.loads(chunk.app_metadata.to_pybytes())
    assert rows == 15
    assert last is not None and last["execution"]["rows"] == 15


def test_flight_options_travel_as_headers(flight):
    options = pyarrow.flight.FlightCallOptions(headers=[(b"x-thermocline-tiers", b"hot")])
    table = read(flight, statement("SELECT name FROM things"), options)
    assert table["name"].to_pylist() == ["it's hot"] * 15
    options = pyarrow.flight.FlightCallOptions(headers=[(b"x-thermocline-tiers", b"lukewarm")])
    with pytest.raises(pyarrow.ArrowInvalid, match="tiers"):
        read(flight, statement("SELECT name FROM things"), options)


def test_flight_errors_have_kinds(flight):
    with pytest.raises(pyarrow.ArrowInvalid, match="nam"):
        flight.get_flight_info(statement("SELECT nam FROM things"))
    with pytest.raises(pyarrow.ArrowKeyError, match="nothing"):
        flight.get_flight_info(statement("SELECT * FROM nothing"))
    with pytest.raises(pyarrow.ArrowInvalid, match="read_csv"):
        flight.get_flight_info(statement("SELECT * FROM read_csv('/etc/passwd')"))


def test_flight_metadata(flight):
    assert read(flight, command("CommandGetCatalogs", b"")).to_pydict() == {"catalog_name": ["thermocline"]}
    tables = read(flight, command("CommandGetTables", b""))
    assert set(tables["table_name"].to_pylist()) >= {"things", "everything"}
    assert read(flight, command("CommandGetTableTypes", b"")).num_rows >= 1


# ADBC


def test_adbc_fetches_arrow(adbc):
    with adbc.cursor() as cursor:
        cursor.execute("SELECT * FROM things")
        table = cursor.fetch_arrow_table()
    assert table.schema.names == COLUMNS
    assert table.num_rows == 120
    assert table.schema.field("created_at").type == UTC
    ids = [uuid.UUID(text) for text in table["row_id"].to_pylist()]
    assert len(set(ids)) == 120


def test_adbc_fetches_rows(adbc):
    with adbc.cursor() as cursor:
        cursor.execute("SELECT name, n, size_cm, updated_at FROM things WHERE name = 'it''s hot' ORDER BY row_id LIMIT 1")
        assert [column[0] for column in cursor.description] == ["name", "n", "size_cm", "updated_at"]
        moment = datetime.datetime(1970, 1, 1, 0, 0, 0, 30_000, tzinfo=datetime.timezone.utc)
        assert cursor.fetchall() == [("it's hot", 3, 3.0, moment)]


def test_adbc_reads_empty_results(adbc):
    with adbc.cursor() as cursor:
        cursor.execute("SELECT * FROM things WHERE n > 1000")
        table = cursor.fetch_arrow_table()
    assert table.num_rows == 0
    assert table.schema.names == COLUMNS


def test_adbc_streams_many_batches(adbc):
    with adbc.cursor() as cursor:
        cursor.execute("SELECT range AS i, repeat('x', 50) AS t FROM range(300000)")
        total = sum(batch.num_rows for batch in cursor.fetch_record_batch())
    assert total == 300_000


def test_adbc_describes_the_catalog(adbc):
    objects = adbc.adbc_get_objects(depth="all").read_all().to_pylist()
    catalog = next(entry for entry in objects if entry["catalog_name"] == "thermocline")
    schema = next(entry for entry in catalog["catalog_db_schemas"] if entry["db_schema_name"] == "main")
    tables = {table["table_name"]: table for table in schema["db_schema_tables"]}
    assert [column["column_name"] for column in tables["things"]["table_columns"]] == COLUMNS
    described = adbc.adbc_get_table_schema("things", db_schema_filter="main", catalog_filter="thermocline")
    assert described.names == COLUMNS
    assert "TABLE" in adbc.adbc_get_table_types()
    assert "thermocline" in adbc.adbc_get_info()["vendor_name"].lower()


def test_adbc_sends_options(endpoint):
    header = "adbc.flight.sql.rpc.call_header.x-thermocline-"
    with adbc_driver_flightsql.dbapi.connect(endpoint, db_kwargs={header + "tiers": "warm"}) as connection:
        with connection.cursor() as cursor:
            cursor.execute("SELECT count(*) FROM things")
            assert cursor.fetchone() == (20,)


def test_adbc_errors_have_kinds(adbc):
    with adbc.cursor() as cursor:
        with pytest.raises(adbc_driver_manager.Error, match="nothing") as refused:
            cursor.execute("SELECT * FROM nothing")
        assert refused.value.status_code == adbc_driver_manager.AdbcStatusCode.NOT_FOUND
        with pytest.raises(adbc_driver_manager.Error) as refused:
            cursor.execute("SELECT nam FROM things")
        assert refused.value.status_code == adbc_driver_manager.AdbcStatusCode.INVALID_ARGUMENT
        # The connection goes on.
        cursor.execute("SELECT 1")
        assert cursor.fetchone() == (1,)


def test_every_type_arrives_as_itself(adbc):
    with adbc.cursor() as cursor:
        cursor.execute("SELECT * FROM everything")
        table = cursor.fetch_arrow_table()
    types = {name: table.schema.field(name).type for name in table.schema.names}
    assert types["m_text"] == pyarrow.string()
    assert types["m_smallint"] == pyarrow.int16()
    assert types["m_integer"] == pyarrow.int32()
    assert types["m_bigint"] == pyarrow.int64()
    assert types["m_double"] == pyarrow.float64()
    assert types["m_decimal"] == pyarrow.decimal128(9, 2)
    assert types["m_boolean"] == pyarrow.bool_()
    assert types["m_uuid"] == pyarrow.string()
    assert types["m_date"] == pyarrow.date32()
    assert types["m_timestamp"] == UTC
    assert types["m_json"] == pyarrow.string()
    assert pyarrow.types.is_list(types["l_text"])
    values = [value for value in table["m_decimal"].to_pylist() if value is not None]
    assert values and all(isinstance(value, decimal.Decimal) for value in values)
    texts = table["m_text"].to_pylist()
    assert len([text for text in texts if text is not None]) > 5


# Polars and pandas


def test_polars_reads_through_a_connection(adbc):
    frame = polars.read_database("SELECT name, n, created_at FROM things", adbc)
    assert frame.shape == (120, 3)
    assert frame["n"].sum() == 90 + 30 + 45
    assert frame.schema["created_at"] == polars.Datetime("us", "UTC")


def test_polars_reads_every_type(adbc):
    frame = polars.read_database("SELECT * FROM everything", adbc)
    assert frame.height > 0


def test_polars_reads_a_uri(endpoint):
    # Polars takes the driver's name from the scheme; the driver takes TLS for granted under this one.
    uri = endpoint.replace("grpc://", "flightsql://") + "?transport=tcp"
    frame = polars.read_database_uri("SELECT count(*) AS c FROM things", uri, engine="adbc")
    assert frame["c"].to_list() == [120]


def test_pandas_reads_through_a_connection(adbc):
    frame = pandas.read_sql("SELECT name, n FROM things ORDER BY row_id", adbc)
    assert list(frame.columns) == ["name", "n"]
    assert len(frame) == 120
    assert frame["n"].sum() == 165
    empty = pandas.read_sql("SELECT * FROM things WHERE n > 1000", adbc)
    assert list(empty.columns) == COLUMNS
