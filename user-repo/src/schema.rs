//! The table `users`, as migrations.

use db_service::Migrations;
use diesel_migrations::embed_migrations;

/// The migrations that make the table `users`; [`UserRepository`](crate::UserRepository) applies them when it starts.
pub static MIGRATIONS: Migrations = Migrations::new()
    .named("user-repo")
    .sqlite(embed_migrations!("migrations/sqlite"))
    .postgres(embed_migrations!("migrations/postgres"));
