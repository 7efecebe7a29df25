SELECT $1, $name, ?, ? FROM flights WHERE carrier = $1
