"""Unmodified Python clients against a running server.

The server holds `things` and `golden` (tests/src/client_data.rs), and `everything`, random rows of an entity with a column of
every type and encoding.
"""

import datetime
import decimal
import json
import sys
import threading
import uuid

import adbc_driver_flightsql.dbapi
import adbc_driver_manager
import duckdb
import pandas
import polars
import pyarrow
import pyarrow.flight
import pytest
import sqlalchemy

COLUMNS = ["row_id", "name", "n", "note", "size_cm", "created_at", "updated_at"]
UTC = pyarrow.timestamp("us", tz="UTC")
HEADER = "adbc.flight.sql.rpc.call_header.x-thermocline-"

# Rows of the client matrix.
FLIGHT = "pyarrow.flight"
ADBC = "ADBC (Python DBAPI)"
ADBC_LOW = "ADBC (Python, low level)"
POLARS = "Polars"
PANDAS = "pandas"
DUCKDB = "DuckDB, over ADBC"
SQLALCHEMY = "SQLAlchemy (sqlalchemy-adbc)"

cell = pytest.mark.cell

LEAP_MOMENT = datetime.datetime(2024, 2, 29, 12, 34, 56, 789_000, datetime.timezone.utc)
EPOCH = datetime.datetime(1970, 1, 1, tzinfo=datetime.timezone.utc)
# The ordinary and the extreme row of `golden`; the third has NULLs.
GOLDEN = {
    "n": [1, 2, 3],
    "a_text": ["it's", "日本語😀", None],
    "a_smallint": [7, -(2**15), None],
    "a_integer": [42, -(2**31), None],
    "a_bigint": [9_007_199_254_740_993, -(2**63), None],
    "a_double": [1.5, -sys.float_info.max, None],
    "a_decimal": [decimal.Decimal("1234567.89"), decimal.Decimal("-9999999.99"), None],
    "a_boolean": [True, False, None],
    "a_uuid": ["01234567-89ab-cdef-0123-456789abcdef", "ffffffff-ffff-ffff-ffff-ffffffffffff", None],
    "a_date": [datetime.date(2024, 2, 29), datetime.date(1900, 1, 1), None],
    "a_timestamp": [LEAP_MOMENT, EPOCH - datetime.timedelta(milliseconds=1), None],
    "a_json": ['{"a":1}', "null", None],
    "texts": [["x", None, "it's"], None, None],
    "integers": [[1, None, -3], None, None],
    "doubles": [[0.5], None, None],
    "booleans": [[True, False], None, None],
    "dates": [[datetime.date(2024, 2, 29), datetime.date(1970, 1, 1)], None, None],
    "timestamps": [[LEAP_MOMENT, EPOCH], None, None],
    "decimals": [[decimal.Decimal("1.50"), decimal.Decimal("-0.01")], None, None],
}
GOLDEN_SQL = f"SELECT {', '.join(GOLDEN)} FROM golden ORDER BY n"
ENDLESS = "SELECT range AS i FROM range(100000000000)"


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


def fields(message):
    """The length-delimited fields of a protobuf message; it has no others."""
    found = {}
    while message:
        tag, message = message[0], message[1:]
        assert tag & 7 == 2, "not length-delimited"
        length = shift = 0
        while True:
            byte, message = message[0], message[1:]
            length |= (byte & 0x7F) << shift
            shift += 7
            if byte < 0x80:
                break
        found[tag >> 3], message = message[:length], message[length:]
    return found


def any_of(name, message):
    """A Flight SQL message, packed as google.protobuf.Any."""
    return field(1, f"type.googleapis.com/arrow.flight.protocol.sql.{name}".encode()) + field(2, message)


def command(name, message):
    return pyarrow.flight.FlightDescriptor.for_command(any_of(name, message))


def statement(sql):
    return command("CommandStatementQuery", field(1, sql.encode()))


def read(client, descriptor, options=None):
    options = options or pyarrow.flight.FlightCallOptions()
    info = client.get_flight_info(descriptor, options)
    return client.do_get(info.endpoints[0].ticket, options).read_all()


