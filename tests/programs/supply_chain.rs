//! Checks the dependencies in both lock files against `deny.toml`.
//!
//! The program reports each license and each source that the file does not allow, each crate in several versions, and
//! each entry of the file that no dependency needs. It fails if it reports anything. `cargo deny` reads the same file,
//! but has to be installed first.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs;
use std::iter::Peekable;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, ensure};
use serde::Deserialize;

const MANIFESTS: [&str; 2] = ["Cargo.toml", "tests/benchmarks/Cargo.toml"];

fn main() -> anyhow::Result<()> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("..")
        .canonicalize()?;
    let list: List = toml::from_str(&fs::read_to_string(root.join("deny.toml"))?)?;
    let graphs = MANIFESTS
        .iter()
        .map(|manifest| packages(&root.join(manifest)))
        .collect::<anyhow::Result<Vec<_>>>()?;
    let mut problems = list.problems(&root, &graphs);
    problems.extend(list.unused_entries(&root, &graphs));
    for problem in &problems {
        eprintln!("{problem}");
    }
    ensure!(
        problems.is_empty(),
        "the dependencies do not match deny.toml"
    );
    let count: usize = graphs.iter().map(Vec::len).sum();
    println!("{count} packages match deny.toml");
    Ok(())
}

/// Returns all packages in the dependency graph of `manifest`, for all targets and with all features.
fn packages(manifest: &Path) -> anyhow::Result<Vec<Package>> {
    let cargo = std::env::var_os("CARGO").unwrap_or(OsString::from("cargo"));
    let output = Command::new(cargo)
        .args([
            "metadata",
            "--locked",
            "--all-features",
            "--format-version",
            "1",
        ])
        .arg("--manifest-path")
        .arg(manifest)
        .output()
        .context("cargo metadata")?;
    ensure!(
        output.status.success(),
        "cargo metadata for {}: {}",
        manifest.display(),
        String::from_utf8_lossy(&output.stderr)
    );
    let metadata: Metadata = serde_json::from_slice(&output.stdout)?;
    Ok(metadata.packages)
}

#[derive(Deserialize)]
struct Metadata {
    packages: Vec<Package>,
}

#[derive(Deserialize)]
struct Package {
    name: String,
    version: String,
    license: Option<String>,
    /// `None` for a path dependency.
    source: Option<String>,
    manifest_path: PathBuf,
}

/// The settings of cargo-deny that this program supports. Any other setting is an error, so that both programs check
/// the same things.
#[derive(Clone, Deserialize)]
#[serde(deny_unknown_fields)]
struct List {
    #[expect(dead_code, reason = "this program always checks all features")]
    graph: Graph,
    licenses: Licenses,
    sources: Sources,
    bans: Bans,
}

#[derive(Clone, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct Graph {
    #[expect(dead_code, reason = "this program always checks all features")]
    all_features: bool,
}

#[derive(Clone, Deserialize)]
#[serde(deny_unknown_fields)]
struct Licenses {
    allow: Vec<String>,
}

#[derive(Clone, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
#[expect(dead_code, reason = "`Deny` is the only level")]
struct Sources {
    unknown_registry: Deny,
    unknown_git: Deny,
    allow_registry: Vec<String>,
}

#[derive(Clone, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
#[expect(dead_code, reason = "`Deny` is the only level")]
struct Bans {
    multiple_versions: Deny,
    skip: Vec<Skip>,
}

#[derive(Clone, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Deny {
    Deny,
}

/// A version of a crate that is allowed beside another version.
#[derive(Clone, Deserialize)]
#[serde(deny_unknown_fields)]
struct Skip {
    /// The name, and the version or its first components, as in `syn@2`.
    #[serde(rename = "crate")]
    spec: String,
    reason: String,
}

impl List {
    /// Returns a line for each license, source or version that the list does not allow, and for each version without a
    /// reason.
    fn problems(&self, root: &Path, graphs: &[Vec<Package>]) -> Vec<String> {
        let mut problems = Vec::new();
        for packages in graphs {
            let mut versions: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
            for package in packages {
                let Package { name, version, .. } = package;
                match &package.license {
                    Some(license) if self.allows_license(license) => {}
                    Some(license) => problems.push(format!("{name} {version}: license {license}")),
                    None => problems.push(format!("{name} {version}: no license")),
                }
                match &package.source {
                    Some(source) if self.allows_source(source) => {}
                    Some(source) => problems.push(format!("{name} {version}: source {source}")),
                    None if package.manifest_path.starts_with(root) => {}
                    None => problems.push(format!("{name} {version}: outside the repository")),
                }
                if !self.bans.skip.iter().any(|skip| skip.matches(package)) {
                    versions.entry(name).or_default().push(version);
                }
            }
            for (name, versions) in versions.iter().filter(|(_, versions)| versions.len() > 1) {
                problems.push(format!("{name}: versions {}", versions.join(" and ")));
            }
        }
        for skip in &self.bans.skip {
            if skip.reason.trim().is_empty() {
                problems.push(format!("{}: no reason", skip.spec));
            }
        }
        problems
    }

