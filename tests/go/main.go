// The unmodified Go clients against a server that holds `things` and `golden` (tests/src/client_data.rs): the Flight SQL client
// of arrow-go, and its driver for database/sql.
//
// It prints `CELL client capability: verdict` once a capability has passed; any difference ends the program.
package main

import (
	"context"
	"database/sql"
	"fmt"
	"math"
	"os"
	"reflect"
	"strings"
	"time"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/array"
	"github.com/apache/arrow-go/v18/arrow/decimal128"
	"github.com/apache/arrow-go/v18/arrow/flight"
	"github.com/apache/arrow-go/v18/arrow/flight/flightsql"
	_ "github.com/apache/arrow-go/v18/arrow/flight/flightsql/driver"
	"github.com/apache/arrow-go/v18/arrow/memory"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
)

const leapMoment = 1_709_210_096_789

func main() {
	address := os.Args[1]
	ctx, stop := context.WithTimeout(context.Background(), 5*time.Minute)
	defer stop()

	client := must(flightsql.NewClient(address, nil, nil, grpc.WithTransportCredentials(insecure.NewCredentials())))
	defer client.Close()
	client.Alloc = memory.DefaultAllocator
	equal(1, count(read(ctx, client, must(client.Execute(ctx, "SELECT 1")))), "connect")
	cell("arrow-go", "connect", "yes")
	query(ctx, client)
	types(ctx, client)
	parameters(ctx, client)
	describe(ctx, client)
	options(ctx, client)
	cancel(ctx, client)
	databaseSQL(ctx, address)
}

func query(ctx context.Context, client *flightsql.Client) {
	info := must(client.Execute(ctx, "SELECT name, count(*) AS c FROM things GROUP BY name ORDER BY name"))
	records := read(ctx, client, info)
	equal(3, count(records), "rows")
	equal("base", records[0].Column(0).(*array.String).Value(0), "name")
	equal(int64(90), records[0].Column(1).(*array.Int64).Value(0), "count")
	equal(0, count(read(ctx, client, must(client.Execute(ctx, "SELECT * FROM things WHERE n > 1000")))), "no rows")
	big := read(ctx, client, must(client.Execute(ctx, "SELECT range AS i, repeat('x', 50) AS t FROM range(300000)")))
	equal(300_000, count(big), "rows of many batches")

	promised := must(flight.DeserializeSchema(info.Schema, memory.DefaultAllocator))
	equal(true, promised.Equal(records[0].Schema()), "the promised schema comes")
	result := must(client.GetExecuteSchema(ctx, "SELECT name, count(*) AS c FROM things GROUP BY name ORDER BY name"))
	equal(string(info.Schema), string(result.Schema), "GetSchema")

	refused(codes.NotFound, "nothing")(client.Execute(ctx, "SELECT * FROM nothing"))
	refused(codes.InvalidArgument, "nam")(client.Execute(ctx, "SELECT nam FROM things"))
	_, err := client.ExecuteUpdate(ctx, "DELETE FROM things")
	equal(true, err != nil && strings.Contains(err.Error(), "read-only"), fmt.Sprint("an update is refused: ", err))
	cell("arrow-go", "query", "yes")
}

