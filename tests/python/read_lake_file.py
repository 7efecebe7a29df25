"""Reads a file of the lake with pyarrow, Polars and DuckDB, and looks at what no reader shows: statistics and checksums.

Arguments: the Parquet file, a JSON file with the rows that were written.
"""

import sys

import duckdb
import polars
import pyarrow.parquet
from lake_values import compare, expected


def main(path, rows):
    wanted = expected(rows)
    file = pyarrow.parquet.ParquetFile(path, page_checksum_verification=True)
    assert file.metadata.metadata[b"thermocline.unique_rows"] == b"true"
    assert file.schema.column(0).logical_type.type == "UUID", file.schema.column(0)
    for group in range(file.metadata.num_row_groups):
        for column in range(file.metadata.num_columns):
            chunk = file.metadata.row_group(group).column(column)
            assert chunk.is_stats_set and chunk.compression == "ZSTD", chunk
            assert chunk.has_column_index and chunk.has_offset_index, chunk
    table = file.read()
    compare("pyarrow", wanted, table.column_names, table_rows(table))
    frame = polars.read_parquet(path)
    compare("Polars", wanted, frame.columns, frame.rows())
    connection = duckdb.connect()
    connection.execute("SET TimeZone = 'UTC'")
    found = connection.execute("SELECT * FROM read_parquet(?)", [path]).to_arrow_table()
    compare("DuckDB", wanted, found.column_names, table_rows(found))
    damage(path, file.metadata)


def table_rows(table):
    return list(zip(*(column.to_pylist() for column in table.columns)))


def damage(path, metadata):
    """A bit of each chunk's last page flips: a reader that checks says so."""
    with open(path, "rb") as file:
        content = file.read()
    for column in range(metadata.num_columns):
        chunk = metadata.row_group(0).column(column)
        start = min(filter(None, (chunk.dictionary_page_offset, chunk.data_page_offset)))
        damaged = bytearray(content)
        damaged[start + chunk.total_compressed_size - 1] ^= 1
        reader = pyarrow.parquet.ParquetFile(
            pyarrow.BufferReader(bytes(damaged)), page_checksum_verification=True
        )
        try:
            reader.read(columns=[chunk.path_in_schema])
            raise AssertionError(f"a flipped bit in {chunk.path_in_schema} went unnoticed")
        except OSError as error:
            assert "checksum" in str(error), error
    print(f"checksums: {metadata.num_columns} flipped bits were noticed", flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
