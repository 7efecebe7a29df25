SELECT map {'a': 1}['a'], MAP([1], [2])
