//! Validation of user names, email addresses and passwords.

use crate::error::{UserError, ValidationFault};

/// Checks the given values, and reports all problems together.
pub(crate) fn validate(
    username: Option<&str>,
    email: Option<&str>,
    password: Option<&str>,
) -> Result<(), UserError> {
    let mut faults = Vec::new();
    if let Some(username) = username {
        check_username(username, &mut faults);
    }
    if let Some(email) = email {
        check_email(email, &mut faults);
    }
    if password.is_some_and(|password| password.chars().count() < 6) {
        faults.push(ValidationFault::PasswordTooShort);
    }
    if faults.is_empty() {
        Ok(())
    } else {
        Err(UserError::Invalid(faults))
    }
}

fn check_username(username: &str, faults: &mut Vec<ValidationFault>) {
    if username.trim().chars().count() < 3 {
        faults.push(ValidationFault::UsernameTooShort);
    }
    if username.chars().count() > 50 {
        faults.push(ValidationFault::UsernameTooLong);
    }
    if username.chars().any(char::is_control) {
        faults.push(ValidationFault::UsernameControlCharacter);
    }
}

/// Checks the form of an email address. Only sending mail can show whether the address exists.
fn check_email(email: &str, faults: &mut Vec<ValidationFault>) {
    let parts = email.rsplit_once('@');
    let plausible = parts
        .is_some_and(|(name, host)| !name.is_empty() && !host.is_empty() && !name.contains('@'));
    if !plausible
        || email
            .chars()
            .any(|character| character.is_whitespace() || character.is_control())
    {
        faults.push(ValidationFault::InvalidEmail);
    }
    if email.chars().count() > 100 {
        faults.push(ValidationFault::EmailTooLong);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn faults(username: &str, email: &str, password: &str) -> String {
        validate(Some(username), Some(email), Some(password))
            .map_or_else(|error| error.to_string(), |()| String::new())
    }

    #[test]
    fn all_faults_are_reported_together() {
        assert_eq!(
            faults("ab", "invalid-email", "12345"),
            "Username must be at least 3 characters; Valid email address is required; Password must be at least 6 characters"
        );
        assert_eq!(faults("", "", ""), faults("ab", "invalid-email", "12345"));
    }

    #[test]
    fn lengths_are_counted_in_characters() {
        assert_eq!(faults("äöü", "ä@ö", "ßßßßßß"), "");
        assert_eq!(
            faults("äö", "ä@ö", "ßßßßßß"),
            "Username must be at least 3 characters"
        );
        assert_eq!(
            faults(&"ü".repeat(50), &format!("{}@b", "ü".repeat(98)), "123456"),
            ""
        );
        assert_eq!(
            faults(&"ü".repeat(51), &format!("{}@b", "ü".repeat(99)), "123456"),
            "Username must be at most 50 characters; Email must be at most 100 characters"
        );
    }

    #[test]
    fn invalid_addresses_are_refused() {
        for email in ["@", "a@", "@b", "a b@c", "a@b@c", "a@b\n", "a\0@b"] {
            assert_eq!(
                faults("ada", email, "123456"),
                "Valid email address is required",
                "{email:?}"
            );
        }
        assert_eq!(
            faults("a\0b", "a@b", "123456"),
            "Username must not contain control characters"
        );
        assert_eq!(
            faults("   ", "a@b", "123456"),
            "Username must be at least 3 characters"
        );
    }
}
