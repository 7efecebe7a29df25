DESCRIBE 'file.parquet'
