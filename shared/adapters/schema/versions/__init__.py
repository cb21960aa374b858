"""Migrations, one module each, numbered in the order in which they are applied."""