# pyarrow.flight: raw Flight SQL


@cell(FLIGHT, "connect")
@cell(FLIGHT, "query")
def test_flight_reads_a_statement(flight):
    table = read(flight, statement("SELECT name, count(*) AS c FROM things GROUP BY name ORDER BY name"))
    assert table.to_pydict() == {"name": ["base", "delta", "it's hot"], "c": [90, 15, 15]}


@cell(FLIGHT, "query")
def test_flight_info_promises_the_schema_that_comes(flight):
    info = flight.get_flight_info(statement("SELECT * FROM things"))
    assert info.schema.names == COLUMNS
    table = flight.do_get(info.endpoints[0].ticket).read_all()
    assert table.schema.equals(info.schema)
    assert table.num_rows == 120
    assert flight.get_schema(statement("SELECT * FROM things")).schema.equals(info.schema)


@cell(FLIGHT, "query")
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


@cell(FLIGHT, "options")
def test_flight_options_travel_as_headers(flight):
    options = pyarrow.flight.FlightCallOptions(headers=[(b"x-thermocline-tiers", b"hot")])
    table = read(flight, statement("SELECT name FROM things"), options)
    assert table["name"].to_pylist() == ["it's hot"] * 15
    options = pyarrow.flight.FlightCallOptions(headers=[(b"x-thermocline-tiers", b"lukewarm")])
    with pytest.raises(pyarrow.ArrowInvalid, match="tiers"):
        read(flight, statement("SELECT name FROM things"), options)


@cell(FLIGHT, "query")
def test_flight_errors_have_kinds(flight):
    with pytest.raises(pyarrow.ArrowInvalid, match="nam"):
        flight.get_flight_info(statement("SELECT nam FROM things"))
    with pytest.raises(pyarrow.ArrowKeyError, match="nothing"):
        flight.get_flight_info(statement("SELECT * FROM nothing"))
    with pytest.raises(pyarrow.ArrowInvalid, match="read_csv"):
        flight.get_flight_info(statement("SELECT * FROM read_csv('/etc/passwd')"))


@cell(FLIGHT, "metadata")
def test_flight_metadata(flight):
    assert read(flight, command("CommandGetCatalogs", b"")).to_pydict() == {"catalog_name": ["thermocline"]}
    tables = read(flight, command("CommandGetTables", b""))
    assert set(tables["table_name"].to_pylist()) >= {"things", "everything"}
    assert read(flight, command("CommandGetTableTypes", b"")).num_rows >= 1


@cell(FLIGHT, "types")
def test_flight_reads_golden_values(flight):
    assert read(flight, statement(GOLDEN_SQL)).to_pydict() == GOLDEN


def bind(flight, sql, row):
    """By hand: prepare, and bind by DoPut. Gives the handle that DoPut gave."""

    def handle_of(message):
        # The first field of the message inside the Any, or of the bare message.
        return fields(message)[1]

    body = any_of("ActionCreatePreparedStatementRequest", field(1, sql.encode()))
    [result] = flight.do_action(pyarrow.flight.Action("CreatePreparedStatement", body))
    handle = handle_of(fields(result.body.to_pybytes())[2])
    writer, reader = flight.do_put(command("CommandPreparedStatementQuery", field(1, handle)), row.schema)
    writer.write_batch(row)
    writer.done_writing()
    bound = handle_of(reader.read().to_pybytes())
    writer.close()
    return bound


@cell(FLIGHT, "parameters")
def test_flight_binds_parameters(flight):
    bound = bind(flight, "SELECT n FROM golden WHERE a_text = ?", pyarrow.record_batch({"v": ["it's"]}))
    assert read(flight, command("CommandPreparedStatementQuery", field(1, bound))).to_pydict() == {"n": [1]}
    body = any_of("ActionClosePreparedStatementRequest", field(1, bound))
    assert list(flight.do_action(pyarrow.flight.Action("ClosePreparedStatement", body))) == []


