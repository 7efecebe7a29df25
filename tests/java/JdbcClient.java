import java.lang.reflect.InvocationTargetException;
import java.lang.reflect.Method;
import java.math.BigDecimal;
import java.nio.charset.StandardCharsets;
import java.sql.Array;
import java.sql.Connection;
import java.sql.DatabaseMetaData;
import java.sql.Date;
import java.sql.DriverManager;
import java.sql.JDBCType;
import java.sql.PreparedStatement;
import java.sql.ResultSet;
import java.sql.ResultSetMetaData;
import java.sql.SQLException;
import java.sql.SQLFeatureNotSupportedException;
import java.sql.Statement;
import java.sql.Timestamp;
import java.sql.Types;
import java.time.Instant;
import java.time.LocalDate;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.Calendar;
import java.util.List;
import java.util.Objects;
import java.util.TimeZone;
import java.util.TreeSet;
import java.util.concurrent.CountDownLatch;

/**
 * The unmodified JDBC driver against a server that holds `things` and `golden` (tests/src/client_data.rs).
 *
 * Prints `CELL capability: verdict` once a capability has passed; any difference ends the program with an exception.
 */
public final class JdbcClient {
    private static final Calendar UTC = Calendar.getInstance(TimeZone.getTimeZone("UTC"));
    private static final long LEAP_MOMENT = 1_709_210_096_789L;

    private final String url;

    private JdbcClient(String url) {
        this.url = url;
    }

    public static void main(String[] arguments) throws Exception {
        JdbcClient client = new JdbcClient("jdbc:arrow-flight-sql://" + arguments[0] + "/?useEncryption=false");
        client.connect();
        client.query();
        client.types();
        client.parameters();
        client.metadata();
        client.options();
        client.cancel();
    }

    private Connection open(String... options) throws SQLException {
        return DriverManager.getConnection(url + String.join("", options));
    }

    private void connect() throws SQLException {
        try (Connection connection = open()) {
            equal(true, connection.isValid(5), "isValid");
            equal(Connection.TRANSACTION_NONE, connection.getTransactionIsolation(), "getTransactionIsolation");
        }
        cell("connect", "yes");
    }

    private void query() throws SQLException {
        try (Connection connection = open(); Statement statement = connection.createStatement()) {
            String sql = "SELECT name, count(*) AS c FROM things GROUP BY name ORDER BY name";
            equal(List.of(List.of("base", 90L), List.of("delta", 15L), List.of("it's hot", 15L)), rows(statement.executeQuery(sql)), sql);
            String nothing = "SELECT name, n FROM things WHERE n > 1000";
            equal(0, rows(statement.executeQuery(nothing)).size(), "no rows");
            // The driver's Statement adds the columns to those that it has (https://github.com/apache/arrow-java/issues/44);
            // its PreparedStatement doesn't.
            equal(4, statement.executeQuery(nothing).getMetaData().getColumnCount(), "columns of no rows, doubled by the driver");
            try (PreparedStatement prepared = connection.prepareStatement(nothing)) {
                equal(2, prepared.executeQuery().getMetaData().getColumnCount(), "columns of no rows");
                equal(0, rows(prepared.executeQuery()).size(), "no rows");
            }
            try (ResultSet result = statement.executeQuery("SELECT range AS i, repeat('x', 50) AS t FROM range(300000)")) {
                long sum = 0;
                while (result.next()) {
                    sum += result.getLong("i");
                }
                equal(44_999_850_000L, sum, "the sum over many batches");
            }
            statement.setMaxRows(7);
            refused(connection, "SELECT * FROM nothing", "nothing");
            refused(connection, "SELECT nam FROM things", "nam");
            refused(connection, "SELECT * FROM read_csv('/etc/passwd')", "read_csv");
            refused(connection, "DELETE FROM things", "SELECT");
        }
        cell("query", "yes; the driver's `Statement` doubles the columns of an empty result, its `PreparedStatement` doesn't");
    }

