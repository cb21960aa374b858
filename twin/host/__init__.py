"""A functions host for one machine: drives Microsoft's own Python worker library."""