    /// Returns a line for each license and version that can be removed from the list without a new problem.
    fn unused_entries(&self, root: &Path, graphs: &[Vec<Package>]) -> Vec<String> {
        let problems = self.problems(root, graphs).len();
        let is_unused = |shorter: &List| shorter.problems(root, graphs).len() <= problems;
        let mut unused = Vec::new();
        for (position, license) in self.licenses.allow.iter().enumerate() {
            let mut shorter = self.clone();
            shorter.licenses.allow.remove(position);
            if is_unused(&shorter) {
                unused.push(format!("{license}: no dependency needs this license"));
            }
        }
        for (position, skip) in self.bans.skip.iter().enumerate() {
            let mut shorter = self.clone();
            shorter.bans.skip.remove(position);
            if is_unused(&shorter) {
                unused.push(format!("{}: not a second version", skip.spec));
            }
        }
        unused
    }

    /// Returns whether the list allows an SPDX expression. An invalid expression is not allowed.
    fn allows_license(&self, expression: &str) -> bool {
        // Old crates separate alternatives with a slash.
        let spaced = expression
            .replace('/', " OR ")
            .replace('(', " ( ")
            .replace(')', " ) ");
        let mut words = spaced.split_whitespace().peekable();
        self.any_of(&mut words) == Some(true) && words.next().is_none()
    }

    /// Evaluates alternatives separated by `OR`. Returns `None` if the expression is invalid.
    fn any_of<'a>(&self, words: &mut Peekable<impl Iterator<Item = &'a str>>) -> Option<bool> {
        let mut allowed = self.all_of(words)?;
        while words.next_if_eq(&"OR").is_some() {
            allowed |= self.all_of(words)?;
        }
        Some(allowed)
    }

    /// Evaluates licenses separated by `AND`, which binds more tightly than `OR`.
    fn all_of<'a>(&self, words: &mut Peekable<impl Iterator<Item = &'a str>>) -> Option<bool> {
        let mut allowed = self.license(words)?;
        while words.next_if_eq(&"AND").is_some() {
            allowed &= self.license(words)?;
        }
        Some(allowed)
    }

    /// Evaluates a license with an optional exception, or an expression in parentheses.
    fn license<'a>(&self, words: &mut Peekable<impl Iterator<Item = &'a str>>) -> Option<bool> {
        match words.next()? {
            "(" => {
                let allowed = self.any_of(words)?;
                words.next_if_eq(&")").map(|_| allowed)
            }
            ")" | "AND" | "OR" | "WITH" => None,
            license => {
                let mut license = license.to_owned();
                if words.next_if_eq(&"WITH").is_some() {
                    license = format!("{license} WITH {}", words.next()?);
                }
                Some(self.licenses.allow.contains(&license))
            }
        }
    }

    fn allows_source(&self, source: &str) -> bool {
        source.strip_prefix("registry+").is_some_and(|registry| {
            self.sources
                .allow_registry
                .iter()
                .any(|url| url == registry)
        })
    }
}

