"""Spark's JDBC source with the Flight SQL JDBC driver against a server that holds `things` and `golden`.

Arguments: HOST:PORT of the server, the driver's jar. Prints `CELL capability: verdict` once a capability has passed.
"""

import datetime
import decimal
import os
import sys

from py4j.protocol import Py4JJavaError
from pyspark.sql import SparkSession, functions

# The driver reads Arrow's buffers through a module that Java closes by default.
OPENED = "--add-opens=java.base/java.nio=ALL-UNNAMED"
# Spark's JDBC source knows no timestamps with a zone: every such column is cast to one without, which reads as UTC.
THINGS = (
    "(SELECT * REPLACE (CAST(created_at AS TIMESTAMP) AS created_at, CAST(updated_at AS TIMESTAMP) AS updated_at)"
    " FROM things) things"
)


def main(address, jar):
    os.environ["TZ"] = "UTC"
    spark = (
        SparkSession.builder.master("local[2]")
        .appName("thermocline")
        .config("spark.ui.enabled", "false")
        .config("spark.ui.showConsoleProgress", "false")
        .config("spark.driver.bindAddress", "127.0.0.1")
        .config("spark.driver.host", "127.0.0.1")
        .config("spark.driver.memory", "1g")
        .config("spark.driver.extraClassPath", jar)
        .config("spark.driver.extraJavaOptions", OPENED)
        .config("spark.sql.session.timeZone", "UTC")
        .config("spark.sql.shuffle.partitions", "2")
        .getOrCreate()
    )
    spark.sparkContext.setLogLevel("ERROR")

    def read(table, options="", **more):
        reader = (
            spark.read.format("jdbc")
            .option("driver", "org.apache.arrow.driver.jdbc.ArrowFlightJdbcDriver")
            .option("url", f"jdbc:arrow-flight-sql://{address}/?useEncryption=false{options}")
            .option("dbtable", table)
        )
        for name, value in more.items():
            reader = reader.option(name, value)
        return reader.load()

    try:
        read("things")
        raise AssertionError("Spark reads timestamps with a zone now: let the table say so")
    except Py4JJavaError as refusal:
        assert "TIMESTAMP_WITH_TIMEZONE" in str(refusal), refusal
    things = read(THINGS)
    assert things.columns == ["row_id", "name", "n", "note", "size_cm", "created_at", "updated_at"], things.columns
    cell("connect", "yes")
    spark_types = [type(field.dataType).__name__ for field in things.schema.fields]
    text, moment = "StringType", "TimestampType"
    # The driver calls every integer unsigned, so Spark takes the next wider type.
    assert spark_types == [text, text, "LongType", text, "DoubleType", moment, moment], spark_types

    assert things.count() == 120
    counts = things.groupBy("name").count().orderBy("name").collect()
    assert [tuple(row) for row in counts] == [("base", 90), ("delta", 15), ("it's hot", 15)], counts
    assert things.filter("name = \"it's hot\" AND n BETWEEN 2 AND 4").count() == 15
    assert read("(SELECT name, sum(n) AS s FROM things GROUP BY name) q").agg(functions.sum("s")).collect()[0][0] == 165
    parts = read(THINGS, partitionColumn="n", lowerBound=1, upperBound=4, numPartitions=3)
    assert parts.rdd.getNumPartitions() == 3
    assert parts.count() == 120
    cell("query", "yes, also partitioned by a numeric column")

    scalars = (
        "n, a_text, a_smallint, a_integer, a_bigint, a_double, a_decimal, a_boolean, a_uuid, a_date,"
        " CAST(a_timestamp AS TIMESTAMP) AS a_timestamp, a_json"
    )
    golden = read(f"(SELECT {scalars} FROM golden) g").orderBy("n").collect()
    utc = datetime.timezone.utc
    assert tuple(golden[0])[:-2] == (
        1, "it's", 7, 42, 9_007_199_254_740_993, 1.5, decimal.Decimal("1234567.89"), True,
        "01234567-89ab-cdef-0123-456789abcdef", datetime.date(2024, 2, 29),
    ), golden[0]
    assert golden[0]["a_timestamp"].astimezone(utc) == datetime.datetime(2024, 2, 29, 12, 34, 56, 789_000, utc), golden[0]
    assert tuple(golden[1])[:-2] == (
        2, "日本語😀", -(2**15), -(2**31), -(2**63), -sys.float_info.max, decimal.Decimal("-9999999.99"), False,
        "ffffffff-ffff-ffff-ffff-ffffffffffff", datetime.date(1900, 1, 1),
    ), golden[1]
    assert all(value is None for value in tuple(golden[2])[1:]), golden[2]
    try:
        read("(SELECT integers FROM golden) g").collect()
        raise AssertionError("Spark reads lists now: let the table say so")
    except Py4JJavaError as refusal:
        assert "ARRAY" in str(refusal), refusal
    cell("types", "Spark's JDBC source knows no lists and no timestamps with a zone: cast those to TIMESTAMP; all others")

    tables = read("(SELECT table_name FROM information_schema.tables) t").orderBy("table_name").collect()
    assert [row[0] for row in tables] == ["golden", "things"], tables
    cell("metadata", "yes, by `information_schema`")

    assert read(THINGS, options="&x-thermocline-tiers=hot").count() == 15
    cell("options", "yes")
    spark.stop()


def cell(capability, verdict):
    print(f"CELL {capability}: {verdict}", flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
