//! Single statements: their text, parameters, values and rows.

mod affected_rows;
mod invalid_input;
mod parameter_casts;
mod parameters;
mod queries;
mod single_statement;
mod statement_cache;
