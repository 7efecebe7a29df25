"""Reads files of the lake with Spark's own Parquet reader.

Spark refuses to infer a schema with UUIDs; a schema that is given, with UUIDs as BINARY, reads everything.

Arguments: pairs of a Parquet file and a JSON file with the rows that were written.
"""

import json
import os
import sys

from lake_values import compare, expected
from pyspark.errors import AnalysisException
from pyspark.sql import SparkSession


def main(*arguments):
    os.environ["TZ"] = "UTC"
    spark = (
        SparkSession.builder.master("local[1]")
        .appName("thermocline")
        .config("spark.ui.enabled", "false")
        .config("spark.ui.showConsoleProgress", "false")
        .config("spark.driver.bindAddress", "127.0.0.1")
        .config("spark.driver.host", "127.0.0.1")
        .config("spark.driver.memory", "1g")
        .config("spark.sql.session.timeZone", "UTC")
        .getOrCreate()
    )
    spark.sparkContext.setLogLevel("ERROR")
    try:
        spark.read.parquet(arguments[0])
        raise AssertionError("Spark infers UUIDs now: let the documents say so")
    except AnalysisException as refusal:
        assert "FIXED_LEN_BYTE_ARRAY (UUID)" in str(refusal), refusal
    for path, rows in zip(arguments[::2], arguments[1::2]):
        with open(rows, encoding="utf-8") as file:
            schema = json.load(file)["spark_schema"]
        frame = spark.read.schema(schema).parquet(path)
        found = frame.orderBy("row_id").collect()
        compare("Spark", expected(rows), frame.columns, [tuple(row) for row in found])
    spark.stop()


if __name__ == "__main__":
    main(*sys.argv[1:])
