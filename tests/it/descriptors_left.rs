//! A process that has no descriptor left says so.

use std::process::Command;

use tests::TestDatabase;

on_both_backends!(a_connection_without_a_descriptor_has_the_reason);

fn a_connection_without_a_descriptor_has_the_reason(database: &TestDatabase) {
    for how in ["direct", "relay"] {
        let output = Command::new("prlimit")
            .args([
                "--nofile=64:64",
                env!("CARGO_BIN_EXE_exhausted"),
                database.url(),
                how,
            ])
            .output()
            .unwrap();
        let shown = String::from_utf8_lossy(&output.stdout);
        assert!(shown.contains("Too many open files"), "{how}: {output:?}");
    }
}
