"""What `pulumi up` does beside ARM: key, database schema, packages, and the checks after them."""
