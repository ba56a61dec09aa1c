//! Hashing passwords and checking them: Argon2id, and the seed's SHA-256 for as long as some are left.

use std::fmt;

use argon2::password_hash::phc::PasswordHash;
use argon2::password_hash::{Error as HashError, PasswordHasher, PasswordVerifier};
use argon2::{Algorithm, Argon2, Params, Version};
use sha2::{Digest, Sha256};
use singleton_core::{Service, env, guarded, service};
use subtle::ConstantTimeEq;

use crate::error::UserError;

/// What one hash costs, and so what guessing a password costs.
///
/// The default is the one of OWASP's [Password Storage Cheat Sheet] with 19 MiB; it asks for no less.
///
/// [Password Storage Cheat Sheet]: https://cheatsheetseries.owasp.org/cheatsheets/Password_Storage_Cheat_Sheet.html
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Argon2Params {
    /// Memory in KiB (`PASSWORD_MEMORY_KIB`, 19456).
    pub memory_kib: u32,
    /// Passes over the memory (`PASSWORD_ITERATIONS`, 2).
    pub iterations: u32,
    /// Lanes (`PASSWORD_PARALLELISM`, 1).
    pub parallelism: u32,
}

impl Argon2Params {
    /// The dearest that a stored hash may ask for: what others allow, and what one row may cost us.
    const LIMIT: Argon2Params = Argon2Params {
        memory_kib: 1 << 20,
        iterations: 10,
        parallelism: 16,
    };

    fn from_env() -> anyhow::Result<Self> {
        let default = Argon2Params::default();
        Ok(Argon2Params {
            memory_kib: read(
                "PASSWORD_MEMORY_KIB",
                default.memory_kib,
                Self::LIMIT.memory_kib,
            )?,
            iterations: read(
                "PASSWORD_ITERATIONS",
                default.iterations,
                Self::LIMIT.iterations,
            )?,
            parallelism: read(
                "PASSWORD_PARALLELISM",
                default.parallelism,
                Self::LIMIT.parallelism,
            )?,
        })
    }

    fn hasher(self) -> Result<Argon2<'static>, argon2::Error> {
        let params = Params::new(self.memory_kib, self.iterations, self.parallelism, None)?;
        Ok(Argon2::new(Algorithm::Argon2id, Version::V0x13, params))
    }
}

impl Default for Argon2Params {
    fn default() -> Self {
        Argon2Params {
            memory_kib: 19 * 1024,
            iterations: 2,
            parallelism: 1,
        }
    }
}

fn read(variable: &str, default: u32, limit: u32) -> anyhow::Result<u32> {
    match env::var(variable) {
        Err(env::VarError::NotPresent) => Ok(default),
        Ok(value) if value.trim().is_empty() => Ok(default),
        Ok(value) => match value.trim().parse() {
            Ok(number) if (1..=limit).contains(&number) => Ok(number),
            _ => anyhow::bail!("{variable} must be a whole number between 1 and {limit}"),
        },
        Err(error @ env::VarError::NotUnicode(_)) => {
            Err(anyhow::Error::new(error).context(variable.to_owned()))
        }
    }
}

/// Hashes passwords; what that costs is set by environment variables, see [`Argon2Params`].
#[service]
pub struct PasswordService {
    hasher: Argon2<'static>,
    /// Checked in the place of a hash that is not there, so that nobody can tell by the time.
    decoy: String,
}

impl Service for PasswordService {
    fn initialize() -> anyhow::Result<Self> {
        Ok(PasswordService::new(Argon2Params::from_env()?)?)
    }
}

impl PasswordService {
    /// Makes a service with these parameters, to be provided to a [`Scope`](singleton_core::testing::Scope).
    ///
    /// # Errors
    ///
    /// [`UserError::Hashing`]: Argon2 does not work with these parameters.
    pub fn new(params: Argon2Params) -> Result<Self, UserError> {
        let hasher = params
            .hasher()
            .map_err(|error| UserError::Hashing(error.into()))?;
        let decoy = hash_with(&hasher, "a password that nobody has")?;
        Ok(PasswordService { hasher, decoy })
    }

    /// Hashes a password with a salt of its own, as a PHC string.
    ///
    /// # Errors
    ///
    /// [`UserError::Hashing`]: there is not enough memory, or the system gives no random numbers.
    #[guarded]
    pub fn hash(&self, password: &str) -> Result<String, UserError> {
        hash_with(&self.hasher, password)
    }

    /// Checks a password against what is stored, or with `None` takes the same time over nothing.
    #[guarded]
    pub(crate) fn check(
        &self,
        password: &str,
        stored: Option<&str>,
    ) -> Result<Verdict, CheckError> {
        match stored {
            None => self.check_decoy(password).map(|()| Verdict::Wrong),
            Some(stored) if is_sha256(stored) => {
                self.check_decoy(password)?;
                let digest: [u8; 32] = Sha256::digest(password).into();
                let equal = hex(&digest)
                    .as_bytes()
                    .ct_eq(stored.to_ascii_lowercase().as_bytes());
                Ok(if bool::from(equal) {
                    Verdict::RightButOutdated
                } else {
                    Verdict::Wrong
                })
            }
            Some(stored) => self.check_argon2(password, stored),
        }
    }

    fn check_decoy(&self, password: &str) -> Result<(), CheckError> {
        self.check_argon2(password, &self.decoy).map(|_| ())
    }

