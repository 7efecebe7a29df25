SUMMARIZE FROM read_csv('x')
