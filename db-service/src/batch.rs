//! One statement for many rows of parameters.

use diesel::connection::Connection as _;

use crate::connection::on_each;
use crate::error::DbError;
use crate::multi::DbConnection as Connection;
use crate::observer::{self, Known};
use crate::params::Params;
use crate::scanner::{self, Parsed};
use crate::statement::{Casts, Statement};

/// Executes `sql` for each row, in one transaction, and returns the number of rows affected.
pub(crate) fn execute(
    connection: &mut Connection,
    sql: &str,
    rows: &[Params],
) -> Result<u64, DbError> {
    connection.check_usable()?;
    let parsed = scanner::parse(sql, connection.backend())?;
    let known = Known {
        traces: parsed.traces,
        counts: false,
        is_measured: true,
    };
    let has_text = rows.iter().any(Params::has_text);
    connection.healing(sql, &parsed, has_text, |connection, casts| {
        let affected = observer::with_known(known, || {
            connection.transaction(|connection| match connection {
                #[cfg(feature = "postgres")]
                Connection::Postgres(inner) if parsed.row.is_some() && !parsed.names.is_empty() => {
                    many_at_a_time::execute(inner, &parsed, rows, casts)
                }
                _ => one_by_one(connection, &parsed, rows, casts),
            })
        });
        connection.is_over();
        affected
    })
}

fn one_by_one(
    connection: &mut Connection,
    parsed: &Parsed<'_>,
    rows: &[Params],
    casts: Option<Casts>,
) -> Result<u64, DbError> {
    let mut affected = 0;
    for row in rows {
        let count = on_each!(connection, inner => inner.execute_returning_count(&Statement::new(parsed, row, casts.clone())?))?
            as u64;
        // SQLite repeats the count of the last statement that changed rows.
        affected += if parsed.changes_rows { count } else { 0 };
    }
    Ok(affected)
}

/// `INSERT … VALUES (…), (…), …`: a round trip for many rows instead of one for each.
#[cfg(feature = "postgres")]
mod many_at_a_time {
    use diesel::connection::Connection as _;
    use diesel::pg::{Pg, PgConnection};

    use crate::error::DbError;
    use crate::params::Params;
    use crate::postgres::{self, Bind};
    use crate::scanner::{Parsed, Piece};
    use crate::statement::{self, Casts, Dialect, Statement};

    /// A statement takes at most this many parameters: the protocol counts them in 16 bits.
    const MAX_PARAMETERS: usize = 65_535;
    /// More rows at a time gain nothing, and the text of the statement grows with them.
    const MAX_ROWS: usize = 512;

    pub(super) fn execute(
        connection: &mut PgConnection,
        parsed: &Parsed<'_>,
        rows: &[Params],
        casts: Option<Casts>,
    ) -> Result<u64, DbError> {
        let width = parsed.names.len();
        let mut binds = Vec::with_capacity(width * rows.len());
        for row in rows {
            binds.extend(statement::values(parsed, row)?.into_iter().map(Pg::bind));
        }
        for parameter in 0..width {
            let mut column: Vec<_> = binds.iter_mut().skip(parameter).step_by(width).collect();
            postgres::unify(&mut column);
        }
        let mut affected = 0;
        let mut binds = binds.into_iter();
        let mut left = rows.len();
        while left > 0 {
            let count = batch_size(left, width);
            let batch: Vec<Bind<'_>> = binds.by_ref().take(count * width).collect();
            let statement =
                Statement::<Pg>::from_parts(repeat_row(parsed, count), batch, casts.clone());
            affected += connection.execute_returning_count(&statement)? as u64;
            left -= count;
        }
        Ok(affected)
    }

    /// The largest power of two that fits: few different statements, so each is prepared once.
    fn batch_size(left: usize, width: usize) -> usize {
        let most = left.min(MAX_ROWS).min(MAX_PARAMETERS / width).max(1);
        1 << most.ilog2()
    }

    /// The statement with its row of values `count` times over, each with parameters of its own.
    fn repeat_row<'a>(parsed: &Parsed<'a>, count: usize) -> Vec<Piece<'a>> {
        let Some((open, close)) = parsed.row else {
            return parsed.pieces.clone();
        };
        let (width, row) = (parsed.names.len(), &parsed.pieces[open..=close]);
        let mut pieces = parsed.pieces[..open].to_vec();
        for number in 0..count {
            if number > 0 {
                pieces.push(Piece::Text(","));
            }
            pieces.extend(row.iter().map(|piece| match piece {
                Piece::Parameter(index) => Piece::Parameter(number * width + index),
                text => *text,
            }));
        }
        pieces
    }

    #[cfg(test)]
    mod tests {
        use super::*;

        #[test]
        fn batches_are_few_and_within_the_protocol() {
            let sizes = |mut left: usize, width| {
                let mut sizes = Vec::new();
                while left > 0 {
                    sizes.push(batch_size(left, width));
                    left -= sizes[sizes.len() - 1];
                }
                sizes
            };
            assert_eq!(sizes(1_300, 2), [512, 512, 256, 16, 4]);
            assert!(
                sizes(10_000, 1_000)
                    .iter()
                    .all(|size| size * 1_000 <= MAX_PARAMETERS)
            );
            assert_eq!(sizes(2, 70_000), [1, 1]);
        }
    }
}
