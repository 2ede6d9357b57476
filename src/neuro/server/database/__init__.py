"""SQLite embedded, PostgreSQL to scale: one engine, one transaction helper, migrations."""
