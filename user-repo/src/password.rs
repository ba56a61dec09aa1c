//! Hashing and verification of passwords: Argon2id, and the unsalted SHA-256 of an earlier Python version of this
//! program.

use std::fmt;
use std::hint::black_box;

use argon2::password_hash::phc::{Output, PasswordHash, Salt};
use argon2::password_hash::{Error as HashError, PasswordHasher};
use argon2::{Algorithm, Argon2, Block, Params, Version};
use sha2::{Digest, Sha256};
use singleton_core::{Service, env, guarded, service};
use subtle::ConstantTimeEq;

use crate::error::UserError;

/// The cost of one hash, and so of each guess of a password.
///
/// The default is the recommendation with 19 MiB in OWASP's [Password Storage Cheat Sheet], which is the minimum there.
///
/// [Password Storage Cheat Sheet]: https://cheatsheetseries.owasp.org/cheatsheets/Password_Storage_Cheat_Sheet.html
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Argon2Params {
    /// The memory in KiB (`PASSWORD_MEMORY_KIB`, 19456).
    pub memory_kib: u32,
    /// The number of passes over the memory (`PASSWORD_ITERATIONS`, 2).
    pub iterations: u32,
    /// The number of lanes (`PASSWORD_PARALLELISM`, 1).
    pub parallelism: u32,
}

impl Argon2Params {
    /// The maximum cost of a stored hash, so that one row cannot exhaust memory or time.
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

/// The service that hashes and verifies passwords. Environment variables set the cost; see [`Argon2Params`].
#[service]
pub struct PasswordService {
    hasher: Argon2<'static>,
}

impl Service for PasswordService {
    fn initialize() -> anyhow::Result<Self> {
        Ok(PasswordService::new(Argon2Params::from_env()?)?)
    }
}

impl PasswordService {
    /// Creates a service with these parameters, for `PasswordService::provide` or a
    /// [`Scope`](singleton_core::testing::Scope).
    ///
    /// # Errors
    ///
    /// Returns [`UserError::Hashing`] if Argon2 does not work with these parameters.
    pub fn new(params: Argon2Params) -> Result<Self, UserError> {
        let hasher = params
            .hasher()
            .map_err(|error| UserError::Hashing(error.into()))?;
        // Fails now if there is not enough memory or no source of random numbers.
        hash_with(&hasher, "")?;
        Ok(PasswordService { hasher })
    }

    /// Hashes a password with a random salt. Returns a PHC string.
    ///
    /// # Errors
    ///
    /// Returns [`UserError::Hashing`] if there is not enough memory or no source of random numbers.
    #[guarded]
    pub fn hash(&self, password: &str) -> Result<String, UserError> {
        hash_with(&self.hasher, password)
    }

    /// Checks a password against a stored hash. Without one, does the same work and returns [`Verification::Invalid`].
    #[guarded]
    pub(crate) fn check(
        &self,
        password: &str,
        stored: Option<&str>,
    ) -> Result<Verification, CheckError> {
        self.check_and_count(password.as_bytes(), stored).0
    }

    /// Returns the verification and the number of filled Argon2 blocks.
    ///
    /// Each check reads the password once for SHA-256 and once for Argon2, allocates at least the memory of the
    /// configured hash, and fills at least as many blocks. So its duration does not show whether a hash is stored, or
    /// its kind, unless the stored hash costs more than the configured one.
    fn check_and_count(
        &self,
        password: &[u8],
        stored: Option<&str>,
    ) -> (Result<Verification, CheckError>, u64) {
        let sha256 = black_box(hex(&Sha256::digest(password)));
        let mut verification = Ok(Verification::Invalid);
        let mut hash = None;
        match stored {
            None => {}
            Some(stored) if is_sha256(stored) => {
                let stored = stored.to_ascii_lowercase();
                if sha256.as_bytes().ct_eq(stored.as_bytes()).into() {
                    verification = Ok(Verification::ValidNeedsRehash);
                }
            }
            Some(stored) => match StoredArgon2::parse(stored) {
                Ok(stored) => hash = Some(stored),
                Err(error) => verification = Err(error),
            },
        }
        match self.work(password, hash.as_ref()) {
            Ok((checked, filled)) => (checked.map_or(verification, Ok), filled),
            Err(error) => (Err(CheckError::Hashing(error.into())), 0),
        }
    }