impl Skip {
    fn matches(&self, package: &Package) -> bool {
        let rest = self
            .spec
            .split_once('@')
            .filter(|(name, _)| *name == package.name)
            .and_then(|(_, version)| package.version.strip_prefix(version));
        rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CRATES_IO: &str = "registry+https://github.com/rust-lang/crates.io-index";

    fn list() -> List {
        toml::from_str(
            r#"
            graph.all-features = true
            licenses.allow = ["MIT", "Apache-2.0", "Unicode-3.0"]
            [sources]
            unknown-registry = "deny"
            unknown-git = "deny"
            allow-registry = ["https://github.com/rust-lang/crates.io-index"]
            [bans]
            multiple-versions = "deny"
            skip = [{ crate = "syn@2", reason = "another crate requires it" }]
            "#,
        )
        .unwrap()
    }

    fn package(name: &str, version: &str, license: &str, source: &str) -> Package {
        Package {
            name: name.to_owned(),
            version: version.to_owned(),
            license: Some(license.to_owned()),
            source: Some(source.to_owned()),
            manifest_path: PathBuf::from("/registry/Cargo.toml"),
        }
    }

    #[track_caller]
    fn assert_problems(packages: Vec<Package>, expected: &[&str]) {
        assert_eq!(
            list().problems(Path::new("/repository"), &[packages]),
            expected
        );
    }

    #[test]
    fn license_expressions_are_evaluated() {
        for (expression, allowed) in [
            ("MIT", true),
            ("MIT OR GPL-3.0", true),
            ("GPL-3.0 OR MIT", true),
            ("GPL-3.0/MIT", true),
            ("MIT AND GPL-3.0", false),
            ("(MIT OR Apache-2.0) AND Unicode-3.0", true),
            ("(MIT OR Apache-2.0) AND OpenSSL", false),
            ("GPL-3.0 OR MIT AND Apache-2.0", true),
            ("MIT OR Apache-2.0 AND GPL-3.0", true),
            ("Apache-2.0 WITH LLVM-exception", false),
            ("Apache-2.0 WITH LLVM-exception OR MIT", true),
            ("mit", false),
            ("", false),
            ("MIT OR", false),
            ("(MIT", false),
            ("MIT)", false),
            ("MIT MIT", false),
        ] {
            assert_eq!(list().allows_license(expression), allowed, "{expression}");
        }
    }

    #[test]
    fn licenses_not_on_the_list_are_reported() {
        let mut unlicensed = package("b", "1.0.0", "", CRATES_IO);
        unlicensed.license = None;
        assert_problems(
            vec![package("a", "1.0.0", "GPL-3.0", CRATES_IO), unlicensed],
            &["a 1.0.0: license GPL-3.0", "b 1.0.0: no license"],
        );
    }

    #[test]
    fn sources_not_on_the_list_are_reported() {
        let mut inside = package("inside", "1.0.0", "MIT", "");
        inside.source = None;
        inside.manifest_path = PathBuf::from("/repository/inside/Cargo.toml");
        let mut outside = package("outside", "1.0.0", "MIT", "");
        outside.source = None;
        assert_problems(
            vec![
                package("a", "1.0.0", "MIT", CRATES_IO),
                package("b", "1.0.0", "MIT", "git+https://example.com/b#0123456"),
                package("c", "1.0.0", "MIT", "registry+https://example.com/index"),
                inside,
                outside,
            ],
            &[
                "b 1.0.0: source git+https://example.com/b#0123456",
                "c 1.0.0: source registry+https://example.com/index",
                "outside 1.0.0: outside the repository",
            ],
        );
    }

    #[test]
    fn crates_in_several_versions_are_reported() {
        assert_problems(
            vec![
                package("rand", "0.9.5", "MIT", CRATES_IO),
                package("rand", "0.10.4", "MIT", CRATES_IO),
                package("syn", "2.0.119", "MIT", CRATES_IO),
                package("syn", "3.0.10", "MIT", CRATES_IO),
            ],
            &["rand: versions 0.9.5 and 0.10.4"],
        );
        assert_problems(
            vec![
                package("syn", "20.0.0", "MIT", CRATES_IO),
                package("syn", "3.0.10", "MIT", CRATES_IO),
            ],
            &["syn: versions 20.0.0 and 3.0.10"],
        );
    }

    #[test]
    fn unused_entries_are_reported() {
        let packages = vec![
            package("a", "1.0.0", "Apache-2.0", CRATES_IO),
            package("b", "1.0.0", "MIT", CRATES_IO),
            package("syn", "2.0.119", "MIT OR Unicode-3.0", CRATES_IO),
        ];
        assert_eq!(
            list().unused_entries(Path::new("/repository"), &[packages]),
            [
                "Unicode-3.0: no dependency needs this license",
                "syn@2: not a second version"
            ]
        );
    }

    #[test]
    fn unsupported_settings_are_errors() {
        let text = include_str!("../../deny.toml");
        toml::from_str::<List>(text).unwrap();
        for (known, unknown) in [
            ("unknown-git = \"deny\"", "unknown-git = \"allow\""),
            ("unknown-git = \"deny\"", "allow-git = []"),
            (
                "multiple-versions = \"deny\"",
                "multiple-versions = \"warn\"",
            ),
            ("skip = [", "skip-tree = ["),
            ("[licenses]", "[licenses]\nexceptions = []"),
        ] {
            let changed = text.replacen(known, unknown, 1);
            assert_ne!(changed, text, "{known}");
            assert!(toml::from_str::<List>(&changed).is_err(), "{unknown}");
        }
    }

    #[test]
    fn each_step_of_ci_uses_the_lock_file() {
        let steps = include_str!("../../.ci/run");
        let mut locked = 0;
        for line in steps.lines().filter(|line| !line.starts_with('#')) {
            let Some((_, command)) = line.split_once("cargo ") else {
                continue;
            };
            // `cargo fmt` and `cargo <component> --version` resolve no dependencies.
            if !command.starts_with("fmt ") && !command.starts_with("\"${component") {
                assert!(command.contains(" --locked"), "{line}");
                locked += 1;
            }
        }
        assert!(locked > 0);
    }
}
