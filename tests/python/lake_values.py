"""Values of lake files in one plain form, whatever reader they come from, and the comparison with what was written."""

import datetime
import decimal
import json
import math
import struct
import uuid

EPOCH = datetime.datetime(1970, 1, 1, tzinfo=datetime.timezone.utc)


def plain(value):
    """A value as the test writes it to JSON: doubles by their bits, times in milliseconds, the rest as text or itself."""
    if isinstance(value, (bytes, bytearray)) and len(value) == 16:
        return str(uuid.UUID(bytes=bytes(value)))
    if isinstance(value, uuid.UUID):
        return str(value)
    if isinstance(value, float):
        return "NaN" if math.isnan(value) else f"{struct.unpack('>Q', struct.pack('>d', value))[0]:016x}"
    if isinstance(value, decimal.Decimal):
        return format(value, "f")
    if isinstance(value, datetime.datetime):
        # Spark has no zones in its values; its session's is UTC.
        aware = value if value.tzinfo else value.replace(tzinfo=datetime.timezone.utc)
        millis, rest = divmod(aware - EPOCH, datetime.timedelta(milliseconds=1))
        assert not rest, value
        return millis
    if isinstance(value, datetime.date):
        return value.isoformat()
    if isinstance(value, (list, tuple)):
        return [plain(element) for element in value]
    return value


def expected(path):
    """Column names, and rows by `row_id`."""
    with open(path, encoding="utf-8") as file:
        content = json.load(file)
    rows = [tuple(row) for row in content["rows"]]
    text = json.dumps(rows, ensure_ascii=False)
    for what in ('"NaN"', "null", "-1", "日本", '"1969-12-31"', '"8000000000000000"'):
        assert what in text, f"the rows hold no {what}"
    return content["columns"], rows


def compare(reader, wanted, columns, rows):
    """`rows` are tuples of a reader's values, `wanted` what `expected` gave; the order of rows counts."""
    names, written = wanted
    assert list(columns) == names, f"{reader} finds the columns {columns}"
    assert len(rows) == len(written), f"{reader} finds {len(rows)} rows of {len(written)}"
    for found, wrote in zip(rows, written):
        for name, left, right in zip(names, found, wrote):
            right = list(right) if isinstance(right, list) else right
            assert plain(left) == right, f"{reader} reads {name} as {left!r}, written was {right!r}"
    print(f"{reader}: {len(rows)} rows as they were written", flush=True)
