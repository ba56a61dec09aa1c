//! The search for cycles in `#[requires]`, at compile time.
//!
//! rustc reports a cycle among constants with many lines that name no service. A static can refer to another one without
//! reading it, so the [`Node`]s of a cycle refer to each other, and a `const fn` follows the references.

use std::str;

/// A service in the graph of `#[requires]`, at compile time.
#[derive(Debug)]
pub struct Node {
    name: &'static str,
    path: &'static str,
    file: &'static str,
    line: u32,
    column: u32,
    asynchronous: bool,
    requirements: &'static [&'static Node],
    facts: &'static Facts,
}

/// The facts that follow from a service's requirements.
#[derive(Debug)]
pub struct Facts {
    rank: usize,
    asynchronous: bool,
    outcome: Outcome,
}

/// Whether a service requires itself, directly or through others.
#[derive(Debug)]
enum Outcome {
    Acyclic,
    Cyclic,
    /// The search reached a limit. A cycle is then rustc's to report.
    Unknown,
}

/// The maximum number of services that one search visits.
const MAX_SERVICES: usize = 40;

/// The maximum number of comparisons of two services in one search, so that thousands of services compile quickly.
const MAX_COMPARISONS: usize = 600;

/// The maximum number of bytes in a message.
const MAX_TEXT: usize = 2_000;

impl Node {
    /// Describes the service `name` at `path`, declared at a line and column of a file.
    pub const fn new(
        (name, path): (&'static str, &'static str),
        (file, line, column): (&'static str, u32, u32),
        asynchronous: bool,
        requirements: &'static [&'static Node],
        facts: &'static Facts,
    ) -> Self {
        Node {
            name,
            path,
            file,
            line,
            column,
            asynchronous,
            requirements,
            facts,
        }
    }

    /// Returns 1 for a service without dependencies, otherwise one more than its dependencies' maximum.
    pub const fn rank(&self) -> usize {
        self.facts.rank
    }

    /// Returns whether the service or one of its dependencies initializes asynchronously.
    pub const fn is_async(&self) -> bool {
        self.facts.asynchronous
    }

    /// Fails to compile if the service is in a cycle, unless another service of the cycle reports it.
    #[track_caller]
    pub const fn check(&'static self) {
        if matches!(self.facts.outcome, Outcome::Cyclic) {
            self.report();
        }
    }

    #[track_caller]
    const fn report(&'static self) {
        let mut search = Search::new(self);
        search.run();
        let mut member = search.last;
        while member != 0 {
            if compare(search.found[member].path, self.path) < 0 {
                return;
            }
            member = search.parents[member];
        }
        let mut text = Text::new();
        text.push("circular dependency: ");
        search.write_path_to(search.last, &mut text);
        text.push(self.name);
        text.panic();
    }

    /// Returns whether no search is necessary. That is so if each service is declared below its requirements.
    const fn requires_only_acyclic(&'static self) -> bool {
        let requirements = self.requirements;
        let mut at = 0;
        while at < requirements.len() {
            let required = requirements[at];
            if !is_acyclic(required, self) {
                return false;
            }
            at += 1;
        }
        true
    }

    /// Returns whether two nodes look like one service. Services of one macro in two functions can look alike too.
    const fn is(&self, other: &Node) -> bool {
        self.line == other.line
            && self.column == other.column
            && compare(self.path, other.path) == 0
            && compare(self.file, other.file) == 0
    }

    /// Returns whether this node is before another one in a total order.
    const fn is_before(&self, other: &Node) -> bool {
        if self.line != other.line {
            return self.line < other.line;
        }
        if self.column != other.column {
            return self.column < other.column;
        }
        match compare(self.path, other.path) {
            0 => compare(self.file, other.file) < 0,
            order => order < 0,
        }
    }
}

impl Facts {
    /// Computes the facts of a service. Does not read those of a cycle's services, which would wait for each other.
    pub const fn of(node: &'static Node) -> Self {
        let outcome = if node.requires_only_acyclic() {
            Outcome::Acyclic
        } else {
            Search::new(node).run()
        };
        let (mut highest, mut asynchronous) = (0, node.asynchronous);
        let mut at = 0;
        while at < node.requirements.len() && !matches!(outcome, Outcome::Cyclic) {
            let required = node.requirements[at].facts;
            if required.rank > highest {
                highest = required.rank;
            }
            asynchronous |= required.asynchronous;
            at += 1;
        }
        Facts {
            rank: highest + 1,
            asynchronous,
            outcome,
        }
    }
}

