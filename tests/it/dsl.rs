//! diesel's DSL on both databases.

mod aggregates;
mod changes;
mod generic_code;
mod inserts;
mod own_types;
mod passes;
mod queries;
mod tables;
mod types;
mod unreadable_values;
mod upserts;
mod ways_out;
