//! The dependency graph in several formats.

use std::collections::HashSet;
use std::fmt::{self, Write};
use std::time::Duration;

use serde::Serialize;

use super::ServiceInfo;
use crate::service::{Descriptor, State};
use crate::text_table::milliseconds;

/// The dependency graph of the services; see [`Registry::graph`](crate::Registry::graph).
///
/// Prints as a text tree: each service without dependents, and below it its dependencies. A service with several
/// dependents is printed in full once; later lines refer to it.
#[derive(Debug, Clone, Serialize)]
pub struct Graph {
    services: Vec<GraphService>,
}

/// One service in the graph.
#[derive(Debug, Clone, Serialize)]
pub struct GraphService {
    name: &'static str,
    path: &'static str,
    rank: usize,
    state: State,
    /// In milliseconds when serialized.
    #[serde(rename = "own_time_ms", serialize_with = "in_milliseconds")]
    own_time: Option<Duration>,
    tags: Vec<&'static str>,
    dependencies: Vec<&'static str>,
    dependents: Vec<&'static str>,
    /// The positions of the dependencies in the graph. Names need not be unique.
    #[serde(skip)]
    requires: Vec<usize>,
}

fn in_milliseconds<S: serde::Serializer>(
    time: &Option<Duration>,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    time.map(milliseconds).serialize(serializer)
}

impl GraphService {
    /// Returns the name of the struct, with as many modules as it takes to tell services of one name apart.
    pub fn name(&self) -> &'static str {
        self.name
    }

    /// Returns the name of the struct with its crate and modules.
    pub fn path(&self) -> &'static str {
        self.path
    }

    /// Returns the state of the service when the graph was made.
    pub fn state(&self) -> State {
        self.state
    }

    /// Returns the duration of the service's last `initialize` and `ping`, without its dependencies. `None` before
    /// their end.
    pub fn own_time(&self) -> Option<Duration> {
        self.own_time
    }

    /// Returns the names of the services that this one requires.
    pub fn dependencies(&self) -> &[&'static str] {
        &self.dependencies
    }

    /// Returns the names of the services that require this one.
    pub fn dependents(&self) -> &[&'static str] {
        &self.dependents
    }

    fn caption(&self) -> String {
        let own = self.own_time.map(|own| format!(", {own:.1?}"));
        format!("{}{}", self.state, own.unwrap_or_default())
    }
}

impl Graph {
    pub(crate) fn new(services: &[ServiceInfo]) -> Self {
        let services = topological_order(services);
        let positions = |service: &&ServiceInfo| -> Vec<usize> {
            let position = |required: &Descriptor| {
                let mut services = services.iter();
                services.position(|known| known.descriptor == required)
            };
            service.requirements().filter_map(position).collect()
        };
        let requires: Vec<Vec<usize>> = services.iter().map(positions).collect();
        let nodes = services.iter().enumerate().map(|(position, service)| {
            let required_by = requires.iter().zip(&services);
            GraphService {
                name: service.name(),
                path: service.path(),
                rank: service.rank(),
                state: service.state(),
                own_time: service.own_time(),
                tags: service.tags().to_vec(),
                dependencies: requires[position]
                    .iter()
                    .map(|required| services[*required].name())
                    .collect(),
                dependents: required_by
                    .filter(|(required, _)| required.contains(&position))
                    .map(|(_, dependent)| dependent.name())
                    .collect(),
                requires: requires[position].clone(),
            }
        });
        Graph {
            services: nodes.collect(),
        }
    }

    /// Returns the services in topological order.
    pub fn services(&self) -> &[GraphService] {
        &self.services
    }

    /// Returns the graph of the services that satisfy `keep`, such as those of one crate, and of their dependencies.
    pub fn only(&self, keep: impl Fn(&GraphService) -> bool) -> Graph {
        let mut kept = vec![false; self.services.len()];
        let is_requested = |position: &usize| keep(&self.services[*position]);
        let mut pending: Vec<usize> = (0..self.services.len()).filter(is_requested).collect();
        while let Some(position) = pending.pop() {
            if !std::mem::replace(&mut kept[position], true) {
                pending.extend(&self.services[position].requires);
            }
        }
        let new_position = |position: usize| kept[..position].iter().filter(|kept| **kept).count();
        let is_kept = |name: &&str| {
            let mut services = self.services.iter().zip(&kept);
            services.any(|(service, kept)| *kept && service.name == *name)
        };
        let services = self.services.iter().zip(&kept).filter(|(_, kept)| **kept);
        let services = services.map(|(service, _)| GraphService {
            requires: service
                .requires
                .iter()
                .map(|required| new_position(*required))
                .collect(),
            dependents: service.dependents.iter().copied().filter(is_kept).collect(),
            ..service.clone()
        });
        Graph {
            services: services.collect(),
        }
    }