# An id in each form that clients have for it.
ID = uuid.UUID("01900000-0000-7000-8000-000000000001")
OTHER_ID = uuid.UUID(int=7)
ONE_ID = {
    "arrow.uuid": pyarrow.array([ID], pyarrow.uuid()),
    "16 bytes": pyarrow.array([ID.bytes], pyarrow.binary(16)),
    "bytes": pyarrow.array([ID.bytes], pyarrow.binary()),
    "text": pyarrow.array([str(ID)]),
    "capitals": pyarrow.array([str(ID).upper()]),
}
BY_ID = ["row_id = ?", "? = row_id", "row_id IN (?)", "row_id BETWEEN ? AND '01900000-0000-7000-8000-000000000001'"]
BY_IDS = ["row_id = ANY(?)", "list_contains(?, row_id)", "row_id IN (SELECT unnest(?))"]


@cell(FLIGHT, "parameters")
@pytest.mark.parametrize("form", ONE_ID)
def test_flight_binds_ids(flight, form):
    one = ONE_ID[form]
    other = {pyarrow.string(): str(OTHER_ID), pyarrow.uuid(): OTHER_ID}.get(one.type, OTHER_ID.bytes)
    both = pyarrow.array([other, one[0].as_py()], one.type)
    lists = [
        pyarrow.ListArray.from_arrays([0, 2], both),
        pyarrow.LargeListArray.from_arrays([0, 2], both),
        pyarrow.FixedSizeListArray.from_arrays(both, 2),
    ]
    for condition, value in [(c, one) for c in BY_ID] + [(c, many) for c in BY_IDS for many in lists]:
        row = pyarrow.record_batch({"v": value})
        bound = bind(flight, f"SELECT n FROM golden WHERE {condition}", row)
        found = read(flight, command("CommandPreparedStatementQuery", field(1, bound)))
        assert found.to_pydict() == {"n": [1]}, (condition, value.type)


@cell(FLIGHT, "query")
def test_flight_gets_no_batch_without_rows(flight):
    """What loops over batches and takes the first row of each mustn't fall over the last one."""
    for sql in ("SELECT 1 AS x", "SELECT name, n FROM things", "SELECT range AS i FROM range(300000)"):
        info = flight.get_flight_info(statement(sql))
        batches = [chunk.data for chunk in flight.do_get(info.endpoints[0].ticket)]
        assert all(batch.num_rows > 0 for batch in batches[:-1])
    [empty] = flight.do_get(flight.get_flight_info(statement("SELECT n FROM things WHERE n < -1")).endpoints[0].ticket)
    assert empty.data.num_rows == 0 and json.loads(empty.app_metadata.to_pybytes())["execution"]["rows"] == 0


@cell(FLIGHT, "cancel")
def test_flight_cancels(flight):
    info = flight.get_flight_info(statement(ENDLESS))
    reader = flight.do_get(info.endpoints[0].ticket)
    reader.read_chunk()
    reader.cancel()
    with pytest.raises(pyarrow.ArrowCancelled):
        while True:
            reader.read_chunk()
    assert read(flight, statement("SELECT 1 AS x")).to_pydict() == {"x": [1]}


# ADBC


@cell(ADBC, "connect")
@cell(ADBC, "query")
def test_adbc_fetches_arrow(adbc):
    with adbc.cursor() as cursor:
        cursor.execute("SELECT * FROM things")
        table = cursor.fetch_arrow_table()
    assert table.schema.names == COLUMNS
    assert table.num_rows == 120
    assert table.schema.field("created_at").type == UTC
    ids = [uuid.UUID(text) for text in table["row_id"].to_pylist()]
    assert len(set(ids)) == 120


@cell(ADBC, "query")
def test_adbc_fetches_rows(adbc):
    with adbc.cursor() as cursor:
        cursor.execute("SELECT name, n, size_cm, updated_at FROM things WHERE name = 'it''s hot' ORDER BY row_id LIMIT 1")
        assert [column[0] for column in cursor.description] == ["name", "n", "size_cm", "updated_at"]
        moment = datetime.datetime(1970, 1, 1, 0, 0, 0, 30_000, tzinfo=datetime.timezone.utc)
        assert cursor.fetchall() == [("it's hot", 3, 3.0, moment)]


