//! The database's tables: their columns, keys, indexes and sizes.

use std::panic::Location;

use crate::backend::Backend;
use crate::connection::{Connection, Purpose};
use crate::error::DbError;
use crate::params;
use crate::sql::{TableName, quote};
use crate::values::Row;

/// A table with its columns, keys, indexes and number of rows.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct TableInfo {
    /// The name as it was requested.
    pub table_name: String,
    /// The columns, in the table's order.
    pub columns: Vec<ColumnInfo>,
    /// The exact number of rows.
    pub row_count: i64,
    /// The columns of the primary key, in its order.
    pub primary_key: Vec<String>,
    /// The indexes, those of constraints included, sorted by name.
    pub indexes: Vec<IndexInfo>,
    /// The foreign keys, sorted by the constraints' names; on SQLite in the order of their declaration.
    pub foreign_keys: Vec<ForeignKeyInfo>,
    /// The size of the table and its indexes on disk in bytes, or `None` if the backend cannot report it.
    pub size_bytes: Option<i64>,
}

/// A column of a table.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct ColumnInfo {
    /// The name.
    pub column_name: String,
    /// The type, as the database names it.
    pub data_type: String,
    /// Whether the column can be NULL.
    pub is_nullable: bool,
    /// The default, as an expression.
    pub column_default: Option<String>,
}

/// An index of a table.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct IndexInfo {
    /// The name.
    pub index_name: String,
    /// Whether the index is unique.
    pub is_unique: bool,
    /// The columns. For an expression, its text on PostgreSQL and `None` on SQLite.
    pub columns: Vec<Option<String>>,
}

/// A foreign key of a table.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct ForeignKeyInfo {
    /// The name of the constraint. SQLite does not report it.
    pub constraint_name: Option<String>,
    /// The referring columns.
    pub columns: Vec<String>,
    /// The referenced table, in the form that [`get_table_info`](crate::DatabaseService::get_table_info) accepts.
    pub referenced_table: String,
    /// The referenced columns, one for each referring column. Empty if a SQLite foreign key refers to the primary key
    /// without naming it.
    pub referenced_columns: Vec<String>,
}

impl Connection {
    /// Returns the names of the tables, like [`DatabaseService::list_tables`](crate::DatabaseService::list_tables),
    /// including tables that the present transaction has created, and those of databases that were attached on this
    /// connection.
    ///
    /// # Errors
    ///
    /// Returns the server's error.
    #[track_caller]
    pub fn list_tables(&mut self) -> Result<Vec<String>, DbError> {
        self.on_behalf_of(Some(Location::caller()), Purpose::Internal, list_tables)
    }

    /// Describes a table, like [`DatabaseService::get_table_info`](crate::DatabaseService::get_table_info). The table
    /// can be temporary, belong to an attached database, or have been created by the present transaction.
    ///
    /// # Errors
    ///
    /// Returns the errors of [`DatabaseService::get_table_info`](crate::DatabaseService::get_table_info).
    #[track_caller]
    pub fn get_table_info(&mut self, table: &str) -> Result<TableInfo, DbError> {
        let describe = |connection: &mut Self| table_info(connection, table);
        self.on_behalf_of(Some(Location::caller()), Purpose::Internal, describe)
    }
}

