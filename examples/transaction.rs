//! Transactions: one that creates several users, and one that fails in the middle and changes nothing.

use db_service::{Connection, DatabaseService, DbError, params};
use user_repo::{PasswordService, UserError, UserRepository};

const BATCH: [(&str, &str); 3] = [
    ("alice", "alice@example.com"),
    ("bob", "bob@example.com"),
    ("charlie", "charlie@example.com"),
];

fn main() -> anyhow::Result<()> {
    examples::prepare()?;
    UserRepository::instance()?;
    remove_leftovers()?;

    let created = create_users(&BATCH)?;
    println!(
        "Successfully created {} users in transaction: {created:?}",
        created.len()
    );

    // The second name is taken, so neither user is created.
    match create_users(&[
        ("dave", "dave@example.com"),
        ("alice", "alice@elsewhere.example.com"),
    ]) {
        Ok(_) => anyhow::bail!("a name was given twice"),
        Err(error) => println!("Transaction failed, all changes rolled back: {error}"),
    }
    println!(
        "dave exists: {}",
        UserRepository::get_user_by_username("dave")?.is_some()
    );
    let status = DatabaseService::get_pool_status()?;
    println!(
        "Committed: {}, rolled back: {}",
        status.transactions_committed, status.transactions_rolled_back
    );
    Ok(())
}

/// Inserts all users or none, and returns their names and ids.
fn create_users(users: &[(&str, &str)]) -> Result<Vec<(String, i64)>, UserError> {
    // Hashing takes long, so it is done before the transaction.
    let password_hash = PasswordService::hash("password123")?;
    DatabaseService::transaction(|connection| {
        let insert = |(username, email): &(&str, &str)| {
            insert_user(connection, username, email, &password_hash)
                .map(|id| ((*username).to_owned(), id))
        };
        Ok(users.iter().map(insert).collect::<Result<_, _>>()?)
    })
}

fn insert_user(
    connection: &mut Connection,
    username: &str,
    email: &str,
    password_hash: &str,
) -> Result<i64, DbError> {
    let rows = connection.execute_query(
        "INSERT INTO users (username, email, password_hash) VALUES (:username, :email, :password_hash) RETURNING id",
        params! { "username" => username, "email" => email, "password_hash" => password_hash },
    )?;
    rows.first().ok_or(DbError::NoRow)?.get("id")
}

/// Removes the users of an earlier run, which would still have the names.
fn remove_leftovers() -> anyhow::Result<()> {
    let names: Vec<_> = BATCH
        .iter()
        .map(|(username, _)| params! { "username" => *username })
        .collect();
    DatabaseService::execute_many("DELETE FROM users WHERE username = :username", &names)?;
    Ok(())
}