@cell(ADBC, "query")
def test_adbc_reads_empty_results(adbc):
    with adbc.cursor() as cursor:
        cursor.execute("SELECT * FROM things WHERE n > 1000")
        table = cursor.fetch_arrow_table()
    assert table.num_rows == 0
    assert table.schema.names == COLUMNS


@cell(ADBC, "query")
def test_adbc_streams_many_batches(adbc):
    with adbc.cursor() as cursor:
        cursor.execute("SELECT range AS i, repeat('x', 50) AS t FROM range(300000)")
        total = sum(batch.num_rows for batch in cursor.fetch_record_batch())
    assert total == 300_000


@cell(ADBC, "metadata")
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


@cell(ADBC, "options")
def test_adbc_sends_options(endpoint):
    with adbc_driver_flightsql.dbapi.connect(endpoint, db_kwargs={HEADER + "tiers": "warm"}) as connection:
        with connection.cursor() as cursor:
            cursor.execute("SELECT count(*) FROM things")
            assert cursor.fetchone() == (20,)


@cell(ADBC, "query")
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


@cell(ADBC, "types")
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


@cell(ADBC, "types")
def test_adbc_reads_golden_values(adbc):
    with adbc.cursor() as cursor:
        cursor.execute(GOLDEN_SQL)
        assert cursor.fetch_arrow_table().to_pydict() == GOLDEN
        cursor.execute(GOLDEN_SQL)
        assert cursor.fetchall() == list(zip(*GOLDEN.values()))


@cell(ADBC, "parameters")
@pytest.mark.parametrize("column", [name for name in GOLDEN if name.startswith("a_")])
def test_adbc_binds_values_of_each_type(adbc, column):
    with adbc.cursor() as cursor:
        for row in (0, 1):
            cursor.execute(f"SELECT n FROM golden WHERE {column} = ?", (GOLDEN[column][row],))
            assert cursor.fetchall() == [(row + 1,)]
        cursor.execute(f"SELECT n FROM golden WHERE {column} IS NOT DISTINCT FROM ?", (None,))
        assert cursor.fetchall() == [(3,)]


@cell(ADBC, "parameters")
@pytest.mark.parametrize("form", ["uuid", "bytes", "text"])
def test_adbc_binds_ids(adbc, form):
    write = {"uuid": lambda id: id, "bytes": lambda id: id.bytes, "text": str}[form]
    with adbc.cursor() as cursor:
        for condition in BY_ID:
            cursor.execute(f"SELECT n FROM golden WHERE {condition}", (write(ID),))
            assert cursor.fetchall() == [(1,)], condition
        ids = ([write(OTHER_ID), write(ID)],)
        if form == "uuid":
            # pyarrow makes no array of lists of them by itself.
            both = pyarrow.array([OTHER_ID, ID], pyarrow.uuid())
            ids = pyarrow.record_batch({"ids": pyarrow.ListArray.from_arrays([0, 2], both)})
        for condition in BY_IDS:
            cursor.execute(f"SELECT n FROM golden WHERE {condition}", ids)
            assert cursor.fetchall() == [(1,)], condition
        cursor.execute("SELECT n FROM golden WHERE a_uuid = ?", (write(uuid.UUID(GOLDEN["a_uuid"][0])),))
        assert cursor.fetchall() == [(1,)]


@cell(ADBC, "parameters")
def test_adbc_binds_lists_and_what_has_no_type_yet(adbc):
    with adbc.cursor() as cursor:
        cursor.execute("SELECT n FROM golden WHERE list_contains(?, a_integer)", ([41, 42],))
        assert cursor.fetchall() == [(1,)]
        cursor.execute("SELECT $1 AS a, $2 AS b", (1, "x"))
        assert cursor.fetchall() == [(1, "x")]
        with pytest.raises(adbc_driver_manager.ProgrammingError, match="1 value"):
            cursor.execute("SELECT ? + ?", (1,))


