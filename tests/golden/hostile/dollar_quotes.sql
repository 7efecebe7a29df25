SELECT $$it's$$, $tag$ $$ $tag$, E'\x27', U&'\0061'
