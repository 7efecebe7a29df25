-- What an application writes: three customers that were never flushed. Running it again changes nothing.

BEGIN;

INSERT INTO schema_registry VALUES (100, 'customers') ON CONFLICT DO NOTHING;

INSERT INTO entity_main (ltbase_schema_id, ltbase_row_id, text_01, bigint_01, ltbase_created_at, ltbase_updated_at)
VALUES
  (100, '01940000-0000-7000-8000-000000000001', 'Ada', 1704067200000, 1735000000000, 1735000000000),
  (100, '01940000-0000-7000-8000-000000000002', 'Grace', 1709251200000, 1735000000000, 1735000000000),
  (100, '01940000-0000-7000-8000-000000000003', 'Edsger', 1717200000000, 1735000000000, 1735000000000)
ON CONFLICT DO NOTHING;

INSERT INTO eav_data (schema_id, row_id, attr_id, array_indices, value_text, value_numeric)
VALUES
  (100, '01940000-0000-7000-8000-000000000001', 201, '', NULL, 1000),
  (100, '01940000-0000-7000-8000-000000000001', 202, '0', 'analyst', NULL),
  (100, '01940000-0000-7000-8000-000000000001', 202, '1', 'founder', NULL),
  (100, '01940000-0000-7000-8000-000000000002', 201, '', NULL, 2500.5)
ON CONFLICT DO NOTHING;

INSERT INTO change_log (schema_id, row_id, changed_at)
SELECT ltbase_schema_id, ltbase_row_id, ltbase_updated_at FROM entity_main
WHERE NOT EXISTS (SELECT FROM change_log WHERE row_id = ltbase_row_id);

COMMIT;