    private void types() throws SQLException {
        try (Connection connection = open(); Statement statement = connection.createStatement()) {
            ResultSet row = statement.executeQuery("SELECT * FROM golden ORDER BY n");
            ResultSetMetaData metadata = row.getMetaData();
            List<String> columns = new ArrayList<>();
            for (int column = 1; column <= metadata.getColumnCount(); column++) {
                columns.add(metadata.getColumnLabel(column) + " " + JDBCType.valueOf(metadata.getColumnType(column)));
            }
            equal(List.of("row_id VARCHAR", "n INTEGER", "a_text VARCHAR", "a_smallint SMALLINT", "a_integer INTEGER",
                "a_bigint BIGINT", "a_double DOUBLE", "a_decimal DECIMAL", "a_boolean BOOLEAN", "a_uuid VARCHAR",
                "a_date DATE", "a_timestamp TIMESTAMP_WITH_TIMEZONE", "a_json VARCHAR", "texts ARRAY", "integers ARRAY",
                "doubles ARRAY", "booleans ARRAY", "dates ARRAY", "timestamps ARRAY", "decimals ARRAY",
                "created_at TIMESTAMP_WITH_TIMEZONE", "updated_at TIMESTAMP_WITH_TIMEZONE"), columns, "columns");

            equal(true, row.next(), "the ordinary row");
            equal("01900000-0000-7000-8000-000000000001", row.getString("row_id"), "row_id");
            equal("it's", row.getString("a_text"), "a_text");
            equal("it's", row.getObject("a_text"), "a_text");
            equal("it's", new String(row.getBytes("a_text"), StandardCharsets.UTF_8), "a_text");
            equal((short) 7, row.getShort("a_smallint"), "a_smallint");
            equal(7L, row.getLong("a_smallint"), "a_smallint");
            equal(42, row.getInt("a_integer"), "a_integer");
            equal("42", row.getString("a_integer"), "a_integer");
            equal(9_007_199_254_740_993L, row.getLong("a_bigint"), "a_bigint");
            equal(new BigDecimal("9007199254740993"), row.getBigDecimal("a_bigint"), "a_bigint");
            equal(1.5, row.getDouble("a_double"), "a_double");
            equal(1.5f, row.getFloat("a_double"), "a_double");
            equal(new BigDecimal("1234567.89"), row.getBigDecimal("a_decimal"), "a_decimal");
            equal(new BigDecimal("1234567.89"), row.getObject("a_decimal"), "a_decimal");
            equal(1234567.89, row.getDouble("a_decimal"), "a_decimal");
            equal(true, row.getBoolean("a_boolean"), "a_boolean");
            equal("01234567-89ab-cdef-0123-456789abcdef", row.getString("a_uuid"), "a_uuid");
            equal("2024-02-29", row.getDate("a_date").toString(), "a_date");
            equal(LEAP_MOMENT, row.getTimestamp("a_timestamp", UTC).getTime(), "a_timestamp");
            equal(Instant.ofEpochMilli(LEAP_MOMENT), row.getTimestamp("a_timestamp").toInstant(), "a_timestamp");
            equal("2024-02-29 12:34:56.789", row.getString("a_timestamp"), "a_timestamp");
            equal(new Timestamp(LEAP_MOMENT), row.getObject("a_timestamp"), "a_timestamp");
            try {
                row.getObject(row.findColumn("a_timestamp"));
                throw new AssertionError("getObject(int) reads zoned timestamps now: let the table say so");
            } catch (RuntimeException unsupported) {
                equal("not implemented", unsupported.getMessage(), "a_timestamp by its index");
            }
            equal("{\"a\":1}", row.getString("a_json"), "a_json");
            equal(List.of("x", "null", "it's"), texts(row.getArray("texts")), "texts");
            equal(Arrays.asList(1, null, -3), list(row.getArray("integers")), "integers");
            equal(List.of(0.5), list(row.getArray("doubles")), "doubles");
            equal(List.of(true, false), list(row.getArray("booleans")), "booleans");
            // The driver hands out a list's elements as Arrow stores them: days since 1970-01-01.
            equal(List.of(19_782, 0), list(row.getArray("dates")), "dates");
            equal(2, list(row.getArray("timestamps")).size(), "timestamps");
            equal(List.of(new BigDecimal("1.50"), new BigDecimal("-0.01")), list(row.getArray("decimals")), "decimals");

            equal(true, row.next(), "the extreme row");
            equal("日本語😀", row.getString("a_text"), "a_text");
            equal(Short.MIN_VALUE, row.getShort("a_smallint"), "a_smallint");
            equal(Integer.MIN_VALUE, row.getInt("a_integer"), "a_integer");
            equal(Long.MIN_VALUE, row.getLong("a_bigint"), "a_bigint");
            equal(-Double.MAX_VALUE, row.getDouble("a_double"), "a_double");
            equal(new BigDecimal("-9999999.99"), row.getBigDecimal("a_decimal"), "a_decimal");
            equal(false, row.getBoolean("a_boolean"), "a_boolean");
            equal("1900-01-01", row.getDate("a_date").toString(), "a_date");
            equal(-1L, row.getTimestamp("a_timestamp", UTC).getTime(), "a_timestamp");

            equal(true, row.next(), "the row of NULLs");
            for (int column = 3; column <= 20; column++) {
                equal(null, row.getObject(metadata.getColumnLabel(column)), columns.get(column - 1));
                equal(true, row.wasNull(), columns.get(column - 1));
            }
            equal(0, row.getInt("a_integer"), "NULL as a number");
            equal(false, row.next(), "the end");

            ResultSet more = statement.executeQuery("SELECT TIMESTAMPTZ '2024-02-29 12:34:56.123456+00' AS micros, "
                + "TIMESTAMP '2024-02-29 12:34:56.123456' AS local, TIME '12:34:56' AS clock, 'ab'::BLOB AS bytes, "
                + "{'a': 1} AS record, 170141183460469231731687303715884105727::HUGEINT // 10 AS huge, 1.5::FLOAT AS single, "
                + "5::TINYINT AS tiny");
            equal(true, more.next(), "a row");
            equal(123_456_000, more.getTimestamp("micros", UTC).getNanos(), "micros");
            equal(123_456_000, more.getTimestamp("local", UTC).getNanos(), "local");
            equal("12:34:56", more.getString("clock").substring(0, 8), "clock");
            equal("ab", new String(more.getBytes("bytes"), StandardCharsets.UTF_8), "bytes");
            equal("17014118346046923173168730371588410572", more.getBigDecimal("huge").toPlainString(), "huge");
            equal(1.5f, more.getFloat("single"), "single");
            equal((byte) 5, more.getByte("tiny"), "tiny");
            equal(true, more.getObject("record").toString().contains("1"), "record");
        }
        cell("types", "yes; a timestamp by `getTimestamp(…)` or by name, the driver lacks `getObject(index)` for it");
    }

