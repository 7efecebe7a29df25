SELECT * FROM json_execute_serialized_sql('{}')
