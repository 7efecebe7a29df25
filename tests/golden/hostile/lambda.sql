SELECT list_transform(tags, lambda t: lower(t)), list_filter([1, 2], x -> x > 1) FROM flights
