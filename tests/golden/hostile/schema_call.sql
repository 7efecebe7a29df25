SELECT pg_catalog.lower('x'), main.lower('x'), system.main.lower('x'), temp.main.lower('x')