    private void parameters() throws SQLException {
        try (Connection connection = open()) {
            try (PreparedStatement prepared = connection.prepareStatement("SELECT count(*) FROM things WHERE n = ? AND name = ?")) {
                equal(2, prepared.getParameterMetaData().getParameterCount(), "parameters");
                for (int n = 1; n <= 3; n++) {
                    prepared.setInt(1, n);
                    prepared.setString(2, n == 3 ? "it's hot" : "delta");
                    equal(n == 1 ? 0L : 15L, rows(prepared.executeQuery()).get(0).get(0), "n = " + n);
                }
                prepared.setNull(1, Types.INTEGER);
                equal(0L, rows(prepared.executeQuery()).get(0).get(0), "n = NULL");
            }
            golden(connection, "a_text = ?", (it, at) -> it.setString(at, "it's"));
            golden(connection, "a_smallint = ?", (it, at) -> it.setShort(at, (short) 7));
            golden(connection, "a_integer = ?", (it, at) -> it.setInt(at, 42));
            golden(connection, "a_bigint = ?", (it, at) -> it.setLong(at, 9_007_199_254_740_993L));
            golden(connection, "a_double = ?", (it, at) -> it.setDouble(at, 1.5));
            golden(connection, "a_decimal = ?", (it, at) -> it.setBigDecimal(at, new BigDecimal("1234567.89")));
            golden(connection, "a_boolean = ?", (it, at) -> it.setBoolean(at, true));
            golden(connection, "a_uuid = ?", (it, at) -> it.setString(at, "01234567-89AB-CDEF-0123-456789ABCDEF"));
            golden(connection, "a_date = ?", (it, at) -> it.setDate(at, Date.valueOf(LocalDate.of(2024, 2, 29))));
            golden(connection, "a_timestamp = ?", (it, at) -> it.setTimestamp(at, new Timestamp(LEAP_MOMENT)));
            golden(connection, "a_integer + CAST(? AS INTEGER) = 43", (it, at) -> it.setInt(at, 1));
            try (PreparedStatement prepared = connection.prepareStatement("SELECT ? AS v")) {
                prepared.setString(1, "as it is");
                equal(List.of(List.of("as it is")), rows(prepared.executeQuery()), "SELECT ?");
            }
        }
        cell("parameters", "yes");
    }

