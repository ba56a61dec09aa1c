//! What the database says of its tables.

use crate::backend::Backend;
use crate::error::DbError;
use crate::multi::DbConnection as Connection;
use crate::params;
use crate::relations::Relations;
use crate::row::Row;

/// A table: its columns and how many rows it has.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct TableInfo {
    /// The name, as it was asked for.
    pub table_name: String,
    /// The columns, in the table's order.
    pub columns: Vec<ColumnInfo>,
    /// The number of rows, counted.
    pub row_count: i64,
    /// The columns of the primary key, in its order.
    pub primary_key: Vec<String>,
    /// The indexes, those behind constraints included, by name.
    pub indexes: Vec<IndexInfo>,
    /// What the table refers to, in the order of the constraints' names; on SQLite in that of their declaration.
    pub foreign_keys: Vec<ForeignKeyInfo>,
    /// What the table and its indexes take on disk; `None` where the backend cannot tell.
    pub size_bytes: Option<i64>,
}

/// A column of a table.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct ColumnInfo {
    /// The name.
    pub column_name: String,
    /// The type, in the database's words.
    pub data_type: String,
    /// Whether it may be NULL.
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
    /// Whether no two rows have the same in it.
    pub is_unique: bool,
    /// The columns, or on PostgreSQL the expressions that stand for them; `None` for an expression of SQLite.
    pub columns: Vec<Option<String>>,
}

/// A foreign key of a table.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct ForeignKeyInfo {
    /// The name of the constraint; SQLite does not tell it.
    pub constraint_name: Option<String>,
    /// The columns that refer.
    pub columns: Vec<String>,
    /// The table that is referred to, as [`get_table_info`](crate::DatabaseService::get_table_info) takes its name.
    pub referenced_table: String,
    /// The columns there, one for each; none where on SQLite the primary key is meant.
    pub referenced_columns: Vec<String>,
}

/// A table that exists, with its name quoted for use in a statement.
struct Table {
    /// Schema and name, where the backend has schemas.
    schema: String,
    name: String,
    quoted: String,
}

pub(crate) fn table_info(connection: &mut Connection, table: &str) -> Result<TableInfo, DbError> {
    let found = find(connection, table)?;
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
            params! { "schema" => found.schema.as_str(), "name" => found.name.as_str() },
        ),
        Backend::Sqlite => connection.execute_query(
            // Alone, an INTEGER PRIMARY KEY is the row's own number and never NULL, whatever it is declared.
            "SELECT name AS column_name, type AS data_type, dflt_value AS column_default, \
             NOT (\"notnull\" OR (pk > 0 AND upper(type) = 'INTEGER' \
             AND (SELECT count(*) FROM pragma_table_info(:name) WHERE pk > 0) = 1)) AS is_nullable \
             FROM pragma_table_xinfo(:name) WHERE hidden <> 1 ORDER BY cid",
            params! { "name" => found.name.as_str() },
        ),
    }?;
    let count = connection.execute_query(
        &format!("SELECT count(*) AS row_count FROM {}", found.quoted),
        params! {},
    )?;
    let relations = Relations::of(connection.backend());
    let mut ask = |sql: &str| {
        let mut params = params! { "name" => found.name.as_str() };
        if connection.backend() == Backend::Postgres {
            params = params.with("schema", found.schema.as_str());
        }
        connection.execute_query(sql, params)
    };
    let primary_key = ask(relations.primary_key)?;
    let indexes = indexes(&ask(relations.indexes)?)?;
    let foreign_keys = foreign_keys(&ask(relations.foreign_keys)?)?;
    // SQLite can be built without the table that knows.
    let size = ask(relations.size).unwrap_or_default();
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

/// Lists the tables by name, views and the backend's own apart.
pub(crate) fn list_tables(connection: &mut Connection) -> Result<Vec<String>, DbError> {
    let sql = match connection.backend() {
        Backend::Postgres => {
            "SELECT CASE WHEN pg_catalog.pg_table_is_visible(c.oid) THEN c.relname::text \
             ELSE n.nspname || '.' || c.relname END AS name \
             FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace \
             WHERE c.relkind IN ('r', 'p', 'f') AND n.nspname <> 'information_schema' \
             AND n.nspname NOT LIKE 'pg\\_%' ORDER BY 1"
        }
        Backend::Sqlite => {
            "SELECT name FROM sqlite_schema WHERE type = 'table' AND name NOT LIKE 'sqlite\\_%' ESCAPE '\\' ORDER BY name"
        }
    };
    let rows = connection.execute_query(sql, params! {})?;
    rows.iter().map(|row| row.get("name")).collect()
}

/// Collects what deleted rows have left, and refreshes the planner's statistics.
pub(crate) fn vacuum_analyze(
    connection: &mut Connection,
    table: Option<&str>,
) -> Result<(), DbError> {
    let table = table
        .map(|table| find(connection, table))
        .transpose()?
        .map_or(String::new(), |table| table.quoted);
    let statement = match connection.backend() {
        Backend::Postgres => format!("VACUUM (ANALYZE) {table}"),
        // SQLite vacuums the whole file, or not at all.
        Backend::Sqlite => format!("VACUUM; ANALYZE {table}"),
    };
    Ok(connection.run(&statement)?)
}

/// Finds a table by its exact name, in PostgreSQL also as `schema.table`.
fn find(connection: &mut Connection, table: &str) -> Result<Table, DbError> {
    let unknown = || DbError::UnknownTable {
        table: table.to_owned(),
    };
    // No table has it in its name, and PostgreSQL takes no text that has.
    if table.contains('\0') {
        return Err(unknown());
    }
    let sql = match connection.backend() {
        Backend::Postgres => {
            "SELECT n.nspname::text AS schema, c.relname::text AS name \
             FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace \
             WHERE c.relkind IN ('r', 'p', 'v', 'm', 'f') \
             AND (c.relname = :table AND pg_catalog.pg_table_is_visible(c.oid) \
                  OR n.nspname || '.' || c.relname = :table) \
             ORDER BY c.relname = :table DESC LIMIT 1"
        }
        Backend::Sqlite => {
            "SELECT '' AS schema, name FROM \
             (SELECT type, name FROM sqlite_temp_schema UNION ALL SELECT type, name FROM sqlite_schema) \
             WHERE type IN ('table', 'view') AND name = :table COLLATE NOCASE"
        }
    };
    let rows = connection.execute_query(sql, params! { "table" => table })?;
    let row = rows.first().ok_or_else(unknown)?;
    let (schema, name): (String, String) = (row.get("schema")?, row.get("name")?);
    let quoted = if schema.is_empty() {
        quote(&name)
    } else {
        format!("{}.{}", quote(&schema), quote(&name))
    };
    Ok(Table {
        schema,
        name,
        quoted,
    })
}

/// Quotes a name as standard SQL does, which both backends follow.
fn quote(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// Gathers the rows of each index, one a column.
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

/// Gathers the rows of each foreign key, one a column.
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
