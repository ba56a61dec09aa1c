//! Texts of others on one line of a log or of an error: the rule is that of `singleton-core`.

pub(crate) use singleton_core::__private::Escaped;