    private interface Setter {
        void set(PreparedStatement statement, int at) throws SQLException;
    }

    private static void golden(Connection connection, String condition, Setter setter) throws SQLException {
        try (PreparedStatement prepared = connection.prepareStatement("SELECT n FROM golden WHERE " + condition)) {
            setter.set(prepared, 1);
            equal(List.of(List.of(1)), rows(prepared.executeQuery()), condition);
        } catch (SQLException | RuntimeException failure) {
            throw new SQLException(condition + ": " + failure, failure);
        }
    }

    /** What DBeaver and other tools ask when they connect and when a tree is opened. */
    private void metadata() throws Exception {
        try (Connection connection = open()) {
            DatabaseMetaData metadata = connection.getMetaData();
            equal("thermocline", metadata.getDatabaseProductName().toLowerCase(), "product");
            equal("\"", metadata.getIdentifierQuoteString(), "identifier quote");
            equal(true, metadata.isReadOnly(), "isReadOnly");
            equal(true, metadata.getSQLKeywords().contains("QUALIFY"), "keywords");
            equal(true, metadata.getNumericFunctions().contains("abs"), "numeric functions");
            equal(List.of("thermocline"), column(metadata.getCatalogs(), "TABLE_CAT"), "catalogs");
            equal(true, column(metadata.getSchemas(), "TABLE_SCHEM").contains("main"), "schemas");
            equal(List.of("main"), column(metadata.getSchemas("thermocline", "ma%"), "TABLE_SCHEM"), "schemas by pattern");
            equal(true, column(metadata.getTableTypes(), "TABLE_TYPE").contains("TABLE"), "table types");
            equal(List.of("golden", "things"), column(metadata.getTables("thermocline", "main", "%", new String[] {"TABLE"}), "TABLE_NAME"), "tables");
            equal(List.of("things"), column(metadata.getTables(null, null, "thin_s", null), "TABLE_NAME"), "tables by pattern");
            equal(List.of(), column(metadata.getTables("elsewhere", null, "%", null), "TABLE_NAME"), "tables of another catalog");
            equal(List.of("row_id", "name", "n", "note", "size_cm", "created_at", "updated_at"),
                column(metadata.getColumns("thermocline", "main", "things", "%"), "COLUMN_NAME"), "columns");
            equal(List.of("VARCHAR", "VARCHAR", "INTEGER", "VARCHAR", "DOUBLE", "TIMESTAMP_WITH_TIMEZONE", "TIMESTAMP_WITH_TIMEZONE"),
                column(metadata.getColumns("thermocline", "main", "things", "%"), "DATA_TYPE").stream()
                    .map(type -> JDBCType.valueOf(((Number) type).intValue()).toString()).toList(), "types of columns");
            try (ResultSet decimal = metadata.getColumns(null, null, "golden", "a_decimal")) {
                equal(true, decimal.next(), "a_decimal");
                equal(9, decimal.getInt("COLUMN_SIZE"), "precision of a_decimal");
                equal(2, decimal.getInt("DECIMAL_DIGITS"), "scale of a_decimal");
                equal("YES", decimal.getString("IS_NULLABLE"), "nullability of a_decimal");
            }
            equal(List.of("row_id"), column(metadata.getPrimaryKeys("thermocline", "main", "things"), "COLUMN_NAME"), "primary key");
            equal(List.of(), rows(metadata.getImportedKeys("thermocline", "main", "things")), "imported keys");
            equal(List.of(), rows(metadata.getExportedKeys("thermocline", "main", "things")), "exported keys");
            equal(List.of(), rows(metadata.getCrossReference("thermocline", "main", "things", "thermocline", "main", "golden")), "cross reference");

            // Tools ask for everything; nothing but what the driver itself doesn't implement may fail.
            TreeSet<String> failing = new TreeSet<>();
            for (Method method : DatabaseMetaData.class.getMethods()) {
                if (method.getParameterCount() > 0) {
                    continue;
                }
                try {
                    if (method.invoke(metadata) instanceof ResultSet result) {
                        result.close();
                    }
                } catch (InvocationTargetException failure) {
                    if (!(failure.getCause() instanceof SQLFeatureNotSupportedException)
                        && !(failure.getCause() instanceof UnsupportedOperationException)) {
                        failing.add(method.getName() + ": " + failure.getCause());
                    }
                }
            }
            equal(new TreeSet<String>(), failing, "what fails");
        }
        cell("metadata", "yes");
    }

