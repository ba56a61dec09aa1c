//! Many rows: bulk inserts, and results that are read row by row.

mod copy_failures;
mod insert;
mod streaming;
mod values;
