SELECT * FROM sniff_csv('x')
