//! Values: exact on every path.

mod arrays;
mod json;
mod lists;
mod read_values;
mod text_parameters;
