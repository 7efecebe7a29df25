SELECT * FROM arrow_scan(1, 2, 3)
