"""Tollgate's product library: pure domain in the middle, vendors only at the rim."""