    /// Checks `stored`, and fills as many blocks as it lacks compared with the configured hash. Returns the number of
    /// all blocks.
    fn work(
        &self,
        password: &[u8],
        stored: Option<&StoredArgon2>,
    ) -> Result<(Option<Verification>, u64), argon2::Error> {
        let mut memory = self.allocate_for(stored)?;
        let verification = stored
            .map(|stored| self.verify(password, stored, &mut memory))
            .transpose()?;
        let filled = stored.map_or(0, |stored| blocks(&stored.params));
        let rest = self.fill_rest(password, filled, &mut memory)?;
        Ok((verification, filled + rest))
    }

    /// Allocates for the larger of the configured hash and `stored`, and writes to all of it.
    ///
    /// The first write to a new page can take longer than Argon2's work in it, so a check with less memory would be
    /// faster for the same number of blocks.
    fn allocate_for(&self, stored: Option<&StoredArgon2>) -> Result<Vec<Block>, argon2::Error> {
        let configured = self.hasher.params().block_count();
        let stored = stored.map_or(0, |stored| stored.params.block_count());
        let length = configured.max(stored);
        let mut memory = Vec::new();
        memory
            .try_reserve_exact(length)
            .map_err(|_| argon2::Error::OutOfMemory)?;
        memory.resize(length, Block::new());
        Ok(memory)
    }

    fn verify(
        &self,
        password: &[u8],
        stored: &StoredArgon2,
        memory: &mut [Block],
    ) -> Result<Verification, argon2::Error> {
        let mut output = vec![0; stored.output.len()];
        Argon2::new(stored.algorithm, stored.version, stored.params.clone())
            .hash_password_into_with_memory(password, &stored.salt, &mut output, memory)?;
        Ok(if !bool::from(output.ct_eq(stored.output.as_bytes())) {
            Verification::Invalid
        } else if stored.is_weaker_than(self.hasher.params()) {
            Verification::ValidNeedsRehash
        } else {
            Verification::Valid
        })
    }

    /// Fills as many blocks as `filled` lacks compared with one configured hash. Returns their number.
    fn fill_rest(
        &self,
        password: &[u8],
        filled: u64,
        memory: &mut [Block],
    ) -> Result<u64, argon2::Error> {
        let configured = self.hasher.params();
        let rest = blocks(configured).saturating_sub(filled);
        if rest == 0 {
            return Ok(0);
        }
        let passes = configured.t_cost();
        let memory_kib = rest.div_ceil(passes.into()).next_multiple_of(4);
        let memory_kib = u32::try_from(memory_kib)
            .expect("at most the memory of the configured hash")
            .max(Params::MIN_M_COST);
        let params = Params::new(memory_kib, passes, 1, None)?;
        let rest = blocks(&params);
        // Reading a long password takes time, so it is read only once.
        let password = if filled == 0 { password } else { &[] };
        let salt = [0; Salt::RECOMMENDED_LENGTH];
        let mut output = [0; Params::DEFAULT_OUTPUT_LEN];
        Argon2::new(Algorithm::Argon2id, Version::V0x13, params).hash_password_into_with_memory(
            password,
            &salt,
            &mut output,
            memory,
        )?;
        black_box(output);
        Ok(rest)
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

/// The result of a check.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verification {
    Valid,
    /// The password is correct, and the stored hash is weaker than a new one.
    ValidNeedsRehash,
    Invalid,
}

#[derive(Debug)]
pub(crate) enum CheckError {
    Service(singleton_core::Error),
    /// The stored hash cannot be checked, for this reason.
    Unusable(String),
    /// Argon2 failed for a reason that is not in the stored hash, such as too little memory.
    Hashing(HashError),
}

impl From<singleton_core::Error> for CheckError {
    fn from(error: singleton_core::Error) -> Self {
        CheckError::Service(error)
    }
}

/// A stored Argon2 hash that can be checked at a cost within [`Argon2Params::LIMIT`].
struct StoredArgon2 {
    algorithm: Algorithm,
    version: Version,
    params: Params,
    salt: Salt,
    output: Output,
}

impl StoredArgon2 {
    fn parse(stored: &str) -> Result<Self, CheckError> {
        let hash = PasswordHash::new(stored).map_err(unusable)?;
        let (Some(salt), Some(output)) = (hash.salt, hash.hash) else {
            return Err(unusable("it is not complete"));
        };
        let algorithm = Algorithm::try_from(hash.algorithm.as_str()).map_err(unusable)?;
        // Hashes of Argon2's first version, 16, contain no version. The crate's default would be 19.
        let version = hash.version.unwrap_or(Version::V0x10.into());
        let version = Version::try_from(version).map_err(unusable)?;
        let params = Params::try_from(&hash).map_err(unusable)?;
        let limit = Argon2Params::LIMIT;
        if params.m_cost() > limit.memory_kib
            || params.t_cost() > limit.iterations
            || params.p_cost() > limit.parallelism
        {
            return Err(unusable("its parameters are above the maximum"));
        }
        Ok(StoredArgon2 {
            algorithm,
            version,
            params,
            salt,
            output,
        })
    }

