SELECT {'a': 1, 'b': carrier}.b, struct_pack(a := 1) FROM flights
