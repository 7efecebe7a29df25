SELECT * FROM query('FROM flights')
