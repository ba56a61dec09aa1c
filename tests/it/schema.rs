//! Descriptions of tables, and the names of tables.

mod table_names;
mod tables;