@cell(ADBC, "cancel")
def test_adbc_cancels(adbc):
    with adbc.cursor() as cursor:
        cursor.execute(ENDLESS)
        reader = cursor.fetch_record_batch()
        reader.read_next_batch()
        cancelling = threading.Thread(target=cursor.adbc_cancel)
        cancelling.start()
        with pytest.raises((adbc_driver_manager.Error, pyarrow.ArrowException, OSError)):
            while True:
                reader.read_next_batch()
        cancelling.join()
    with adbc.cursor() as cursor:
        cursor.execute("SELECT 1")
        assert cursor.fetchone() == (1,)


@cell(ADBC, "metadata")
@pytest.mark.parametrize("depth", ["catalogs", "db_schemas", "tables", "all"])
def test_adbc_describes_objects_at_each_depth(adbc, depth):
    found = adbc.adbc_get_objects(depth=depth, catalog_filter="thermocline", db_schema_filter="main").read_all().to_pylist()
    assert [entry["catalog_name"] for entry in found] == ["thermocline"]
    schemas = found[0]["catalog_db_schemas"]
    if depth == "catalogs":
        assert schemas is None
        return
    assert [schema["db_schema_name"] for schema in schemas] == ["main"]
    tables = schemas[0]["db_schema_tables"]
    if depth == "db_schemas":
        assert tables is None
        return
    assert {table["table_name"] for table in tables} == {"things", "golden", "everything"}
    columns = {table["table_name"]: table["table_columns"] for table in tables}
    if depth == "tables":
        assert set(map(str, columns.values())) == {"None"}
    else:
        assert [column["column_name"] for column in columns["things"]] == COLUMNS
        assert [column["ordinal_position"] for column in columns["things"]] == list(range(1, 8))
    named = adbc.adbc_get_objects(depth=depth, table_name_filter="thin_s").read_all().to_pylist()
    assert [table["table_name"] for entry in named for schema in entry["catalog_db_schemas"] for table in schema["db_schema_tables"]] == ["things"]


@pytest.fixture
def low(endpoint):
    with adbc_driver_flightsql.connect(endpoint) as database:
        with adbc_driver_manager.AdbcConnection(database) as connection:
            yield connection


def schema_of(handle):
    return pyarrow.Schema._import_from_c(handle.address)


def table_of(stream):
    return pyarrow.RecordBatchReader._import_from_c(stream.address).read_all()


@cell(ADBC_LOW, "connect")
@cell(ADBC_LOW, "query")
@cell(ADBC_LOW, "types")
def test_adbc_statements_run(low):
    with adbc_driver_manager.AdbcStatement(low) as statement:
        statement.set_sql_query(GOLDEN_SQL)
        stream, _ = statement.execute_query()
        assert table_of(stream).to_pydict() == GOLDEN


@cell(ADBC_LOW, "query", says="yes, also in partitions")
def test_adbc_statements_run_in_partitions(low):
    with adbc_driver_manager.AdbcStatement(low) as statement:
        statement.set_sql_query("SELECT name FROM things")
        partitions, schema, _ = statement.execute_partitions()
        assert schema_of(schema).names == ["name"]
        assert sum(table_of(low.read_partition(partition)).num_rows for partition in partitions) == 120


@cell(ADBC_LOW, "parameters")
def test_adbc_statements_tell_and_take_parameters(low):
    with adbc_driver_manager.AdbcStatement(low) as statement:
        statement.set_sql_query("SELECT n FROM golden WHERE a_integer = ? AND a_text = ?")
        statement.prepare()
        schema = schema_of(statement.get_parameter_schema())
        assert schema.types == [pyarrow.int32(), pyarrow.string()]
        for values, expected in [((42, "it's"), [1]), ((42, "other"), []), ((None, "it's"), [])]:
            row = pyarrow.RecordBatch.from_arrays([pyarrow.array([value], type) for value, type in zip(values, schema.types)], schema=schema)
            array, exported = adbc_driver_manager.ArrowArrayHandle(), adbc_driver_manager.ArrowSchemaHandle()
            row._export_to_c(array.address, exported.address)
            statement.bind(array, exported)
            stream, _ = statement.execute_query()
            assert table_of(stream)["n"].to_pylist() == expected


