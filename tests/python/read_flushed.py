"""Reads a flushed file with pyarrow, Polars and DuckDB, and compares the values they find."""

import math
import sys
import uuid

import duckdb
import polars
import pyarrow.parquet


def plain(value):
    if isinstance(value, bytes) and len(value) == 16:
        return str(uuid.UUID(bytes=value))
    if isinstance(value, uuid.UUID):
        return str(value)
    if isinstance(value, float) and math.isnan(value):
        return "NaN"
    if isinstance(value, list):
        return [plain(element) for element in value]
    if hasattr(value, "astimezone"):
        return value.timestamp()
    return value


def rows(columns):
    return list(zip(*([plain(value) for value in column] for column in columns)))


path = sys.argv[1]
file = pyarrow.parquet.ParquetFile(path)
assert file.metadata.metadata[b"thermocline.unique_rows"] == b"true"
assert file.schema.column(0).logical_type.type == "UUID", file.schema.column(0)
for group in range(file.metadata.num_row_groups):
    for column in range(file.metadata.num_columns):
        chunk = file.metadata.row_group(group).column(column)
        assert chunk.is_stats_set and chunk.compression == "ZSTD", chunk
table = file.read()
names = table.column_names
arrow = rows([table[name].to_pylist() for name in names])
frame = polars.read_parquet(path)
assert frame.columns == names
pola = rows([frame[name].to_list() for name in names])
connection = duckdb.connect()
connection.execute("SET TimeZone = 'UTC'")
found = connection.execute("SELECT * FROM read_parquet(?)", [path]).to_arrow_table()
assert found.column_names == names
duck = rows([found[name].to_pylist() for name in names])
assert arrow == sorted(arrow, key=lambda row: row[0]), "not sorted by row_id"
for other, found in (("Polars", pola), ("DuckDB", duck)):
    assert len(found) == len(arrow)
    for left, right in zip(arrow, found):
        for name, a, b in zip(names, left, right):
            assert a == b, f"{other} reads {name} as {b!r}, pyarrow as {a!r}"
print(f"{len(arrow)} rows, all readers agree")
