SELECT CAST(1 AS pg_catalog.int4), CAST('x' AS main.mytype), NULL::ENUM('a', 'b'), NULL::UNION(a INT)
