SELECT /* ; DROP TABLE flights */ 1 -- ; SELECT 2

