SELECT * FROM seq_scan('flights')
