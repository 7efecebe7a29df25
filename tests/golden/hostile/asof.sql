SELECT * FROM flights f ASOF LEFT JOIN carriers c USING (code, updated_at)
