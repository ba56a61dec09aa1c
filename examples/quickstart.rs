//! Creates a user, reads and changes it, verifies its password, and prints statistics.

use db_service::{DatabaseService, params};
use user_repo::{ListUsers, UserRepository, UserUpdate};

fn main() -> anyhow::Result<()> {
    examples::prepare()?;
    delete_user_of_earlier_run()?;

    let user = UserRepository::create_user("john_doe", "john@example.com", "secure_password123")?;
    println!("Created user: {} (ID: {})", user.username, user.id);

    if let Some(found) = UserRepository::get_user_by_id(user.id)? {
        println!("Retrieved user: {}", found.email);
    }
    if let Some(updated) =
        UserRepository::update_user(user.id, UserUpdate::new().email("john.doe@example.com"))?
    {
        println!("Updated email: {}", updated.email);
    }
    if UserRepository::verify_password("john_doe", "secure_password123")?.is_some() {
        println!("Password verified");
    }
    let users = UserRepository::list_users(ListUsers::default().limit(10))?;
    println!("Found {} users", users.len());
    println!("User statistics: {:#?}", UserRepository::get_user_stats()?);
    println!("Pool status: {:#?}", DatabaseService::get_pool_status()?);
    Ok(())
}

/// Deletes the row itself. `delete_user` would keep the row, and its username would stay taken.
fn delete_user_of_earlier_run() -> anyhow::Result<()> {
    // Creates the table on the first run.
    UserRepository::instance()?;
    DatabaseService::execute_query(
        "DELETE FROM users WHERE username = :username",
        params! { "username" => "john_doe" },
    )?;
    Ok(())
}
