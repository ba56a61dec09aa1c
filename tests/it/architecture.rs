//! The modules of each crate import only what `ARCHITECTURE.md` permits.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use proc_macro2::{TokenStream, TokenTree};

/// The maximum number of files in a folder of sources.
const MAX_FILES: usize = 20;

/// The table of one crate in `ARCHITECTURE.md`.
struct Table {
    /// The folder of the crate's sources, such as `db-service/src`.
    folder: String,
    /// For each module, the modules that it may import, or `None` for all.
    imports: BTreeMap<String, Option<Vec<String>>>,
}

#[test]
fn modules_import_only_permitted_modules() {
    let tables = tables();
    assert_eq!(tables.len(), 4, "ARCHITECTURE.md has a table of each crate");
    let mut violations = Vec::new();
    for table in &tables {
        for file in sources(&root().join(&table.folder)) {
            violations.extend(table.violations(&file));
        }
    }
    assert!(violations.is_empty(), "{}", violations.join("\n"));
}

#[test]
fn forbidden_imports_are_found_in_each_form() {
    let table = Table {
        folder: "src".to_owned(),
        imports: BTreeMap::from([
            ("pool".to_owned(), Some(vec!["error".to_owned()])),
            ("error".to_owned(), Some(Vec::new())),
            ("lib".to_owned(), None),
        ]),
    };
    let found = |module, text| table.violations_in(module, "x.rs", text).len();
    assert_eq!(
        found("pool", "use crate::error::{A, B}; use crate::pool::C;"),
        0
    );
    assert_eq!(found("error", "use crate::pool::C;"), 1);
    assert_eq!(
        found(
            "error",
            "use std::{fmt, io}; use crate::{error::A, pool::{B, C}};"
        ),
        1
    );
    assert_eq!(found("error", "fn f(_: crate::pool::C) {}"), 1);
    assert_eq!(
        found("error", "macro_rules! m { () => { $crate::pool::C } }"),
        1
    );
    assert_eq!(
        found("error", "macro_rules! m { () => { $crate::Value } }"),
        0
    );
    assert_eq!(found("error", "use crate::params;"), 0);
    assert_eq!(found("error", "use crate::Value;"), 1);
    assert_eq!(found("error", "fn f() { super::super::pool::g() }"), 1);
    assert_eq!(
        found(
            "error",
            "/// [`C`](crate::pool::C)\nfn f() {} // crate::pool"
        ),
        0
    );
    assert_eq!(
        found("error", "#[cfg(test)] mod tests { use crate::pool::C; }"),
        0
    );
    assert_eq!(found("lib", "use crate::pool::C;"), 0);
    assert_eq!(found("unlisted", "fn f() {}"), 1);
}

#[test]
fn source_folders_have_at_most_twenty_files() {
    let mut folders = vec![root().join("tests/it"), root().join("tests/support")];
    folders.extend(tables().iter().map(|table| root().join(&table.folder)));
    while let Some(folder) = folders.pop() {
        let (inner, files): (Vec<_>, Vec<_>) = entries(&folder)
            .into_iter()
            .partition(|entry| entry.is_dir());
        assert!(
            files.len() <= MAX_FILES,
            "{}: {}",
            folder.display(),
            files.len()
        );
        folders.extend(inner);
    }
}

impl Table {
    fn violations(&self, file: &Path) -> Vec<String> {
        let folder = root().join(&self.folder);
        let path = file
            .strip_prefix(&folder)
            .expect("the file is in the folder");
        let module = path.iter().next().expect("a path has a component");
        let module = Path::new(module).with_extension("").display().to_string();
        let text = fs::read_to_string(file).expect("a source file is readable");
        self.violations_in(&module, &file.display().to_string(), &text)
    }

    fn violations_in(&self, module: &str, file: &str, text: &str) -> Vec<String> {
        let Some(permitted) = self.imports.get(module) else {
            return vec![format!(
                "{file}: ARCHITECTURE.md does not list the module `{module}`"
            )];
        };
        let Some(permitted) = permitted else {
            return Vec::new();
        };
        let tokens = text.parse().expect("a source file is made of tokens");
        let mut imports = Vec::new();
        collect_imports(tokens, &mut imports);
        // `crate::params` is a macro and `$crate::Value` a public name: both are in the crate's root, whatever module
        // has them.
        let is_root_item = |import: &str| {
            !self.imports.contains_key(import.trim_start_matches('$'))
                && (import.starts_with('$')
                    || import.starts_with(|first: char| first.is_lowercase()))
        };
        imports.retain(|import| {
            let name = import.trim_start_matches('$');
            name != module
                && !permitted.iter().any(|permitted| permitted == name)
                && !is_root_item(import)
        });
        let violation = |import| {
            format!("{file}: `{module}` imports `{import}`, which ARCHITECTURE.md does not permit")
        };
        imports.into_iter().map(violation).collect()
    }
}