    fn check_argon2(&self, password: &str, stored: &str) -> Result<Verdict, CheckError> {
        let mut hash =
            PasswordHash::new(stored).map_err(|error| CheckError::Unusable(error.to_string()))?;
        if hash.salt.is_none() || hash.hash.is_none() {
            return Err(CheckError::Unusable("it is not complete".to_owned()));
        }
        let params =
            Params::try_from(&hash).map_err(|error| CheckError::Unusable(error.to_string()))?;
        let limit = Argon2Params::LIMIT;
        if params.m_cost() > limit.memory_kib
            || params.t_cost() > limit.iterations
            || params.p_cost() > limit.parallelism
        {
            return Err(CheckError::Unusable(
                "its parameters are beyond what is allowed".to_owned(),
            ));
        }
        // The first version of Argon2 wrote none, and was 16; the crate would take it for 19.
        hash.version.get_or_insert(Version::V0x10.into());
        match self.hasher.verify_password(password.as_bytes(), &hash) {
            Ok(()) => Ok(Verdict::Right),
            Err(HashError::PasswordInvalid) => Ok(Verdict::Wrong),
            Err(error) => Err(CheckError::Unusable(error.to_string())),
        }
    }
}

impl fmt::Debug for PasswordService {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("PasswordService")
            .field("params", self.hasher.params())
            .finish()
    }
}

/// What became of a check.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    Right,
    /// Right, but stored in a way that should be replaced.
    RightButOutdated,
    Wrong,
}

#[derive(Debug)]
pub(crate) enum CheckError {
    Service(singleton_core::Error),
    /// What is stored cannot be checked, and why.
    Unusable(String),
}

impl From<singleton_core::Error> for CheckError {
    fn from(error: singleton_core::Error) -> Self {
        CheckError::Service(error)
    }
}

fn hash_with(hasher: &Argon2<'_>, password: &str) -> Result<String, UserError> {
    let hash = hasher
        .hash_password(password.as_bytes())
        .map_err(UserError::Hashing)?;
    Ok(hash.to_string())
}

/// Tells the seed's hashes: 64 hexadecimal digits, where PHC strings begin with a dollar sign.
fn is_sha256(stored: &str) -> bool {
    stored.len() == 64 && stored.bytes().all(|byte| byte.is_ascii_hexdigit())
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use singleton_core::testing::Scope;

    use super::*;

    const CHEAP: Argon2Params = Argon2Params {
        memory_kib: 8,
        iterations: 1,
        parallelism: 1,
    };

    #[track_caller]
    fn check(password: &str, stored: Option<&str>) -> Result<Verdict, CheckError> {
        Scope::new()
            .provide(PasswordService::new(CHEAP).unwrap())
            .run(|| PasswordService::check(password, stored))
    }

    #[test]
    fn hashes_are_argon2id_with_the_parameters_of_owasp_and_a_salt_each() {
        let hashes = Scope::new().run(|| {
            [
                PasswordService::hash("secret").unwrap(),
                PasswordService::hash("secret").unwrap(),
            ]
        });
        assert_ne!(hashes[0], hashes[1]);
        for hash in hashes {
            assert!(
                hash.starts_with("$argon2id$v=19$m=19456,t=2,p=1$"),
                "{hash}"
            );
            assert_eq!(check("secret", Some(&hash)).unwrap(), Verdict::Right);
            assert_eq!(check("Secret", Some(&hash)).unwrap(), Verdict::Wrong);
        }
    }

    #[test]
    fn the_hashes_of_the_seed_still_verify() {
        // python3 -c 'import hashlib; print(hashlib.sha256(b"password123").hexdigest())'
        let stored = "ef92b778bafe771e89245b89ecbc08a44a4e166c06659911881f383d4473e94f";
        assert_eq!(
            check("password123", Some(stored)).unwrap(),
            Verdict::RightButOutdated
        );
        assert_eq!(
            check("password123", Some(&stored.to_uppercase())).unwrap(),
            Verdict::RightButOutdated
        );
        assert_eq!(check("password124", Some(stored)).unwrap(), Verdict::Wrong);
        assert_eq!(check("password123", None).unwrap(), Verdict::Wrong);
    }

    #[test]
    fn hostile_hashes_are_refused_before_they_cost_anything() {
        for (stored, reason) in [
            ("", ""),
            ("plain text", ""),
            ("$argon2id", "not complete"),
            ("$argon2id$v=19$m=19456,t=2,p=1$c29tZXNhbHQ", "not complete"),
            (
                "$argon2id$v=19$m=4294967295,t=1,p=1$c29tZXNhbHQ$aGFzaGhhc2hoYXNo",
                "beyond what is allowed",
            ),
            (
                "$argon2id$v=19$m=8,t=4294967295,p=1$c29tZXNhbHQ$aGFzaGhhc2hoYXNo",
                "beyond what is allowed",
            ),
            (
                "$argon2id$v=19$m=4096,t=1,p=255$c29tZXNhbHQ$aGFzaGhhc2hoYXNo",
                "beyond what is allowed",
            ),
            (
                "$2b$12$R9h/cIPz0gi.URNNX3kh2OPST9/PgBkqquzi.Ss7KIUgO2t0jWMUW",
                "",
            ),
            (
                "$scrypt$ln=16,r=8,p=1$aM15713r3Xsvxbi31lqr1Q$nFNh2CVHVjNldFVKDHDlm4CbdRSCdEBsjjJxD",
                "",
            ),
        ] {
            let Err(CheckError::Unusable(given)) = check("password", Some(stored)) else {
                panic!("{stored}")
            };
            assert!(given.contains(reason), "{stored}: {given}");
        }
    }

    #[test]
    fn a_hash_without_a_version_is_of_version_16() {
        // From the reference implementation's test suite for version 16, `t = 2, m = 2^16 KiB`, password "password", salt "somesalt".
        let stored =
            "$argon2i$m=65536,t=2,p=1$c29tZXNhbHQ$9sTbSlTio3Biev89thdrlKKiCaYsjjYVJxGAL3swxpQ";
        assert_eq!(check("password", Some(stored)).unwrap(), Verdict::Right);
    }
}