/// A breadth-first search for the shortest path from a service to itself.
struct Search {
    /// The start, and then the services that it reaches.
    found: [&'static Node; MAX_SERVICES],
    /// The line of each found service, because a read of a static takes longer.
    lines: [u32; MAX_SERVICES],
    count: usize,
    /// For each found service, the one that requires it, and its position among the requirements.
    parents: [usize; MAX_SERVICES],
    positions: [usize; MAX_SERVICES],
    comparisons: usize,
    /// The service that requires the start, if the search found a cycle.
    last: usize,
    last_position: usize,
}

impl Search {
    const fn new(start: &'static Node) -> Self {
        Search {
            found: [start; MAX_SERVICES],
            lines: [start.line; MAX_SERVICES],
            count: 1,
            parents: [0; MAX_SERVICES],
            positions: [0; MAX_SERVICES],
            comparisons: 0,
            last: 0,
            last_position: 0,
        }
    }

    const fn run(&mut self) -> Outcome {
        let start = self.found[0];
        let mut next = 0;
        while next < self.count {
            let requirements = self.found[next].requirements;
            let mut position = 0;
            while position < requirements.len() {
                let required = requirements[position];
                if required.is(start) {
                    (self.last, self.last_position) = (next, position);
                    if self.is_cycle() {
                        return Outcome::Cyclic;
                    }
                } else if !is_acyclic(required, start) && !self.has_found(required) {
                    if self.count == MAX_SERVICES || self.comparisons > MAX_COMPARISONS {
                        return Outcome::Unknown;
                    }
                    self.found[self.count] = required;
                    self.lines[self.count] = required.line;
                    self.parents[self.count] = next;
                    self.positions[self.count] = position;
                    self.count += 1;
                }
                position += 1;
            }
            next += 1;
        }
        Outcome::Acyclic
    }

    const fn has_found(&mut self, node: &Node) -> bool {
        let (line, count) = (node.line, self.count);
        let mut at = 0;
        while at < count {
            if self.lines[at] == line && self.found[at].is(node) {
                return true;
            }
            at += 1;
        }
        self.comparisons += count;
        false
    }

    /// Returns whether the path leads to the start, and not to another service that looks like it. Only a path to the
    /// start itself can be followed again and again.
    const fn is_cycle(&self) -> bool {
        let start = self.found[0];
        let mut node = start;
        let mut round = 0;
        while round < 16 {
            let Some(last) = self.follow(node, self.last) else {
                return false;
            };
            if self.last_position >= last.requirements.len() {
                return false;
            }
            node = last.requirements[self.last_position];
            if !node.is(start) {
                return false;
            }
            round += 1;
        }
        true
    }

    /// Follows the path from the start to a found service, but begins at another node.
    const fn follow(&self, from: &'static Node, to: usize) -> Option<&'static Node> {
        if to == 0 {
            return Some(from);
        }
        let position = self.positions[to];
        match self.follow(from, self.parents[to]) {
            Some(parent) if position < parent.requirements.len() => {
                Some(parent.requirements[position])
            }
            _ => None,
        }
    }

    /// Writes the names from the start to a found service, with an arrow after each.
    const fn write_path_to(&self, member: usize, text: &mut Text) {
        if member != 0 {
            self.write_path_to(self.parents[member], text);
        }
        text.push(self.found[member].name);
        text.push(" → ");
    }
}

/// Returns whether `node`, which `start` reaches, is known not to reach `start`. Otherwise both would be in a cycle.
///
/// Reads only facts of services before `start`, so that facts never wait for themselves.
const fn is_acyclic(node: &'static Node, start: &Node) -> bool {
    node.requirements.is_empty()
        || (node.is_before(start) && matches!(node.facts.outcome, Outcome::Acyclic))
}

/// Compares two texts by their bytes. Returns a negative number, 0 or a positive number.
const fn compare(left: &str, right: &str) -> isize {
    let (left, right) = (left.as_bytes(), right.as_bytes());
    let mut at = 0;
    while at < left.len() && at < right.len() {
        if left[at] != right[at] {
            return left[at] as isize - right[at] as isize;
        }
        at += 1;
    }
    left.len() as isize - right.len() as isize
}

/// A message, composed at compile time.
struct Text {
    bytes: [u8; MAX_TEXT],
    length: usize,
}

impl Text {
    const fn new() -> Self {
        Text {
            bytes: [0; MAX_TEXT],
            length: 0,
        }
    }

    /// Adds a part, unless it does not fit.
    const fn push(&mut self, part: &str) {
        let part = part.as_bytes();
        if self.length + part.len() > MAX_TEXT {
            return;
        }
        let mut at = 0;
        while at < part.len() {
            self.bytes[self.length + at] = part[at];
            at += 1;
        }
        self.length += part.len();
    }

    #[track_caller]
    #[allow(clippy::panic, reason = "a panic at compile time is an error message")]
    const fn panic(&self) -> ! {
        let (text, _) = self.bytes.split_at(self.length);
        match str::from_utf8(text) {
            Ok(text) => panic!("{}", text),
            Err(_) => panic!("circular dependency"),
        }
    }
}