/// Collects the name after each `crate::` and `super::super::`, except in modules for tests.
///
/// A name after `$crate::` gets the prefix `$`. The function reads tokens, not lines, so it finds paths in macros and
/// expressions, and ignores comments and strings.
fn collect_imports(tokens: TokenStream, imports: &mut Vec<String>) {
    let tokens: Vec<_> = tokens.into_iter().collect();
    let mut at = 0;
    while at < tokens.len() {
        let text = |offset: usize| {
            tokens
                .get(at + offset)
                .map(|token| token.to_string().replace(' ', ""))
        };
        let is = |offset, expected: &str| text(offset).as_deref() == Some(expected);
        if is(0, "#") && is(1, "[cfg(test)]") && is(2, "mod") {
            at += 5;
            continue;
        }
        let is_macro_path = at > 0 && tokens[at - 1].to_string() == "$";
        let path = if is(0, "crate") && is(1, ":") && is(2, ":") {
            Some(3)
        } else if is(0, "super") && is(3, "super") && is(4, ":") {
            Some(6)
        } else {
            None
        };
        match path.map(|length| (length, tokens.get(at + length))) {
            Some((length, Some(TokenTree::Group(group)))) => {
                imports.extend(first_names(group.stream()));
                at += length + 1;
            }
            Some((length, Some(name))) => {
                let prefix = if is_macro_path { "$" } else { "" };
                imports.push(format!("{prefix}{name}"));
                at += length + 1;
            }
            _ => {
                if let TokenTree::Group(group) = &tokens[at] {
                    collect_imports(group.stream(), imports);
                }
                at += 1;
            }
        }
    }
}

/// Returns the first name of each path in the braces of a `use`.
fn first_names(tokens: TokenStream) -> Vec<String> {
    let mut names = Vec::new();
    let mut is_first = true;
    for token in tokens {
        match token {
            TokenTree::Ident(name) if is_first => names.push(name.to_string()),
            TokenTree::Punct(mark) if mark.as_char() == ',' => {
                is_first = true;
                continue;
            }
            _ => {}
        }
        is_first = false;
    }
    names
}

/// Reads the tables of `ARCHITECTURE.md`.
///
/// Each table is in a section whose heading is the folder of the sources. The first column of a row contains the names
/// of modules. The last column contains what they may import: names, "nothing" or "everything". All modules above a
/// base module may import it.
fn tables() -> Vec<Table> {
    let text = fs::read_to_string(root().join("ARCHITECTURE.md")).expect("ARCHITECTURE.md exists");
    let sections = text.split("\n## `").skip(1);
    let is_table = |section: &&str| section.contains("| imports |");
    sections.filter(is_table).map(Table::parse).collect()
}

impl Table {
    fn parse(section: &str) -> Table {
        let (folder, text) = section.split_once('`').expect("a heading ends");
        let rows: Vec<Vec<&str>> = text
            .lines()
            .filter(|line| line.starts_with("| `"))
            .map(|line| line.trim_matches('|').split(" | ").collect())
            .collect();
        let modules = |row: &Vec<&str>| names(row.first().expect("a row has a first cell"));
        let is_base = |row: &&Vec<&str>| row.iter().any(|cell| cell.starts_with("Base module"));
        let mut imports = BTreeMap::new();
        for (number, row) in rows.iter().enumerate() {
            let below: Vec<String> = rows[number + 1..].iter().flat_map(modules).collect();
            let cell = row.last().expect("a row has a last cell").trim();
            let permitted = (cell != "everything").then(|| {
                let mut permitted = names(cell);
                assert!(
                    permitted.iter().all(|name| below.contains(name)),
                    "{folder}: a row of ARCHITECTURE.md imports one above it, or one that is not listed: {cell}"
                );
                permitted.extend(rows[number + 1..].iter().filter(is_base).flat_map(modules));
                permitted
            });
            for module in modules(row) {
                imports.insert(module, permitted.clone());
            }
        }
        Table {
            folder: folder.to_owned(),
            imports,
        }
    }
}

/// Returns the names in backticks, without the extension `.rs`.
fn names(cell: &str) -> Vec<String> {
    let quoted = cell.split('`').skip(1).step_by(2);
    quoted
        .map(|name| name.trim_end_matches(".rs").to_owned())
        .collect()
}

fn root() -> PathBuf {
    let package = Path::new(env!("CARGO_MANIFEST_DIR"));
    package
        .parent()
        .expect("the package is inside the workspace")
        .to_owned()
}

fn entries(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).expect("a folder of the workspace is readable");
    entries
        .map(|entry| entry.expect("an entry is readable").path())
        .collect()
}

/// Returns all files of Rust code in a folder and below it.
fn sources(folder: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in entries(folder) {
        if entry.is_dir() {
            files.extend(sources(&entry));
        } else if entry.extension().is_some_and(|extension| extension == "rs") {
            files.push(entry);
        }
    }
    files
}
