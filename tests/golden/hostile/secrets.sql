SELECT * FROM duckdb_secrets() UNION ALL SELECT name FROM which_secret('s3://x', 's3')
