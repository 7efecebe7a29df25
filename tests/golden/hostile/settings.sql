SELECT current_setting('threads'), getenv('HOME'), getvariable('x')
