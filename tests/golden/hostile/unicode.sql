SELECT 'İ', 'ſ', 'K' AS "ｆｕｌｌ" FROM flights WHERE carrier = '日本'
