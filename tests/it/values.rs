//! Values: how they are stored, found and read.

mod structs;
