SELECT carrier, origin, grouping(carrier) FROM flights GROUP BY CUBE (carrier, origin) HAVING grouping(carrier) = 0
