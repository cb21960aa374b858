"""Use cases, one module each, with ports as arguments."""
