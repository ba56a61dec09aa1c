//! Creates several users in one transaction, and shows that a failing transaction creates none.

use db_service::{Connection, DatabaseService, DbError, params};
use user_repo::{PasswordService, UserError, UserRepository};

const USERS: [(&str, &str); 3] = [
    ("alice", "alice@example.com"),
    ("bob", "bob@example.com"),
    ("charlie", "charlie@example.com"),
];

fn main() -> anyhow::Result<()> {
    examples::prepare()?;
    // Creates the table on the first run.
    UserRepository::instance()?;
    delete_users_of_earlier_run()?;

    let created = create_users(&USERS)?;
    println!(
        "Created {} users in one transaction: {created:?}",
        created.len()
    );

    // The second username is taken, so the first user is not created either.
    match create_users(&[
        ("dave", "dave@example.com"),
        ("alice", "alice@elsewhere.example.com"),
    ]) {
        Ok(_) => anyhow::bail!("two users have the same username"),
        Err(error) => println!("Transaction failed and was rolled back: {error}"),
    }
    println!(
        "User dave exists: {}",
        UserRepository::get_user_by_username("dave")?.is_some()
    );
    let status = DatabaseService::get_pool_status()?;
    println!(
        "Transactions committed: {}, rolled back: {}",
        status.transactions_committed, status.transactions_rolled_back
    );
    Ok(())
}

/// Inserts all users or none with SQL, and returns their usernames and IDs.
fn create_users(users: &[(&str, &str)]) -> Result<Vec<(String, i64)>, UserError> {
    // Hashing is slow on purpose. Before the transaction, it holds no connection and no lock.
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

/// Deletes the rows themselves. `delete_user` would keep the rows, and their usernames would stay taken.
fn delete_users_of_earlier_run() -> anyhow::Result<()> {
    let usernames: Vec<_> = USERS
        .iter()
        .map(|(username, _)| params! { "username" => *username })
        .collect();
    DatabaseService::execute_many("DELETE FROM users WHERE username = :username", &usernames)?;
    Ok(())
}
