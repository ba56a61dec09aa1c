//! Mistakes and the compiler messages that explain them: one mistake per case.

use std::io::{self, Write};

#[test]
fn mistakes_are_explained() {
    // Unlike `eprintln!`, this is not captured, so a person who waits can read it.
    let _ = writeln!(
        io::stderr(),
        "compile-fail cases: checking singleton-core and its dependencies once more, in target/tests (a minute the first time)"
    );
    let cases = trybuild::TestCases::new();
    // One folder per attribute.
    cases.compile_fail("tests/compile_fail/*/*.rs");
}