fn table_info(connection: &mut Connection, table: &str) -> Result<TableInfo, DbError> {
    let found = find(connection, table)?;
    let of_table = params! { "schema" => found.schema.as_deref(), "name" => found.name.as_str() };
    let columns = match connection.backend() {
        Backend::Postgres => connection.execute_query(
            "SELECT a.attname::text AS column_name, pg_catalog.format_type(a.atttypid, NULL) AS data_type, \
             NOT a.attnotnull AS is_nullable, pg_catalog.pg_get_expr(d.adbin, d.adrelid) AS column_default \
             FROM pg_catalog.pg_attribute a \
             JOIN pg_catalog.pg_class c ON c.oid = a.attrelid \
             JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace \
             LEFT JOIN pg_catalog.pg_attrdef d ON d.adrelid = a.attrelid AND d.adnum = a.attnum \
             WHERE n.nspname = :schema AND c.relname = :name AND a.attnum > 0 AND NOT a.attisdropped \
             ORDER BY a.attnum",
            of_table.clone(),
        ),
        Backend::Sqlite => connection.execute_query(
            // A single INTEGER PRIMARY KEY is the row id and never NULL, whatever its declaration says.
            "SELECT name AS column_name, type AS data_type, dflt_value AS column_default, \
             NOT (\"notnull\" OR (pk > 0 AND upper(type) = 'INTEGER' \
             AND (SELECT count(*) FROM pragma_table_info(:name, :schema) WHERE pk > 0) = 1)) AS is_nullable \
             FROM pragma_table_xinfo(:name, :schema) WHERE hidden <> 1 ORDER BY cid",
            of_table.clone(),
        ),
    }?;
    let count = connection.execute_query(
        &format!("SELECT count(*) AS row_count FROM {}", found.quoted()),
        params! {},
    )?;
    let relations = Relations::of(connection.backend());
    let mut ask = |sql: &str| connection.execute_query(sql, of_table.clone());
    let primary_key = ask(relations.primary_key)?;
    let indexes = indexes(&ask(relations.indexes)?)?;
    let mut foreign_keys = foreign_keys(&ask(relations.foreign_keys)?)?;
    // SQLite can be built without `dbstat`, which reports sizes.
    let size = ask(relations.size).unwrap_or_default();
    if connection.backend() == Backend::Sqlite {
        for key in &mut foreign_keys {
            key.referenced_table = name_beside(&found, std::mem::take(&mut key.referenced_table));
        }
    }
    Ok(TableInfo {
        table_name: table.to_owned(),
        columns: columns.iter().map(column_info).collect::<Result<_, _>>()?,
        row_count: count.first().map_or(Ok(0), |row| row.get("row_count"))?,
        primary_key: primary_key
            .iter()
            .map(|row| row.get("column_name"))
            .collect::<Result<_, _>>()?,
        indexes,
        foreign_keys,
        size_bytes: size.first().map_or(Ok(None), |row| row.get("size"))?,
    })
}

/// Returns a table's name in the same SQLite database. Foreign keys cannot refer to another one.
fn name_beside(table: &TableName, name: String) -> String {
    let schema = table.schema.clone().filter(|schema| schema != "main");
    TableName { schema, name }.listed()
}

/// Returns the names of the tables, without views and the backend's own tables.
fn list_tables(connection: &mut Connection) -> Result<Vec<String>, DbError> {
    let mut names: Vec<String> = match connection.backend() {
        Backend::Postgres => connection
            .execute_query(
                "SELECT CASE WHEN pg_catalog.pg_table_is_visible(c.oid) THEN '' \
                 ELSE pg_catalog.quote_ident(n.nspname) || '.' END || pg_catalog.quote_ident(c.relname) AS name \
                 FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace \
                 WHERE c.relkind IN ('r', 'p', 'f') AND n.nspname <> 'information_schema' \
                 AND n.nspname NOT LIKE 'pg\\_%' AND NOT EXISTS (SELECT FROM pg_catalog.pg_depend d \
                 WHERE d.classid = 'pg_catalog.pg_class'::pg_catalog.regclass AND d.objid = c.oid AND d.deptype = 'e')",
                params! {},
            )?
            .iter()
            .map(|row| row.get("name"))
            .collect::<Result<_, _>>()?,
        Backend::Sqlite => connection
            .execute_query(
                "SELECT schema, name, schema = 'main' AND name COLLATE NOCASE NOT IN \
                 (SELECT name FROM sqlite_temp_schema WHERE type IN ('table', 'view')) AS is_found \
                 FROM pragma_table_list \
                 WHERE type IN ('table', 'virtual') AND schema <> 'temp' \
                 AND name NOT LIKE 'sqlite\\_%' ESCAPE '\\'",
                params! {},
            )?
            .iter()
            .map(|row| {
                let schema = (!row.get::<bool>("is_found")?).then(|| row.get("schema"));
                Ok(TableName { schema: schema.transpose()?, name: row.get("name")? }.listed())
            })
            .collect::<Result<_, DbError>>()?,
    };
    names.sort();
    Ok(names)
}

