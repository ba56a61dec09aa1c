//! What is asked about a table beside its columns.

use crate::backend::Backend;

/// One statement for each question; `:schema` and `:name` are the table.
pub(crate) struct Relations {
    pub(crate) primary_key: &'static str,
    pub(crate) indexes: &'static str,
    pub(crate) foreign_keys: &'static str,
    pub(crate) size: &'static str,
}

impl Relations {
    pub(crate) fn of(backend: Backend) -> &'static Self {
        match backend {
            Backend::Postgres => &POSTGRES,
            Backend::Sqlite => &SQLITE,
        }
    }
}

/// The table's row of `pg_class`.
macro_rules! of_table {
    ($select:literal, $order:literal) => {
        concat!(
            "WITH wanted AS (SELECT c.oid FROM pg_catalog.pg_class c \
             JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace \
             WHERE n.nspname = :schema AND c.relname = :name) ",
            $select,
            $order
        )
    };
}

static POSTGRES: Relations = Relations {
    primary_key: of_table!(
        "SELECT a.attname::text AS column_name FROM wanted \
         JOIN pg_catalog.pg_index i ON i.indrelid = wanted.oid AND i.indisprimary \
         CROSS JOIN LATERAL unnest(i.indkey) WITH ORDINALITY AS key (number, position) \
         JOIN pg_catalog.pg_attribute a ON a.attrelid = wanted.oid AND a.attnum = key.number ",
        "ORDER BY key.position"
    ),
    indexes: of_table!(
        "SELECT c.relname::text AS index_name, i.indisunique AS is_unique, \
         pg_catalog.pg_get_indexdef(i.indexrelid, key.position::int, true) AS column_name FROM wanted \
         JOIN pg_catalog.pg_index i ON i.indrelid = wanted.oid \
         JOIN pg_catalog.pg_class c ON c.oid = i.indexrelid \
         CROSS JOIN LATERAL generate_series(1, i.indnkeyatts) AS key (position) ",
        "ORDER BY c.relname, key.position"
    ),
    foreign_keys: of_table!(
        "SELECT f.oid AS id, f.conname::text AS constraint_name, a.attname::text AS column_name, \
         CASE WHEN pg_catalog.pg_table_is_visible(c.oid) THEN '' \
         ELSE pg_catalog.quote_ident(n.nspname) || '.' END || pg_catalog.quote_ident(c.relname) AS referenced_table, b.attname::text AS referenced_column \
         FROM wanted JOIN pg_catalog.pg_constraint f ON f.conrelid = wanted.oid AND f.contype = 'f' \
         JOIN pg_catalog.pg_class c ON c.oid = f.confrelid \
         JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace \
         CROSS JOIN LATERAL unnest(f.conkey, f.confkey) WITH ORDINALITY AS key (number, referenced, position) \
         JOIN pg_catalog.pg_attribute a ON a.attrelid = f.conrelid AND a.attnum = key.number \
         JOIN pg_catalog.pg_attribute b ON b.attrelid = f.confrelid AND b.attnum = key.referenced ",
        "ORDER BY f.conname, f.oid, key.position"
    ),
    size: of_table!(
        "SELECT pg_catalog.pg_total_relation_size(wanted.oid) AS size FROM wanted",
        ""
    ),
};

static SQLITE: Relations = Relations {
    primary_key: "SELECT name AS column_name FROM pragma_table_info(:name, :schema) WHERE pk > 0 ORDER BY pk",
    indexes: "SELECT list.name AS index_name, list.\"unique\" AS is_unique, info.name AS column_name \
         FROM pragma_index_list(:name, :schema) AS list, pragma_index_info(list.name, :schema) AS info \
         ORDER BY list.name, info.seqno",
    foreign_keys: "SELECT id, NULL AS constraint_name, \"from\" AS column_name, \"table\" AS referenced_table, \
         \"to\" AS referenced_column FROM pragma_foreign_key_list(:name, :schema) ORDER BY id DESC, seq",
    size: "SELECT sum(pgsize) AS size FROM dbstat(:schema) \
         WHERE name = :name OR name IN (SELECT name FROM pragma_index_list(:name, :schema))",
};
