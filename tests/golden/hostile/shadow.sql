WITH flights AS (SELECT 1 AS carrier), x AS (WITH flights AS (SELECT 2 AS carrier) SELECT * FROM flights) SELECT * FROM flights, x
