//! Values, exact on every path.

mod times;