@cell(ADBC_LOW, "metadata")
def test_adbc_connections_describe_tables(low):
    schema = schema_of(low.get_table_schema("thermocline", "main", "things"))
    assert schema.names == COLUMNS
    with pytest.raises(adbc_driver_manager.Error, match="No table found"):
        low.get_table_schema(None, None, "nothing")
    assert table_of(low.get_table_types())["table_type"].to_pylist() == ["TABLE"]
    assert table_of(low.get_info()).num_rows > 3


@cell(ADBC_LOW, "options")
def test_adbc_statements_have_options_of_their_own(low):
    with adbc_driver_manager.AdbcStatement(low) as statement:
        statement.set_options(**{HEADER + "tiers": "hot"})
        statement.set_sql_query("SELECT count(*) AS c FROM things")
        stream, _ = statement.execute_query()
        assert table_of(stream)["c"].to_pylist() == [15]


@cell(ADBC_LOW, "cancel")
def test_adbc_statements_cancel(low):
    with adbc_driver_manager.AdbcStatement(low) as statement:
        statement.set_sql_query(ENDLESS)
        stream, _ = statement.execute_query()
        reader = pyarrow.RecordBatchReader._import_from_c(stream.address)
        reader.read_next_batch()
        statement.cancel()
        with pytest.raises((pyarrow.ArrowException, OSError)):
            while True:
                reader.read_next_batch()


# DuckDB, pandas, Polars and SQLAlchemy, all of which ride on ADBC


@cell(DUCKDB, "connect", says="through ADBC's reader: no extension package speaks Flight SQL")
@cell(DUCKDB, "query")
@cell(DUCKDB, "types")
@cell(DUCKDB, "parameters")
def test_duckdb_queries_a_result_as_it_streams(adbc):
    with adbc.cursor() as cursor:
        cursor.execute("SELECT name, n FROM things WHERE n >= ?", (2,))
        reader = cursor.fetch_record_batch()
        found = duckdb.sql("SELECT name, sum(n) AS s FROM reader GROUP BY name ORDER BY name").fetchall()
        assert found == [("delta", 30), ("it's hot", 45)]
        cursor.execute(GOLDEN_SQL)
        reader = cursor.fetch_record_batch()
        local = duckdb.connect()
        local.execute("SET TimeZone = 'UTC'")
        table = local.sql("SELECT * FROM reader ORDER BY n").to_arrow_table()
        assert table.drop_columns(["a_uuid"]).to_pydict() == {name: values for name, values in GOLDEN.items() if name != "a_uuid"}


@cell(POLARS, "types")
def test_polars_reads_golden_values(adbc):
    frame = polars.read_database(GOLDEN_SQL, adbc)
    assert frame.to_dict(as_series=False) == GOLDEN


@cell(POLARS, "parameters")
def test_polars_binds_parameters(adbc):
    options = {"parameters": ["it's"]}
    assert polars.read_database("SELECT n FROM golden WHERE a_text = ?", adbc, execute_options=options)["n"].to_list() == [1]


@cell(POLARS, "options", says="yes, of its connection")
def test_polars_has_the_options_of_its_connection(endpoint):
    with adbc_driver_flightsql.dbapi.connect(endpoint, db_kwargs={HEADER + "tiers": "hot"}) as connection:
        assert polars.read_database("SELECT name FROM things", connection).height == 15


@cell(PANDAS, "types")
def test_pandas_reads_golden_values(adbc):
    frame = pandas.read_sql(GOLDEN_SQL, adbc, dtype_backend="pyarrow")
    assert pyarrow.Table.from_pandas(frame).to_pydict() == GOLDEN


@cell(PANDAS, "parameters", says="pandas passes none to ADBC")
def test_pandas_binds_no_parameters(adbc):
    with pytest.raises(NotImplementedError, match="params"):
        pandas.read_sql("SELECT n FROM golden WHERE a_integer = ?", adbc, params=(42,))


@cell(PANDAS, "metadata", says="`read_sql_table`")
def test_pandas_reads_a_table_by_name(adbc):
    assert len(pandas.read_sql_table("things", adbc)) == 120


