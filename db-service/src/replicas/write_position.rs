//! How far the primary had written at some moment.

use std::fmt;
use std::str::FromStr;

/// A place in the write-ahead log of PostgreSQL, behind all that was committed when it was asked for.
///
/// A read that asks for it sees those commits. It can be shown and parsed, so a web session can carry it from the request that
/// writes to the next one; whoever makes one up at most has a read wait for its time limit.
///
/// # Examples
///
/// ```
/// use db_service::WritePosition;
///
/// let position: WritePosition = "16/B374D848".parse()?;
/// assert_eq!(position.to_string(), "16/B374D848");
/// assert!(position > "16/B374D847".parse()?);
/// assert!("16/B374D848/".parse::<WritePosition>().is_err());
/// # Ok::<(), db_service::WritePositionError>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct WritePosition(u64);

impl WritePosition {
    /// What each read sees anyway.
    pub(crate) const NONE: WritePosition = WritePosition(0);
}

/// Says that a text is no [`WritePosition`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("a write position is two hexadecimal numbers of up to 8 digits, such as 16/B374D848")]
#[non_exhaustive]
pub struct WritePositionError;

impl fmt::Display for WritePosition {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{:X}/{:X}", self.0 >> 32, self.0 & 0xFFFF_FFFF)
    }
}

impl FromStr for WritePosition {
    type Err = WritePositionError;

    fn from_str(text: &str) -> Result<Self, WritePositionError> {
        let half = |digits: &str| {
            // A sign would be understood, too.
            let is_number = digits.bytes().all(|byte| byte.is_ascii_hexdigit());
            let number = u32::from_str_radix(digits, 16).map_err(|_| WritePositionError)?;
            let fits = is_number && digits.len() <= 8;
            fits.then_some(u64::from(number)).ok_or(WritePositionError)
        };
        let (high, low) = text.split_once('/').ok_or(WritePositionError)?;
        Ok(WritePosition(half(high)? << 32 | half(low)?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn malformed_positions_are_refused() {
        for text in [
            "",
            "/",
            "1/",
            "/1",
            "+1/1",
            "1/-1",
            " 1/1",
            "1/1 ",
            "1/1/1",
            "1",
            "G/1",
            "1/é",
            "\0/\0",
            "100000000/0",
            "000000001/0",
            "1/0x1",
            "/".repeat(100_000).as_str(),
        ] {
            assert_eq!(
                text.parse::<WritePosition>(),
                Err(WritePositionError),
                "{text}"
            );
        }
        for text in ["0/0", "FFFFFFFF/FFFFFFFF", "1/1000000"] {
            assert_eq!(text.parse::<WritePosition>().unwrap().to_string(), text);
        }
    }
}