func types(ctx context.Context, client *flightsql.Client) {
	records := read(ctx, client, must(client.Execute(ctx, "SELECT * FROM golden ORDER BY n")))
	equal(3, count(records), "rows")
	record := records[0]
	var found []string
	for _, field := range record.Schema().Fields() {
		found = append(found, field.Name+" "+field.Type.String())
		equal(true, field.Nullable, field.Name)
	}
	equal([]string{
		"row_id utf8", "n int32", "a_text utf8", "a_smallint int16", "a_integer int32", "a_bigint int64",
		"a_double float64", "a_decimal decimal(9, 2)", "a_boolean bool", "a_uuid utf8", "a_date date32",
		"a_timestamp timestamp[us, tz=UTC]", "a_json utf8", "texts list<l: utf8, nullable>",
		"integers list<l: int32, nullable>", "doubles list<l: float64, nullable>", "booleans list<l: bool, nullable>",
		"dates list<l: date32, nullable>", "timestamps list<l: timestamp[us, tz=UTC], nullable>",
		"decimals list<l: decimal(9, 2), nullable>", "created_at timestamp[us, tz=UTC]",
		"updated_at timestamp[us, tz=UTC]",
	}, found, "columns")
	column := func(name string) arrow.Array { return record.Column(record.Schema().FieldIndices(name)[0]) }

	equal("it's", column("a_text").(*array.String).Value(0), "a_text")
	equal("日本語😀", column("a_text").(*array.String).Value(1), "a_text")
	equal(int16(7), column("a_smallint").(*array.Int16).Value(0), "a_smallint")
	equal(int16(math.MinInt16), column("a_smallint").(*array.Int16).Value(1), "a_smallint")
	equal(int32(42), column("a_integer").(*array.Int32).Value(0), "a_integer")
	equal(int64(9_007_199_254_740_993), column("a_bigint").(*array.Int64).Value(0), "a_bigint")
	equal(int64(math.MinInt64), column("a_bigint").(*array.Int64).Value(1), "a_bigint")
	equal(1.5, column("a_double").(*array.Float64).Value(0), "a_double")
	equal(-math.MaxFloat64, column("a_double").(*array.Float64).Value(1), "a_double")
	equal("1234567.89", column("a_decimal").ValueStr(0), "a_decimal")
	equal("-9999999.99", column("a_decimal").ValueStr(1), "a_decimal")
	equal(true, column("a_boolean").(*array.Boolean).Value(0), "a_boolean")
	equal("01234567-89ab-cdef-0123-456789abcdef", column("a_uuid").(*array.String).Value(0), "a_uuid")
	equal("2024-02-29", column("a_date").ValueStr(0), "a_date")
	equal("1900-01-01", column("a_date").ValueStr(1), "a_date")
	equal(arrow.Timestamp(leapMoment*1000), column("a_timestamp").(*array.Timestamp).Value(0), "a_timestamp")
	equal(arrow.Timestamp(-1000), column("a_timestamp").(*array.Timestamp).Value(1), "a_timestamp")
	equal(`["x",null,"it's"]`, column("texts").ValueStr(0), "texts")
	equal(`[1,null,-3]`, column("integers").ValueStr(0), "integers")
	equal(`["2024-02-29","1970-01-01"]`, column("dates").ValueStr(0), "dates")
	for index, field := range record.Schema().Fields()[2:20] {
		equal(true, record.Column(index+2).IsNull(2), field.Name)
	}
	cell("arrow-go", "types", "yes")
}

func parameters(ctx context.Context, client *flightsql.Client) {
	prepared := must(client.Prepare(ctx, "SELECT count(*) FROM things WHERE n = ? AND name = ?"))
	equal(2, prepared.ParameterSchema().NumFields(), "parameters")
	equal(1, prepared.DatasetSchema().NumFields(), "columns")
	for _, n := range []int32{2, 1} {
		builder := array.NewRecordBuilder(memory.DefaultAllocator, prepared.ParameterSchema())
		builder.Field(0).(*array.Int32Builder).Append(n)
		builder.Field(1).(*array.StringBuilder).Append("delta")
		prepared.SetParameters(builder.NewRecordBatch())
		records := read(ctx, client, must(prepared.Execute(ctx)))
		equal(int64(15*(n-1)), records[0].Column(0).(*array.Int64).Value(0), "count")
	}
	check(prepared.Close(ctx))

	unit := &arrow.TimestampType{Unit: arrow.Millisecond, TimeZone: "America/New_York"}
	for condition, bind := range map[string]func(memory.Allocator) arrow.Array{
		"a_decimal = ?": func(allocator memory.Allocator) arrow.Array {
			builder := array.NewDecimal128Builder(allocator, &arrow.Decimal128Type{Precision: 9, Scale: 2})
			builder.Append(decimal128.FromI64(123_456_789))
			return builder.NewArray()
		},
		"a_timestamp = ?": func(allocator memory.Allocator) arrow.Array {
			builder := array.NewTimestampBuilder(allocator, unit)
			builder.Append(leapMoment)
			return builder.NewArray()
		},
		"list_contains(?, a_integer)": func(allocator memory.Allocator) arrow.Array {
			builder := array.NewListBuilder(allocator, arrow.PrimitiveTypes.Int32)
			builder.Append(true)
			builder.ValueBuilder().(*array.Int32Builder).AppendValues([]int32{41, 42}, nil)
			return builder.NewArray()
		},
	} {
		prepared := must(client.Prepare(ctx, "SELECT n FROM golden WHERE "+condition))
		value := bind(memory.DefaultAllocator)
		schema := arrow.NewSchema([]arrow.Field{{Name: "v", Type: value.DataType(), Nullable: true}}, nil)
		prepared.SetParameters(array.NewRecordBatch(schema, []arrow.Array{value}, 1))
		records := read(ctx, client, must(prepared.Execute(ctx)))
		equal(1, count(records), condition)
		equal(int32(1), records[0].Column(0).(*array.Int32).Value(0), condition)
		check(prepared.Close(ctx))
	}
	cell("arrow-go", "parameters", "yes")
}