    /// Returns whether a new hash would be stronger in at least one respect: algorithm, version, memory, passes, lanes,
    /// salt or output. A hash that is stronger in one respect and weaker in another counts as weaker, so each
    /// configured value is a minimum.
    fn is_weaker_than(&self, configured: &Params) -> bool {
        let output_length = configured
            .output_len()
            .unwrap_or(Params::DEFAULT_OUTPUT_LEN);
        self.algorithm != Algorithm::Argon2id
            || self.version != Version::V0x13
            || self.params.m_cost() < configured.m_cost()
            || self.params.t_cost() < configured.t_cost()
            || self.params.p_cost() < configured.p_cost()
            || self.salt.len() < Salt::RECOMMENDED_LENGTH
            || self.output.len() < output_length
    }
}

fn unusable(reason: impl fmt::Display) -> CheckError {
    CheckError::Unusable(reason.to_string())
}

/// Returns the number of 1 KiB blocks that one hash fills in all its passes, which measures its work. Lanes run one
/// after the other.
fn blocks(params: &Params) -> u64 {
    params.block_count() as u64 * u64::from(params.t_cost())
}

fn hash_with(hasher: &Argon2<'_>, password: &str) -> Result<String, UserError> {
    let hash = hasher
        .hash_password(password.as_bytes())
        .map_err(UserError::Hashing)?;
    Ok(hash.to_string())
}

/// Returns whether a stored hash is the Python version's SHA-256: 64 hexadecimal digits. PHC strings begin with a
/// dollar sign.
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
    fn check(password: &str, stored: Option<&str>) -> Result<Verification, CheckError> {
        Scope::new()
            .provide(PasswordService::new(CHEAP).unwrap())
            .run(|| PasswordService::check(password, stored))
    }

    #[test]
    fn new_hashes_use_argon2id_with_owasp_parameters_and_random_salts() {
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
            assert_eq!(check("secret", Some(&hash)).unwrap(), Verification::Valid);
            assert_eq!(check("Secret", Some(&hash)).unwrap(), Verification::Invalid);
        }
    }

    #[test]
    fn sha256_hashes_of_the_python_version_verify() {
        // python3 -c 'import hashlib; print(hashlib.sha256(b"password123").hexdigest())'
        let stored = "ef92b778bafe771e89245b89ecbc08a44a4e166c06659911881f383d4473e94f";
        assert_eq!(
            check("password123", Some(stored)).unwrap(),
            Verification::ValidNeedsRehash
        );
        assert_eq!(
            check("password123", Some(&stored.to_uppercase())).unwrap(),
            Verification::ValidNeedsRehash
        );
        assert_eq!(
            check("password124", Some(stored)).unwrap(),
            Verification::Invalid
        );
        assert_eq!(check("password123", None).unwrap(), Verification::Invalid);
    }

