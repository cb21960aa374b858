"""What a fraud decision is: standard library and numpy only, no I/O, no clock."""