func describe(ctx context.Context, client *flightsql.Client) {
	texts := func(info *flight.FlightInfo, column string) []string {
		values := []string{}
		for _, record := range read(ctx, client, info) {
			index := record.Schema().FieldIndices(column)[0]
			for row := 0; row < int(record.NumRows()); row++ {
				values = append(values, record.Column(index).ValueStr(row))
			}
		}
		return values
	}
	equal([]string{"thermocline"}, texts(must(client.GetCatalogs(ctx)), "catalog_name"), "catalogs")
	equal([]string{"main"}, texts(must(client.GetDBSchemas(ctx, &flightsql.GetDBSchemasOpts{})), "db_schema_name")[:1], "schemas")
	pattern := "thin_s"
	tables := &flightsql.GetTablesOpts{TableNameFilterPattern: &pattern, IncludeSchema: true}
	equal([]string{"things"}, texts(must(client.GetTables(ctx, tables)), "table_name"), "tables")
	equal(true, len(texts(must(client.GetTableTypes(ctx)), "table_type")) > 0, "table types")
	keys := must(client.GetPrimaryKeys(ctx, flightsql.TableRef{Table: "things"}))
	equal([]string{"row_id"}, texts(keys, "column_name"), "primary key")
	names := must(client.GetSqlInfo(ctx, []flightsql.SqlInfo{flightsql.SqlInfoFlightSqlServerName}))
	equal(1, count(read(ctx, client, names)), "server name")
	equal(true, count(read(ctx, client, must(client.GetXdbcTypeInfo(ctx, nil)))) > 5, "types")
	cell("arrow-go", "metadata", "yes")
}

func options(ctx context.Context, client *flightsql.Client) {
	hot := metadata.AppendToOutgoingContext(ctx, "x-thermocline-tiers", "hot")
	equal(15, count(read(hot, client, must(client.Execute(hot, "SELECT name FROM things")))), "only hot rows")
	wrong := metadata.AppendToOutgoingContext(ctx, "x-thermocline-tiers", "lukewarm")
	refused(codes.InvalidArgument, "tiers")(client.Execute(wrong, "SELECT name FROM things"))
	cell("arrow-go", "options", "yes")
}

func cancel(ctx context.Context, client *flightsql.Client) {
	info := must(client.Execute(ctx, "SELECT range AS i FROM range(100000000000)"))
	reader := must(client.DoGet(ctx, info.Endpoint[0].Ticket))
	equal(true, reader.Next(), "the first batch")
	result := must(client.CancelFlightInfo(ctx, &flight.CancelFlightInfoRequest{Info: info}))
	equal(flight.CancelStatusCancelled, result.Status, "cancel")
	for reader.Next() {
	}
	equal(codes.Canceled, status.Code(reader.Err()), fmt.Sprint("the stream's end: ", reader.Err()))
	reader.Release()
	equal(1, count(read(ctx, client, must(client.Execute(ctx, "SELECT 1")))), "the next query")
	cell("arrow-go", "cancel", "yes")
}

