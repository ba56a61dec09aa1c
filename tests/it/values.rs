//! Values: exact on every path.

mod arrays;
mod exact_numbers;
mod json;
mod lists;
mod random_values;
mod read_values;
mod structs;
mod text_parameters;
mod times;