    private void options() throws SQLException {
        try (Connection connection = open("&x-thermocline-tiers=hot"); Statement statement = connection.createStatement()) {
            equal(List.of(List.of(15L)), rows(statement.executeQuery("SELECT count(*) FROM things")), "only hot rows");
        }
        try (Connection connection = open("&x-thermocline-tiers=lukewarm")) {
            refused(connection, "SELECT count(*) FROM things", "tiers");
        }
        cell("options", "yes");
    }

    private void cancel() throws Exception {
        try (Connection connection = open(); Statement statement = connection.createStatement()) {
            CountDownLatch streaming = new CountDownLatch(1);
            Throwable[] ended = new Throwable[1];
            Thread reader = new Thread(() -> {
                try (ResultSet result = statement.executeQuery("SELECT range AS i FROM range(100000000000)")) {
                    while (result.next()) {
                        streaming.countDown();
                    }
                } catch (Throwable failure) {
                    ended[0] = failure;
                }
                streaming.countDown();
            });
            reader.start();
            streaming.await();
            statement.cancel();
            reader.join(60_000);
            equal(false, reader.isAlive(), "the reader goes on");
            equal(true, ended[0] != null, "the reader ends with an error");
        }
        try (Connection connection = open(); Statement statement = connection.createStatement()) {
            equal(List.of(List.of(1)), rows(statement.executeQuery("SELECT 1")), "the next query");
        }
        cell("cancel", "yes");
    }

    private static void refused(Connection connection, String sql, String part) throws SQLException {
        try (Statement statement = connection.createStatement()) {
            rows(statement.executeQuery(sql));
        } catch (SQLException refusal) {
            StringBuilder all = new StringBuilder();
            for (Throwable cause = refusal; cause != null; cause = cause.getCause()) {
                all.append(cause.getMessage()).append('\n');
            }
            equal(true, all.toString().contains(part), sql + " says " + all);
            return;
        }
        throw new AssertionError(sql + " should be refused");
    }

    private static List<List<Object>> rows(ResultSet result) throws SQLException {
        List<List<Object>> rows = new ArrayList<>();
        int width = result.getMetaData().getColumnCount();
        while (result.next()) {
            List<Object> row = new ArrayList<>();
            for (int column = 1; column <= width; column++) {
                row.add(result.getObject(column));
            }
            rows.add(row);
        }
        result.close();
        return rows;
    }

    private static List<Object> column(ResultSet result, String name) throws SQLException {
        List<Object> values = new ArrayList<>();
        while (result.next()) {
            values.add(result.getObject(name));
        }
        result.close();
        return values;
    }

    private static List<Object> list(Array array) throws SQLException {
        return Arrays.asList((Object[]) array.getArray());
    }

    private static List<String> texts(Array array) throws SQLException {
        return list(array).stream().map(String::valueOf).toList();
    }

    private static void equal(Object expected, Object found, String what) {
        if (!Objects.equals(expected, found)) {
            throw new AssertionError(what + ": expected " + expected + ", found " + found);
        }
    }

    private static void cell(String capability, String verdict) {
        System.out.println("CELL " + capability + ": " + verdict);
    }
}