@cell(PANDAS, "options", says="yes, of its connection")
def test_pandas_has_the_options_of_its_connection(endpoint):
    with adbc_driver_flightsql.dbapi.connect(endpoint, db_kwargs={HEADER + "tiers": "hot"}) as connection:
        assert len(pandas.read_sql("SELECT name FROM things", connection)) == 15


@pytest.fixture
def engine(endpoint):
    engine = sqlalchemy.create_engine(endpoint.replace("grpc://", "adbc+flightsql://") + "/?tls=false")
    yield engine
    engine.dispose()


@cell(SQLALCHEMY, "connect")
@cell(SQLALCHEMY, "query")
@cell(SQLALCHEMY, "parameters")
@cell(SQLALCHEMY, "types", says="all but lists")
def test_sqlalchemy_queries(engine):
    with engine.connect() as connection:
        rows = connection.execute(sqlalchemy.text("SELECT count(*) FROM things WHERE n = :n"), {"n": 3}).fetchall()
        assert rows == [(15,)]
        scalars = [name for name in GOLDEN if name == "n" or name.startswith("a_")]
        query = sqlalchemy.select(*map(sqlalchemy.column, scalars)).select_from(sqlalchemy.table("golden")).order_by(sqlalchemy.column("n"))
        assert connection.execute(query).fetchall() == list(zip(*[GOLDEN[name] for name in scalars]))


@cell(SQLALCHEMY, "metadata", says="columns of a table; the dialect lists only tables of the type `table`, and needs `TABLE` to count too")
def test_sqlalchemy_reflects_columns(engine):
    inspector = sqlalchemy.inspect(engine)
    assert inspector.get_schema_names() == ["main"]
    assert [column["name"] for column in inspector.get_columns("things")] == COLUMNS
    assert inspector.get_table_names() == []
    things = sqlalchemy.Table("things", sqlalchemy.MetaData(), autoload_with=engine)
    with engine.connect() as connection:
        found = connection.execute(sqlalchemy.select(things.c.name).where(things.c.n == 3).distinct()).fetchall()
    assert found == [("it's hot",)]


@cell(SQLALCHEMY, "options", says="`header.x-thermocline-…` in the URL")
def test_sqlalchemy_sends_options(endpoint):
    url = endpoint.replace("grpc://", "adbc+flightsql://") + "/?tls=false&header.x-thermocline-tiers=hot"
    engine = sqlalchemy.create_engine(url)
    with engine.connect() as connection:
        assert connection.execute(sqlalchemy.text("SELECT count(*) FROM things")).scalar() == 15
    engine.dispose()


@cell(POLARS, "connect")
@cell(POLARS, "query")
def test_polars_reads_through_a_connection(adbc):
    frame = polars.read_database("SELECT name, n, created_at FROM things", adbc)
    assert frame.shape == (120, 3)
    assert frame["n"].sum() == 90 + 30 + 45
    assert frame.schema["created_at"] == polars.Datetime("us", "UTC")


@cell(POLARS, "types")
def test_polars_reads_every_type(adbc):
    frame = polars.read_database("SELECT * FROM everything", adbc)
    assert frame.height > 0


@cell(POLARS, "connect")
def test_polars_reads_a_uri(endpoint):
    # Polars takes the driver's name from the scheme; the driver takes TLS for granted under this one.
    uri = endpoint.replace("grpc://", "flightsql://") + "?transport=tcp"
    frame = polars.read_database_uri("SELECT count(*) AS c FROM things", uri, engine="adbc")
    assert frame["c"].to_list() == [120]


@cell(PANDAS, "connect")
@cell(PANDAS, "query")
def test_pandas_reads_through_a_connection(adbc):
    frame = pandas.read_sql("SELECT name, n FROM things ORDER BY row_id", adbc)
    assert list(frame.columns) == ["name", "n"]
    assert len(frame) == 120
    assert frame["n"].sum() == 165
    empty = pandas.read_sql("SELECT * FROM things WHERE n > 1000", adbc)
    assert list(empty.columns) == COLUMNS
