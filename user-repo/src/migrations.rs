//! The migrations of the table `users`.

use db_service::Migrations;
use diesel_migrations::embed_migrations;

/// The migrations that create the table `users`. [`UserRepository`](crate::UserRepository) applies them when it
/// initializes.
pub static MIGRATIONS: Migrations = Migrations::new()
    .named("user-repo")
    .sqlite(embed_migrations!("migrations/sqlite"))
    .postgres(embed_migrations!("migrations/postgres"));
