"""The database schema: tables, migrations, roles and their rights. No app imports it; `tollgate db` does."""