    /// Returns the graph in Graphviz's language, with an arrow from each service to its dependencies.
    pub fn to_dot(&self) -> String {
        let mut dot = "digraph services {\n    rankdir=LR;\n    node [shape=box, style=\"rounded,filled\", fontname=\"sans-serif\"];\n".to_owned();
        for (position, service) in self.services.iter().enumerate() {
            let (name, caption) = (service.name, service.caption());
            let color = color(service.state);
            line(
                &mut dot,
                format_args!(
                    "    s{position} [label=\"{name}\\n{caption}\", tooltip=\"{}\", fillcolor=\"{color}\"];",
                    service.path
                ),
            );
        }
        for (position, service) in self.services.iter().enumerate() {
            for required in &service.requires {
                line(&mut dot, format_args!("    s{position} -> s{required};"));
            }
        }
        dot + "}\n"
    }

    /// Returns the graph as a Mermaid flowchart, for Markdown.
    pub fn to_mermaid(&self) -> String {
        let mut chart = "flowchart LR\n".to_owned();
        for (position, service) in self.services.iter().enumerate() {
            let (name, caption) = (service.name, service.caption());
            line(
                &mut chart,
                format_args!("    s{position}[\"{name}<br/>{caption}\"]"),
            );
        }
        for (position, service) in self.services.iter().enumerate() {
            for required in &service.requires {
                line(&mut chart, format_args!("    s{position} --> s{required}"));
            }
        }
        chart
    }

    /// Returns the graph as JSON. Each element of `services` has `name`, `path`, `rank`, `state`, `own_time_ms`,
    /// `tags`, `dependencies` and `dependents`.
    pub fn to_json(&self) -> String {
        serde_json::json!(self).to_string()
    }

    fn write_tree(
        &self,
        formatter: &mut fmt::Formatter<'_>,
        position: usize,
        indent: &str,
        written: &mut [bool],
    ) -> fmt::Result {
        let service = &self.services[position];
        write!(formatter, "{} ({})", service.name, service.caption())?;
        if service.dependents.len() > 1 {
            write!(formatter, ", required by {}", service.dependents.join(", "))?;
        }
        let was_written = std::mem::replace(&mut written[position], true);
        if was_written && !service.requires.is_empty() {
            return writeln!(formatter, ", see above");
        }
        writeln!(formatter)?;
        for (count, required) in service.requires.iter().enumerate() {
            let last = count + 1 == service.requires.len();
            let (branch, below) = if last {
                ("└── ", "    ")
            } else {
                ("├── ", "│   ")
            };
            write!(formatter, "{indent}{branch}")?;
            self.write_tree(formatter, *required, &format!("{indent}{below}"), written)?;
        }
        Ok(())
    }
}

impl fmt::Display for Graph {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut written = vec![false; self.services.len()];
        // First the services without dependents. A cycle through trait objects has none, so its services come last.
        let is_root = |position: &usize| self.services[*position].dependents.is_empty();
        let roots: Vec<_> = (0..self.services.len()).rev().filter(is_root).collect();
        for position in roots {
            self.write_tree(formatter, position, "", &mut written)?;
        }
        for position in 0..self.services.len() {
            if !written[position] {
                self.write_tree(formatter, position, "", &mut written)?;
            }
        }
        Ok(())
    }
}

/// Returns the services in topological order. A cycle, which trait objects can close, is broken at the first service
/// visited.
fn topological_order(services: &[ServiceInfo]) -> Vec<&ServiceInfo> {
    fn visit<'a>(
        service: &'a ServiceInfo,
        services: &'a [ServiceInfo],
        visited: &mut HashSet<&'static Descriptor>,
        order: &mut Vec<&'a ServiceInfo>,
    ) {
        if !visited.insert(service.descriptor) {
            return;
        }
        for required in service.requirements() {
            let mut known = services.iter();
            if let Some(known) = known.find(|known| known.descriptor == required) {
                visit(known, services, visited, order);
            }
        }
        order.push(service);
    }
    let (mut visited, mut order) = (HashSet::new(), Vec::with_capacity(services.len()));
    for service in services {
        visit(service, services, &mut visited, &mut order);
    }
    order
}

fn color(state: State) -> &'static str {
    match state {
        State::Uninitialized => "#eeeeee",
        State::Initializing => "#fff2b3",
        State::Ready => "#c8e6c9",
        State::ShutDown => "#ffccbc",
    }
}

fn line(text: &mut String, line: fmt::Arguments<'_>) {
    // Writing to a string does not fail.
    let _ = writeln!(text, "{line}");
}
