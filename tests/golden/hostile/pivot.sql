SELECT * FROM flights PIVOT (count(*) FOR origin IN ('JFK', 'LGA') GROUP BY carrier)
