//! The migrations that tests and their programs share.

use db_service::Migrations;
use diesel_migrations::embed_migrations;

/// A table, rows in it, and indexes that are made outside of a transaction.
pub static SHOP_MIGRATIONS: Migrations = Migrations::new()
    .named("shop")
    .sqlite(embed_migrations!("migrations/shop/sqlite"))
    .postgres(embed_migrations!("migrations/shop/postgres"));
