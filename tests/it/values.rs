//! Values, exact on every path.

mod exact_numbers;
mod times;