    /// Stored values that cannot be checked, each with a part of the reason.
    const UNUSABLE: [(&str, &str); 13] = [
        ("", ""),
        ("plain text", ""),
        ("$argon2id", "not complete"),
        ("$argon2id$v=19$m=19456,t=2,p=1$c29tZXNhbHQ", "not complete"),
        (
            "$argon2id$v=19$m=4294967295,t=1,p=1$c29tZXNhbHQ$aGFzaGhhc2hoYXNo",
            "above the maximum",
        ),
        (
            "$argon2id$v=19$m=8,t=4294967295,p=1$c29tZXNhbHQ$aGFzaGhhc2hoYXNo",
            "above the maximum",
        ),
        (
            "$argon2id$v=19$m=4096,t=1,p=255$c29tZXNhbHQ$aGFzaGhhc2hoYXNo",
            "above the maximum",
        ),
        (
            "$2b$12$R9h/cIPz0gi.URNNX3kh2OPST9/PgBkqquzi.Ss7KIUgO2t0jWMUW",
            "",
        ),
        (
            "$scrypt$ln=16,r=8,p=1$aM15713r3Xsvxbi31lqr1Q$nFNh2CVHVjNldFVKDHDlm4CbdRSCdEBsjjJxD",
            "",
        ),
        ("!", ""),
        (
            "$argon2id$v=18$m=8,t=1,p=1$c29tZXNhbHQ$aGFzaGhhc2hoYXNo",
            "invalid version",
        ),
        (
            "$argon2x$v=19$m=8,t=1,p=1$c29tZXNhbHQ$aGFzaGhhc2hoYXNo",
            "unsupported algorithm",
        ),
        (
            "$argon2id$v=19$m=8,t=1,p=2$c29tZXNhbHQ$aGFzaGhhc2hoYXNo",
            "invalid parameter",
        ),
    ];

    #[test]
    fn invalid_and_too_expensive_hashes_are_refused() {
        for (stored, reason) in UNUSABLE {
            let Err(CheckError::Unusable(given)) = check("password", Some(stored)) else {
                panic!("{stored}")
            };
            assert!(given.contains(reason), "{stored}: {given}");
        }
    }

    #[test]
    fn hash_without_a_version_is_verified_as_version_16() {
        // From the reference implementation's tests for version 16: `t = 2, m = 2^16 KiB`, password "password", salt
        // "somesalt".
        let stored =
            "$argon2i$m=65536,t=2,p=1$c29tZXNhbHQ$9sTbSlTio3Biev89thdrlKKiCaYsjjYVJxGAL3swxpQ";
        let verification = check("password", Some(stored)).unwrap();
        assert_eq!(verification, Verification::ValidNeedsRehash);
    }

    const CONFIGURED: Argon2Params = Argon2Params {
        memory_kib: 64,
        iterations: 3,
        parallelism: 2,
    };

    /// Algorithm, version, memory, passes and lanes, bytes of salt, bytes of output.
    type Recipe = (Algorithm, Version, [u32; 3], usize, usize);

    /// Hashes that are weaker than [`CONFIGURED`] in one respect each.
    const WEAKER: [Recipe; 9] = [
        (Algorithm::Argon2i, Version::V0x13, [64, 3, 2], 16, 32),
        (Algorithm::Argon2d, Version::V0x13, [64, 3, 2], 16, 32),
        (Algorithm::Argon2id, Version::V0x10, [64, 3, 2], 16, 32),
        (Algorithm::Argon2id, Version::V0x13, [63, 3, 2], 16, 32),
        (Algorithm::Argon2id, Version::V0x13, [64, 2, 2], 16, 32),
        (Algorithm::Argon2id, Version::V0x13, [128, 2, 2], 16, 32),
        (Algorithm::Argon2id, Version::V0x13, [64, 3, 1], 16, 32),
        (Algorithm::Argon2id, Version::V0x13, [64, 3, 2], 15, 32),
        (Algorithm::Argon2id, Version::V0x13, [64, 3, 2], 16, 31),
    ];

