"""The event store: one interface, its schema, and its two kinds, SQLite and PostgreSQL."""
