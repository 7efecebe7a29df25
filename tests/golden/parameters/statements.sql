SELECT $1 AS v
SELECT $1, $2
SELECT CAST($1 AS VARCHAR) AS v
SELECT a_integer + $1 AS v FROM golden
SELECT n FROM golden WHERE "a_text" = $1
SELECT n FROM golden WHERE a_smallint < $1
SELECT n FROM golden WHERE a_bigint IN ($1, $2)
SELECT n FROM golden WHERE a_double >= $1
SELECT n FROM golden WHERE a_decimal = $1
SELECT n FROM golden WHERE a_boolean = $1
SELECT n FROM golden WHERE a_uuid = $1
SELECT n FROM golden WHERE a_date BETWEEN $1 AND $2
SELECT n FROM golden WHERE a_timestamp > $1
SELECT n FROM golden WHERE a_json = $1
SELECT n FROM golden WHERE "a_text" LIKE $1
SELECT n FROM golden WHERE list_contains(texts, $1)
SELECT n FROM golden WHERE integers = $1
SELECT n FROM golden WHERE row_id = $1
SELECT n FROM golden ORDER BY n LIMIT $1 OFFSET $2
SELECT n FROM golden WHERE n = $named
SELECT n FROM golden
SELECT unnest($1) AS v
SELECT * FROM range($1)
SELECT [$1, $2] AS v
SELECT {'a': $1} AS v
SELECT CASE WHEN $1 THEN 1 ELSE 2 END AS v
SELECT max($1) OVER () AS v FROM golden
SELECT * FROM (VALUES ($1), ($2)) t(v)
SELECT count(*) AS c FROM things WHERE name = $1 OR n > $2
EXPLAIN SELECT n FROM golden WHERE n = $1
