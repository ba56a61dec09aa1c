-- Two statements, each on its own.
CREATE INDEX CONCURRENTLY items_by_name ON items (name);
CREATE INDEX CONCURRENTLY items_by_name_and_id ON items (name, id);
