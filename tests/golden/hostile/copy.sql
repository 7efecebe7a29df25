COPY (FROM flights) TO '/tmp/x.parquet'
