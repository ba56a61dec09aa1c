//! The formats of the dependency graph.

use singleton_core::testing::Scope;
use singleton_core::{Graph, Service, registry, requires, service};

#[service(tags("readiness"))]
struct Config;
#[service]
#[requires(Config)]
struct Database;
#[service]
#[requires(Config)]
struct Cache;
#[service]
#[requires(Database, Cache)]
struct Users;

macro_rules! plain {
    ($($name:ident)*) => {
        $(impl Service for $name {
            fn initialize() -> anyhow::Result<Self> {
                Ok($name)
            }
        })*
    };
}
plain! { Config Database Cache Users }

/// Returns the graph of the services that this module defines.
fn own_graph() -> Graph {
    let path = concat!(module_path!(), "::");
    registry().graph().only(|service| {
        let name = service.path().strip_prefix(path);
        name.is_some_and(|name| !name.contains("::"))
    })
}

/// Removes the times, which differ between runs.
fn without_times(text: &str) -> String {
    let mut kept = String::new();
    let mut rest = text;
    while let Some(start) = rest.find("ready, ") {
        let end = start + "ready".len();
        kept.push_str(&rest[..end]);
        let time = rest[end..].find([')', '<', '"', '\\']).unwrap();
        rest = &rest[end + time..];
    }
    kept + rest
}

#[test]
fn tree_shows_dependencies_and_dependents() {
    Scope::new().run(|| {
        Cache::instance().unwrap();
        assert_eq!(
            without_times(&own_graph().to_string()),
            "Users (uninitialized)\n\
             ├── Database (uninitialized)\n\
             │   └── Config (ready), required by Cache, Database\n\
             └── Cache (ready)\n    \
                 └── Config (ready), required by Cache, Database\n"
        );
        let graph = own_graph();
        let config = &graph.services()[0];
        assert_eq!(
            (config.name(), config.dependents()),
            ("Config", &["Cache", "Database"][..])
        );
        assert!(config.own_time().is_some() && graph.services()[3].own_time().is_none());
    });
}

#[test]
fn shared_subtrees_are_printed_once() {
    Scope::new().run(|| {
        let all = registry()
            .graph()
            .only(|service| service.path().contains("::registry::"));
        assert_eq!(
            all.to_string(),
            "Diamond (uninitialized)\n\
             ├── Right (uninitialized), required by Diamond\n"
                .replace(", required by Diamond", "")
                + "│   └── Root (uninitialized), required by Left, Right, Diamond\n\
                   ├── Left (uninitialized)\n\
                   │   └── Root (uninitialized), required by Left, Right, Diamond\n\
                   └── Root (uninitialized), required by Left, Right, Diamond\n"
        );
    });
}

#[test]
fn dot_mermaid_and_json_are_well_formed() {
    Scope::new().run(|| {
        Cache::instance().unwrap();
        assert_eq!(
            without_times(&own_graph().to_mermaid()),
            "flowchart LR\n    s0[\"Config<br/>ready\"]\n    s1[\"Cache<br/>ready\"]\n    \
             s2[\"Database<br/>uninitialized\"]\n    s3[\"Users<br/>uninitialized\"]\n    \
             s1 --> s0\n    s2 --> s0\n    s3 --> s2\n    s3 --> s1\n"
        );
        let dot = without_times(&own_graph().to_dot());
        assert!(
            dot.starts_with("digraph services {\n") && dot.ends_with("    s3 -> s1;\n}\n"),
            "{dot}"
        );
        assert!(
            dot.contains("s0 [label=\"Config\\nready\", tooltip="),
            "{dot}"
        );

        let json: serde_json::Value = serde_json::from_str(&own_graph().to_json()).unwrap();
        let users = &json["services"][3];
        assert_eq!(users["name"], "Users");
        assert_eq!(users["state"], "uninitialized");
        assert_eq!(
            users["dependencies"],
            serde_json::json!(["Database", "Cache"])
        );
        assert!(users["own_time_ms"].is_null());
        let config = &json["services"][0];
        assert_eq!(
            config["dependents"],
            serde_json::json!(["Cache", "Database"])
        );
        assert_eq!(config["tags"], serde_json::json!(["readiness"]));
        assert!(config["own_time_ms"].as_f64().unwrap() >= 0.0);
    });
}
