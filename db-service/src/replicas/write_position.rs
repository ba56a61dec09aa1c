//! A position in the primary's write-ahead log.

use std::fmt;
use std::str::FromStr;

/// A position in PostgreSQL's write-ahead log, after all transactions that were committed when it was requested.
///
/// A read after this position sees those transactions. The position can be printed and parsed, so a web session can
/// carry it from one request to the next. A forged position makes a read wait for its timeout at most.
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
    /// The position before all others, which each server has replayed.
    pub(crate) const NONE: WritePosition = WritePosition(0);
}

/// The error of a text that is not a [`WritePosition`].
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
            // `from_str_radix` would also accept a sign.
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