/// Reclaims the space of deleted rows, and refreshes the planner's statistics.
pub(crate) fn vacuum_analyze(
    connection: &mut Connection,
    table: Option<&str>,
) -> Result<(), DbError> {
    let table = table.map(|table| find(connection, table)).transpose()?;
    let quoted = table.as_ref().map(TableName::quoted).unwrap_or_default();
    let statement = match connection.backend() {
        Backend::Postgres => format!("VACUUM (ANALYZE) {quoted}"),
        // SQLite always vacuums the whole file.
        Backend::Sqlite => {
            let schema = table
                .and_then(|table| table.schema)
                .unwrap_or("main".into());
            format!("VACUUM {}; ANALYZE {quoted}", quote(&schema))
        }
    };
    Ok(connection.run(&statement)?)
}

/// Finds a table or view by its name, written as in a statement.
pub(crate) fn find(connection: &mut Connection, table: &str) -> Result<TableName, DbError> {
    let wanted = TableName::parse(table, connection.backend())?;
    let rows = match connection.backend() {
        Backend::Postgres => connection.execute_query(
            "SELECT n.nspname::text AS schema, c.relname::text AS name \
             FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace \
             WHERE c.relkind IN ('r', 'p', 'v', 'm', 'f') AND c.oid = pg_catalog.to_regclass(:table)",
            params! { "table" => wanted.quoted() },
        ),
        Backend::Sqlite => connection.execute_query(
            "SELECT tables.schema, tables.name FROM pragma_table_list AS tables \
             JOIN pragma_database_list AS databases ON databases.name = tables.schema \
             WHERE tables.name = :name COLLATE NOCASE \
             AND tables.schema = coalesce(:schema, tables.schema) COLLATE NOCASE \
             ORDER BY tables.schema = 'temp' DESC, databases.seq LIMIT 1",
            params! { "name" => wanted.name, "schema" => wanted.schema },
        ),
    }?;
    let row = rows.first().ok_or_else(|| DbError::UnknownTable {
        table: table.to_owned(),
    })?;
    Ok(TableName {
        schema: Some(row.get("schema")?),
        name: row.get("name")?,
    })
}

/// Groups rows, one per column, by index.
fn indexes(rows: &[Row]) -> Result<Vec<IndexInfo>, DbError> {
    let mut indexes: Vec<IndexInfo> = Vec::new();
    for row in rows {
        let (index_name, column): (String, _) = (row.get("index_name")?, row.get("column_name")?);
        match indexes
            .last_mut()
            .filter(|last| last.index_name == index_name)
        {
            Some(last) => last.columns.push(column),
            None => indexes.push(IndexInfo {
                index_name,
                is_unique: row.get("is_unique")?,
                columns: vec![column],
            }),
        }
    }
    Ok(indexes)
}

/// Groups rows, one per column, by foreign key.
fn foreign_keys(rows: &[Row]) -> Result<Vec<ForeignKeyInfo>, DbError> {
    let mut keys: Vec<(i64, ForeignKeyInfo)> = Vec::new();
    for row in rows {
        let id: i64 = row.get("id")?;
        if keys.last().is_none_or(|(last, _)| *last != id) {
            let key = ForeignKeyInfo {
                constraint_name: row.get("constraint_name")?,
                columns: Vec::new(),
                referenced_table: row.get("referenced_table")?,
                referenced_columns: Vec::new(),
            };
            keys.push((id, key));
        }
        if let Some((_, key)) = keys.last_mut() {
            key.columns.push(row.get("column_name")?);
            key.referenced_columns
                .extend(row.get::<Option<String>>("referenced_column")?);
        }
    }
    Ok(keys.into_iter().map(|(_, key)| key).collect())
}

fn column_info(row: &Row) -> Result<ColumnInfo, DbError> {
    Ok(ColumnInfo {
        column_name: row.get("column_name")?,
        data_type: row.get("data_type")?,
        is_nullable: row.get("is_nullable")?,
        column_default: row.get("column_default")?,
    })
}

/// The statements that describe a table. `:schema` and `:name` are the table.
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