func databaseSQL(ctx context.Context, address string) {
	const name = "arrow-go's database/sql driver"
	database := must(sql.Open("flightsql", "flightsql://"+address+"?timeout=60s"))
	defer database.Close()
	check(database.PingContext(ctx))
	cell(name, "connect", "yes")

	var rows int64
	check(database.QueryRowContext(ctx, "SELECT count(*) FROM things WHERE name = 'delta'").Scan(&rows))
	equal(int64(15), rows, "count")
	equal(true, database.QueryRowContext(ctx, "SELECT * FROM nothing").Err() != nil, "a refusal")
	cell(name, "query", "yes")

	var text string
	var small, integer, big int64
	var double float64
	var boolean bool
	var date, moment time.Time
	row := database.QueryRowContext(ctx, `SELECT a_text, a_smallint, a_integer, a_bigint, a_double, a_boolean, a_date,
		a_timestamp FROM golden WHERE n = 1`)
	check(row.Scan(&text, &small, &integer, &big, &double, &boolean, &date, &moment))
	equal([]any{"it's", int64(7), int64(42), int64(9_007_199_254_740_993), 1.5, true},
		[]any{text, small, integer, big, double, boolean}, "values")
	equal("2024-02-29", date.UTC().Format(time.DateOnly), "a_date")
	equal(int64(leapMoment), moment.UnixMilli(), "a_timestamp")
	cell(name, "types", "yes")

	prepared := must(database.PrepareContext(ctx, "SELECT n FROM golden WHERE a_bigint = ? AND a_text = ?"))
	check(prepared.QueryRowContext(ctx, int64(9_007_199_254_740_993), "it's").Scan(&rows))
	equal(int64(1), rows, "n")
	check(prepared.Close())
	// database/sql makes an int64 of every integer, and the driver binds only the very type of the parameter.
	narrow := database.QueryRowContext(ctx, "SELECT n FROM golden WHERE a_integer = ?", 42).Scan(&rows)
	equal("invalid value type int64 for builder *array.Int32Builder", fmt.Sprint(narrow), "a narrow parameter")
	// The driver knows no other types, and no NULL.
	for condition, value := range map[string]any{
		"a_decimal = ?":   1234567.89,
		"a_date = ?":      time.Date(2024, 2, 29, 0, 0, 0, 0, time.UTC),
		"a_timestamp = ?": time.UnixMilli(leapMoment),
		"a_text = ?":      nil,
	} {
		err := database.QueryRowContext(ctx, "SELECT n FROM golden WHERE "+condition, value).Scan(&rows)
		equal(true, err != nil && strings.Contains(err.Error(), "builder"), condition)
	}
	// A cast around the parameter announces a type that it knows.
	for condition, value := range map[string]any{
		"a_integer = CAST(? AS BIGINT)":                            42,
		"a_decimal = CAST(CAST(? AS VARCHAR) AS DECIMAL(9,2))":     "1234567.89",
		"a_date = CAST(CAST(? AS VARCHAR) AS DATE)":                "2024-02-29",
		"a_timestamp = CAST(CAST(? AS VARCHAR) AS TIMESTAMPTZ)":    "2024-02-29T12:34:56.789Z",
		"row_id = CAST(? AS VARCHAR)":                              "01900000-0000-7000-8000-000000000001",
	} {
		check(database.QueryRowContext(ctx, "SELECT n FROM golden WHERE "+condition, value).Scan(&rows))
		equal(int64(1), rows, condition)
	}
	cell(name, "parameters", "BOOLEAN, BIGINT, DOUBLE and text that isn't NULL; the driver binds no other type, so cast the parameter")

	brief, stop := context.WithTimeout(ctx, 500*time.Millisecond)
	defer stop()
	err := database.QueryRowContext(brief, "SELECT count(*) FROM range(100000000000) a, range(1000) b").Scan(&rows)
	equal(true, err != nil, "the deadline ends a query")
	check(database.QueryRowContext(ctx, "SELECT 1").Scan(&rows))
	cell(name, "cancel", "yes, by its context")
}

func read(ctx context.Context, client *flightsql.Client, info *flight.FlightInfo) []arrow.RecordBatch {
	var records []arrow.RecordBatch
	for _, endpoint := range info.Endpoint {
		reader := must(client.DoGet(ctx, endpoint.Ticket))
		for reader.Next() {
			record := reader.RecordBatch()
			record.Retain()
			if record.NumRows() > 0 {
				records = append(records, record)
			}
		}
		check(reader.Err())
		reader.Release()
	}
	return records
}

func count(records []arrow.RecordBatch) int {
	rows := 0
	for _, record := range records {
		rows += int(record.NumRows())
	}
	return rows
}

func refused(code codes.Code, part string) func(*flight.FlightInfo, error) {
	return func(_ *flight.FlightInfo, err error) {
		equal(code, status.Code(err), fmt.Sprint(err))
		equal(true, strings.Contains(fmt.Sprint(err), part), fmt.Sprint(err))
	}
}

func equal[T any](expected, found T, what string) {
	if !reflect.DeepEqual(expected, found) {
		fail(fmt.Errorf("%s: expected %v, found %v", what, expected, found))
	}
}

func must[T any](value T, err error) T {
	check(err)
	return value
}

func check(err error) {
	if err != nil {
		fail(err)
	}
}

func fail(err error) {
	panic(err)
}

func cell(client, capability, verdict string) {
	fmt.Printf("CELL %s | %s: %s\n", client, capability, verdict)
}
