SELECT #1, #2 FROM flights, carriers ORDER BY #1
