//! diesel's DSL on both databases.

mod queries;
