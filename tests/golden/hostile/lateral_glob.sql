SELECT f.carrier FROM flights f, LATERAL (SELECT * FROM glob(f.carrier)) g
