SELECT COLUMNS(lambda c: c LIKE 'c%') FROM flights