    const AT_LEAST_AS_STRONG: [Recipe; 6] = [
        (Algorithm::Argon2id, Version::V0x13, [64, 3, 2], 16, 32),
        (Algorithm::Argon2id, Version::V0x13, [128, 3, 2], 16, 32),
        (Algorithm::Argon2id, Version::V0x13, [64, 4, 2], 16, 32),
        (Algorithm::Argon2id, Version::V0x13, [64, 3, 4], 16, 32),
        (Algorithm::Argon2id, Version::V0x13, [64, 3, 2], 17, 32),
        (Algorithm::Argon2id, Version::V0x13, [64, 3, 2], 16, 64),
    ];

    /// Hashes "password".
    fn hash_with_recipe(
        (algorithm, version, [memory, passes, lanes], salt, output): Recipe,
    ) -> String {
        let params = Params::new(memory, passes, lanes, Some(output)).unwrap();
        Argon2::new(algorithm, version, params)
            .hash_password_with_salt(b"password", &[7; Salt::MAX_LENGTH][..salt])
            .unwrap()
            .to_string()
    }

    #[test]
    fn only_weaker_hashes_need_a_rehash() {
        let service = PasswordService::new(CONFIGURED).unwrap();
        let check = |password: &str, stored: &str| {
            let (verification, _) = service.check_and_count(password.as_bytes(), Some(stored));
            verification.unwrap()
        };
        for stored in WEAKER.map(hash_with_recipe) {
            let verification = check("password", &stored);
            assert_eq!(verification, Verification::ValidNeedsRehash, "{stored}");
            assert_eq!(
                check("Password", &stored),
                Verification::Invalid,
                "{stored}"
            );
        }
        for stored in AT_LEAST_AS_STRONG.map(hash_with_recipe) {
            assert_eq!(check("password", &stored), Verification::Valid, "{stored}");
            assert_eq!(
                check("Password", &stored),
                Verification::Invalid,
                "{stored}"
            );
        }
        let new = hash_with(&service.hasher, "password").unwrap();
        assert_eq!(check("password", &new), Verification::Valid, "{new}");
    }

    #[test]
    fn each_check_does_at_least_the_work_of_one_hash() {
        let cheapest = hash_with_recipe((Algorithm::Argon2id, Version::V0x13, [8, 1, 1], 16, 32));
        let sha256 = hex(&Sha256::digest("password"));
        let stored: Vec<Option<String>> = [None, Some(sha256), Some(cheapest)]
            .into_iter()
            .chain(UNUSABLE.map(|(stored, _)| Some(stored.to_owned())))
            .chain(WEAKER.map(|recipe| Some(hash_with_recipe(recipe))))
            .chain(AT_LEAST_AS_STRONG.map(|recipe| Some(hash_with_recipe(recipe))))
            .collect();
        let long = "x".repeat(1 << 14);
        let larger = Argon2Params {
            memory_kib: 1024,
            iterations: 2,
            parallelism: 1,
        };
        for configured in [CHEAP, CONFIGURED, larger] {
            let service = PasswordService::new(configured).unwrap();
            let one_hash = blocks(service.hasher.params());
            for stored in &stored {
                let parsed = stored
                    .as_deref()
                    .and_then(|stored| StoredArgon2::parse(stored).ok());
                let memory = service.allocate_for(parsed.as_ref()).unwrap();
                assert!(memory.len() >= service.hasher.params().block_count());
                let own = parsed.map_or(0, |stored| blocks(&stored.params));
                for password in ["password", "wrong", "", &long] {
                    let (_, work) = service.check_and_count(password.as_bytes(), stored.as_deref());
                    if own > one_hash {
                        assert_eq!(work, own, "{configured:?}, {stored:?}");
                    } else {
                        // The remaining work is rounded up to at least 8 blocks in each pass.
                        let equal = one_hash..=one_hash + 8 * u64::from(configured.iterations);
                        assert!(equal.contains(&work), "{configured:?}, {stored:?}: {work}");
                    }
                }
            }
        }
    }
}
