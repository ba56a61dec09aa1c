//! Removes the values from the messages of PostgreSQL, libpq, PgBouncer and SQLite.
//!
//! A message is shown only if the whole of it matches one of [`SHAPES`] or [`POSTGRES_TEXTS`]. A shape is a message
//! pattern with slots: a name stays, and a `{value}` becomes `…`. Any other message may quote values and is not shown,
//! for example one in another language, one that a user's function raises, or one of a future version.

/// Returns a message without its values, or `None` if it matches no pattern.
pub(crate) fn shown(message: &str) -> Option<String> {
    let text = POSTGRES_TEXTS.lines().find(|text| *text == message);
    text.map(str::to_owned)
        .or_else(|| SHAPES.iter().find_map(|shape| fill(shape, message)))
}

/// Returns whether a text is a qualified name: words of letters, digits, `_` and `$`, or quoted words, joined by dots.
pub(crate) fn is_path(text: &str) -> bool {
    let mut rest = text;
    loop {
        let Some(after) = rest.strip_prefix('"').map_or_else(
            || word(rest),
            |quoted| {
                let (name, after) = quoted.split_once('"')?;
                is_name(name).then_some(after)
            },
        ) else {
            return false;
        };
        match after.strip_prefix('.') {
            Some(more) => rest = more,
            None => return after.is_empty() && text.len() <= LONGEST,
        }
    }
}

/// Returns whether a text can be a name. A text with quotes or line breaks cannot, because it could close the quotes
/// around it in a message.
pub(crate) fn is_name(text: &str) -> bool {
    !text.is_empty() && text.len() <= LONGEST && !text.contains(['"', '\n', '\r'])
}

/// The maximum length of a name in bytes: enough for three names of 63 bytes, PostgreSQL's maximum, joined by dots.
const LONGEST: usize = 200;

/// Removes a word from the beginning of a text, and returns the rest.
fn word(text: &str) -> Option<&str> {
    let is_part = |next: char| next.is_alphanumeric() || next == '_' || next == '$';
    let end = text.find(|next| !is_part(next)).unwrap_or(text.len());
    let starts_well = text.starts_with(|first: char| first.is_alphabetic() || first == '_');
    starts_well.then_some(&text[end..])
}

/// Matches a text against a pattern. Returns the text without its values if it matches.
pub(super) fn fill(shape: &str, text: &str) -> Option<String> {
    let Some((literal, rest)) = shape.split_once('{') else {
        return (shape == text).then(|| text.to_owned());
    };
    let after = text.strip_prefix(literal)?;
    let (slot, rest) = rest.split_once('}')?;
    // A slot ends where the pattern's next literal begins. The last slot takes the rest of the text.
    let Some((next, _)) = rest.split_once('{') else {
        let inside = after.strip_suffix(rest)?;
        return Some(format!("{literal}{}{rest}", take(slot, inside)?));
    };
    let ends = after.match_indices(next).map(|(end, _)| end);
    // A limit on the slot's length keeps the search linear for long values.
    for end in ends.take_while(|end| *end <= 5 * LONGEST) {
        let (inside, behind) = after.split_at(end);
        if let Some(inside) = take(slot, inside)
            && let Some(behind) = fill(rest, behind)
        {
            return Some(format!("{literal}{inside}{behind}"));
        }
    }
    None
}

/// Returns the visible text of a slot, or `None` if the text does not match the slot's kind.
fn take<'a>(slot: &str, text: &'a str) -> Option<&'a str> {
    let is_digits = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let fits = match slot {
        "value" => return Some("…"),
        "system" => return Some(if is_one_of(SYSTEM, text) { text } else { "…" }),
        "known" => is_one_of(SYSTEM, text),
        "address" => text.parse::<std::net::IpAddr>().is_ok(),
        "name" => is_name(text),
        "names" => !text.is_empty() && text.len() <= 10 * LONGEST && !text.contains(['\n', '\r']),
        "path" => is_path(text),
        "type" => is_type(text),
        "types" => text.is_empty() || text.split(", ").all(is_type),
        "operator" => {
            !text.is_empty()
                && text
                    .bytes()
                    .all(|byte| b"+-*/<>=~!@#%^&|`?".contains(&byte))
        }
        "number" => is_digits(text) && text.len() <= 10,
        "object" => is_one_of(OBJECTS, text),
        "jsonb" => is_one_of(
            &[
                "array",
                "array or object",
                "boolean",
                "null",
                "numeric",
                "object",
                "string",
            ],
            text,
        ),
        "storage" => is_one_of(
            &["ANY", "BLOB", "INT", "INTEGER", "NUM", "REAL", "TEXT"],
            text,
        ),
        "command" => is_command(text),
        "near" => is_one_of(NEAR, text),
        "mode" => is_one_of(MODES, text),
        "clause" => is_one_of(CLAUSES, text),
        "duration" => is_duration(text),
        _ => false,
    };
    fits.then_some(text)
}

fn is_one_of(texts: &[&str], text: &str) -> bool {
    texts.contains(&text)
}

/// Returns whether a text is a type's name, such as `integer`, `"Mood"`, `public.mood[]`, `character varying(10)` or
/// `timestamp(3) without time zone`.
fn is_type(text: &str) -> bool {
    const WORDS: &str = "bit character day double hour interval minute month precision second time timestamp to varying with \
                         without year zone";
    let mut plain = String::new();
    let mut rest = text;
    while let Some((before, behind)) = rest.split_once('(') {
        let Some((modifier, behind)) = behind.split_once(')') else {
            return false;
        };
        if !modifier
            .bytes()
            .all(|byte| byte.is_ascii_digit() || byte == b',')
            || modifier.len() > 10
        {
            return false;
        }
        plain += before;
        rest = behind;
    }
    plain += rest;
    let plain = plain.trim_end_matches("[]");
    is_path(plain)
        || plain
            .split(' ')
            .all(|word| WORDS.split_whitespace().any(|known| known == word))
}

/// Returns whether a text is a command or a function, such as `INSERT`, `CREATE INDEX CONCURRENTLY` or `nextval()`.
fn is_command(text: &str) -> bool {
    let is_words = |text: &str| {
        text.bytes()
            .all(|byte| byte.is_ascii_uppercase() || byte == b' ' || byte == b'/')
    };
    match text.strip_suffix("()") {
        Some(function) => is_path(function),
        None => !text.is_empty() && text.len() <= 60 && is_words(text),
    }
}

/// A duration as `Debug` of `Duration` prints it.
fn is_duration(text: &str) -> bool {
    let unit = text.trim_start_matches(|next: char| next.is_ascii_digit() || next == '.');
    unit.len() < text.len() && is_one_of(&["s", "ms", "µs", "ns"], unit)
}

const OBJECTS: &[&str] = &[
    "access method",
    "aggregate",
    "collation",
    "column",
    "configuration column",
    "constraint",
    "conversion",
    "cursor",
    "database",
    "domain",
    "encoding",
    "enum label",
    "event trigger",
    "extension",
    "foreign server",
    "foreign table",
    "foreign-data wrapper",
    "function",
    "index",
    "language",
    "large object",
    "materialized view",
    "operator",
    "operator class",
    "operator family",
    "parameter",
    "policy",
    "portal",
    "prepared statement",
    "procedure",
    "publication",
    "relation",
    "role",
    "routine",
    "rule",
    "savepoint",
    "schema",
    "sequence",
    "server",
    "statistics object",
    "subscription",
    "system column",
    "table",
    "tablespace",
    "template database",
    "text search configuration",
    "text search dictionary",
    "text search parser",
    "text search template",
    "trigger",
    "type",
    "view",
    "window",
];

/// The messages of PostgreSQL's lexer before `at or near "…"`.
const NEAR: &[&str] = &[
    "invalid Unicode escape",
    "invalid Unicode escape character",
    "invalid Unicode escape value",
    "invalid Unicode surrogate pair",
    "operator too long",
    "syntax error",
    "trailing junk after numeric literal",
    "trailing junk after parameter",
    "unsafe use of string constant with Unicode escapes",
    "unterminated /* comment",
    "unterminated bit string literal",
    "unterminated dollar-quoted string",
    "unterminated hexadecimal string literal",
    "unterminated quoted identifier",
    "unterminated quoted string",
    "zero-length delimited identifier",
];

/// The values of libpq's `sslmode`.
pub(super) const MODES: &[&str] = &[
    "disable",
    "allow",
    "prefer",
    "require",
    "verify-ca",
    "verify-full",
];

const CLAUSES: &[&str] = &[
    "CALL arguments",
    "COPY FROM WHERE conditions",
    "DEFAULT expressions",
    "EXECUTE parameters",
    "FROM clause of their own query level",
    "GROUP BY",
    "JOIN conditions",
    "RETURNING",
    "UPDATE",
    "VALUES",
    "WHERE",
    "check constraints",
    "column generation expressions",
    "functions in FROM",
    "index expressions",
    "index predicates",
    "partition key expressions",
    "policy expressions",
    "trigger WHEN conditions",
    "window definitions",
];

/// System error messages of glibc, musl and OpenSSL.
const SYSTEM: &[&str] = &[
    "Address family not supported by protocol",
    "Broken pipe",
    "Cannot allocate memory",
    "Connection refused",
    "Connection reset by peer",
    "Connection timed out",
    "Host is unreachable",
    "Input/output error",
    "Name does not resolve",
    "Name or service not known",
    "Network is unreachable",
    "No address associated with hostname",
    "No route to host",
    "No space left on device",
    "No such file or directory",
    "Operation timed out",
    "Permission denied",
    "Read-only file system",
    "Resource temporarily unavailable",
    "Success",
    "Temporary failure in name resolution",
    "Too many open files",
    "Try again",
    "EOF detected",
    "certificate verify failed",
    "no SSL error reported",
    "tlsv1 alert unknown ca",
    "unexpected eof while reading",
    "unknown error",
    "wrong version number",
    "Undefined error: 0",
    "unsupported protocol",
];

/// PostgreSQL's messages without slots, one per line: those in the translation files of version 15 that a client can
/// cause.
const POSTGRES_TEXTS: &str = include_str!("postgres_texts.txt");

/// The message patterns. No `{name}` may follow a `{value}`: a value that contains the literal between them could pass
/// a part of itself off as the name.
const SHAPES: &[&str] = &[
    // This crate.
    "the server did not answer within {duration}",
    "no thread could be started: {system}",
    "this backend is not compiled in",
    // PostgreSQL: constraints.
    "duplicate key value violates unique constraint \"{name}\"",
    "null value in column \"{name}\" of relation \"{name}\" violates not-null constraint",
    "null value in column \"{name}\" violates not-null constraint",
    "new row for relation \"{name}\" violates check constraint \"{name}\"",
    "new row for relation \"{name}\" violates partition constraint",
    "new row violates row-level security policy for table \"{name}\"",
    "new row violates row-level security policy \"{name}\" for table \"{name}\"",
    "new row violates row-level security policy (USING expression) for table \"{name}\"",
    "new row violates check option for view \"{name}\"",
    "insert or update on table \"{name}\" violates foreign key constraint \"{name}\"",
    "update or delete on table \"{name}\" violates foreign key constraint \"{name}\" on table \"{name}\"",
    "update or delete on table \"{name}\" violates RESTRICT setting of foreign key constraint \"{name}\" on table \"{name}\"",
    "conflicting key value violates exclusion constraint \"{name}\"",
    "could not create unique index \"{name}\"",
    "could not create exclusion constraint \"{name}\"",
    "check constraint \"{name}\" of relation \"{name}\" is violated by some row",
    "partition constraint of relation \"{name}\" is violated by some row",
    "column \"{name}\" of relation \"{name}\" contains null values",
    "value for domain {path} violates check constraint \"{name}\"",
    "domain {path} does not allow null values",
    "no partition of relation \"{name}\" found for row",
    "cannot insert a non-DEFAULT value into column \"{name}\"",
    "column \"{name}\" can only be updated to DEFAULT",
    "there is no unique or exclusion constraint matching the ON CONFLICT specification",
    "there is no unique constraint matching given keys for referenced table \"{name}\"",
    "ON CONFLICT DO UPDATE command cannot affect row a second time",
    "cannot truncate a table referenced in a foreign key constraint",
    // PostgreSQL: names.
    "{object} \"{name}\" does not exist",
    "{object} \"{name}\" already exists",
    "{object} \"{name}\" already exists in schema \"{name}\"",
    "{object} \"{name}\" already exists with same argument types",
    "{object} \"{name}\" of {object} \"{name}\" does not exist",
    "{object} \"{name}\" of {object} \"{name}\" already exists",
    "{object} \"{name}\" for {object} \"{name}\" does not exist",
    "{object} \"{name}\" for {object} \"{name}\" already exists",
    "{object} {path} does not exist",
    "{object} {path} already exists",
    "{object} {path}({types}) does not exist",
    "{object} {path}({types}) is not unique",
    "{object} {path}({types}) already exists with same argument types",
    "operator does not exist: {type} {operator} {type}",
    "operator does not exist: {operator} {type}",
    "operator is not unique: {type} {operator} {type}",
    "operator is not unique: {operator} {type}",
    "unnamed prepared statement does not exist",
    "column reference \"{name}\" is ambiguous",
    "table reference \"{name}\" is ambiguous",
    "column \"{name}\" must appear in the GROUP BY clause or be used in an aggregate function",
    "column \"{name}\" specified more than once",
    "column \"{name}\" of relation \"{name}\" appears more than once",
    "column \"{name}\" of relation \"{name}\" is a generated column",
    "column \"{name}\" named in key does not exist",
    "column \"{name}\" referenced in foreign key constraint does not exist",
    "column \"{name}\" cannot be cast automatically to type {type}",
    "multiple assignments to same column \"{name}\"",
    "table name \"{name}\" specified more than once",
    "missing FROM-clause entry for table \"{name}\"",
    "invalid reference to FROM-clause entry for table \"{name}\"",
    "unrecognized configuration parameter \"{name}\"",
    "parameter \"{name}\" cannot be changed now",
    "parameter \"{name}\" cannot be changed without restarting the server",
    "parameter \"{name}\" requires a Boolean value",
    "invalid value for parameter \"{name}\": \"{value}\"",
    "\"{name}\" is not a table",
    "\"{name}\" is not a view",
    "\"{name}\" is not a sequence",
    "\"{name}\" is not an index",
    "\"{name}\" is a view",
    "\"{name}\" is an index",
    "no schema has been selected to create in",
    "improper relation name (too many dotted names): {value}",
    "cross-database references are not implemented: {value}",
    "cannot drop {object} {path} because other objects depend on it",
    "role \"{name}\" cannot be dropped because some objects depend on it",
    "database \"{name}\" is being accessed by other users",
    "source database \"{name}\" is being accessed by other users",
    "cannot alter type of a column used by a view or rule",
    "relation \"{name}\" is not a partition of relation \"{name}\"",
    // PostgreSQL: permissions and connections.
    "permission denied for {object} {path}",
    "permission denied for {object} \"{name}\"",
    "permission denied for {object} \"{name}\" of relation \"{name}\"",
    "permission denied: \"{name}\" is a system catalog",
    "permission denied to create database",
    "permission denied to create role",
    "permission denied to alter role",
    "permission denied to drop role",
    "permission denied to create extension \"{name}\"",
    "permission denied to set parameter \"{name}\"",
    "permission denied to set role \"{name}\"",
    "permission denied to set session authorization",
    "permission denied",
    "must be owner of {object} {path}",
    "must be superuser or have privileges of the pg_read_server_files role to COPY from a file",
    "must be superuser or have privileges of the pg_write_server_files role to COPY to a file",
    "password authentication failed for user \"{name}\"",
    "Peer authentication failed for user \"{name}\"",
    "Ident authentication failed for user \"{name}\"",
    "certificate authentication failed for user \"{name}\"",
    "SCRAM authentication failed",
    "no password supplied",
    "no pg_hba.conf entry for host \"{name}\", user \"{name}\", database \"{name}\", no encryption",
    "no pg_hba.conf entry for host \"{name}\", user \"{name}\", database \"{name}\", SSL encryption",
    "no pg_hba.conf entry for host \"{name}\", user \"{name}\", database \"{name}\", SSL off",
    "no pg_hba.conf entry for host \"{name}\", user \"{name}\", database \"{name}\", SSL on",
    "pg_hba.conf rejects connection for host \"{name}\", user \"{name}\", database \"{name}\", no encryption",
    "pg_hba.conf rejects connection for host \"{name}\", user \"{name}\", database \"{name}\", SSL encryption",
    "role \"{name}\" is not permitted to log in",
    "too many connections for role \"{name}\"",
    "too many connections for database \"{name}\"",
    "database \"{name}\" is not currently accepting connections",
    "sorry, too many clients already",
    "remaining connection slots are reserved for non-replication superuser connections",
    "remaining connection slots are reserved for roles with the SUPERUSER attribute",
    "remaining connection slots are reserved for roles with privileges of the \"pg_use_reserved_connections\" role",
    "the database system is starting up",
    "the database system is shutting down",
    "the database system is in recovery mode",
    "the database system is not yet accepting connections",
    "the database system is not accepting connections",
    "canceling authentication due to timeout",
    "unsupported startup parameter: {path}",
    // PostgreSQL: transactions, limits and the server's state.
    "current transaction is aborted, commands ignored until end of transaction block",
    "could not serialize access due to concurrent delete",
    "could not serialize access due to concurrent update",
    "could not serialize access due to read/write dependencies among transactions",
    "deadlock detected",
    "canceling statement due to conflict with recovery",
    "canceling statement due to lock timeout",
    "canceling statement due to statement timeout",
    "canceling statement due to user request",
    "could not obtain lock on relation \"{name}\"",
    "could not obtain lock on row in relation \"{name}\"",
    "terminating connection because of crash of another server process",
    "terminating connection because of unexpected SIGQUIT signal",
    "terminating connection because protocol synchronization was lost",
    "terminating connection due to administrator command",
    "terminating connection due to conflict with recovery",
    "terminating connection due to idle-in-transaction timeout",
    "terminating connection due to idle-session timeout",
    "terminating connection due to immediate shutdown command",
    "terminating connection due to transaction timeout",
    "terminating connection due to unexpected postmaster exit",
    "cannot execute {command} in a read-only transaction",
    "cannot execute {command} during recovery",
    "cannot set transaction read-write mode during recovery",
    "cannot set transaction read-write mode inside a read-only transaction",
    "cannot use serializable mode in a hot standby",
    "{command} cannot run inside a transaction block",
    "{command} cannot be executed from a function",
    "{command} can only be used in transaction blocks",
    "SET TRANSACTION ISOLATION LEVEL must be called before any query",
    "SET TRANSACTION [NOT] DEFERRABLE must be called before any query",
    "transaction read-write mode must be set before any query",
    "invalid transaction termination",
    "snapshot too old",
    "cached plan must not change result type",
    "tuple to be updated was already modified by an operation triggered by the current command",
    "tuple to be deleted was already modified by an operation triggered by the current command",
    "out of memory",
    "out of shared memory",
    "stack depth limit exceeded",
    "could not {value} file \"{value}\": No space left on device",
    "could not resize shared memory segment \"{value}\" to {value} bytes: No space left on device",
    "invalid memory alloc request size {number}",
    "row is too big: size {number}, maximum size {number}",
    "index row size {number} exceeds btree version {number} maximum {number} for index \"{name}\"",
    "index row requires {number} bytes, maximum size is {number}",
    "target lists can have at most {number} entries",
    "tables can have at most {number} columns",
    "too many range table entries",
    "prepared transactions are disabled",
    "nextval: reached maximum value of sequence \"{name}\" ({value})",
    "nextval: reached minimum value of sequence \"{name}\" ({value})",
    "currval of sequence \"{name}\" is not yet defined in this session",
    "lastval is not yet defined in this session",
    // PostgreSQL: statements.
    "{near} at or near \"{value}\"",
    "{near} at end of input",
    "syntax error at or near \"{value}\" of jsonpath input",
    "syntax error",
    "cannot insert multiple commands into a prepared statement",
    "there is no parameter ${number}",
    "could not determine data type of parameter ${number}",
    "inconsistent types deduced for parameter ${number}",
    "bind message supplies {number} parameters, but prepared statement \"{name}\" requires {number}",
    "wrong number of parameters for prepared statement \"{name}\"",
    "column \"{name}\" is of type {type} but expression is of type {type}",
    "column \"{name}\" is of type {type} but default expression is of type {type}",
    "cannot cast type {type} to {type}",
    "cannot cast jsonb {jsonb} to type {type}",
    "{command} types {type} and {type} cannot be matched",
    "argument of {command} must be type {type}, not type {type}",
    "each {command} query must have the same number of columns",
    "aggregate functions are not allowed in {clause}",
    "grouping operations are not allowed in {clause}",
    "set-returning functions are not allowed in {clause}",
    "window functions are not allowed in {clause}",
    "aggregate function calls cannot be nested",
    "window function calls cannot be nested",
    "INSERT has more expressions than target columns",
    "INSERT has more target columns than expressions",
    "number of columns does not match number of values",
    "VALUES lists must all be the same length",
    "SELECT * with no tables specified is not valid",
    "SELECT DISTINCT ON expressions must match initial ORDER BY expressions",
    "for SELECT DISTINCT, ORDER BY expressions must appear in select list",
    "in an aggregate with DISTINCT, ORDER BY expressions must appear in argument list",
    "subquery in FROM must have an alias",
    "VALUES in FROM must have an alias",
    "subquery has too many columns",
    "subquery has too few columns",
    "subquery must return only one column",
    "more than one row returned by a subquery used as an expression",
    "positional argument cannot follow named argument",
    "argument of {command} must not return a set",
    "LIMIT must not be negative",
    "OFFSET must not be negative",
    "query has no destination for result data",
    "could not determine which collation to use for string comparison",
    "cannot use column reference in DEFAULT expression",
    "functions in index expression must be marked IMMUTABLE",
    "identifier too long",
    "COPY from stdin failed: {value}",
    "missing data for column \"{name}\"",
    "extra data after last expected column",
    "unexpected EOF in COPY data",
    "Received an empty query",
    // PostgreSQL: values.
    "invalid input syntax for type {type}: \"{value}\"",
    "invalid input syntax for type {type}",
    "invalid input value for enum {path}: \"{value}\"",
    "value \"{value}\" is out of range for type {type}",
    "\"{value}\" is out of range for type {type}",
    "value too long for type {type}",
    "bit string length {number} does not match type bit({number})",
    "bit string too long for type bit varying({number})",
    "{type} out of range",
    "date out of range for timestamp",
    "value out of range: overflow",
    "value out of range: underflow",
    "numeric field overflow",
    "input is out of range",
    "result is out of range",
    "division by zero",
    "zero raised to a negative power is undefined",
    "a negative number raised to a non-integer power yields a complex result",
    "cannot take logarithm of a negative number",
    "cannot take logarithm of zero",
    "cannot take square root of a negative number",
    "date out of range: \"{value}\"",
    "timestamp out of range: \"{value}\"",
    "date/time field value out of range: \"{value}\"",
    "interval field value out of range: \"{value}\"",
    "time zone displacement out of range: \"{value}\"",
    "time zone \"{value}\" not recognized",
    "invalid value \"{value}\" for \"{value}\"",
    "value for \"{value}\" in source string is out of range",
    "source string too short for \"{value}\" formatting field",
    "malformed array literal: \"{value}\"",
    "malformed range literal: \"{value}\"",
    "malformed multirange literal: \"{value}\"",
    "malformed record literal: \"{value}\"",
    "range lower bound must be less than or equal to range upper bound",
    "array subscript out of range",
    "multidimensional arrays must have array expressions with matching dimensions",
    "wrong number of array subscripts",
    "invalid byte sequence for encoding \"UTF8\": 0x00",
    "invalid byte sequence for encoding \"{name}\": {value}",
    "character with byte sequence {value} in encoding \"{value}\" has no equivalent in encoding \"{value}\"",
    "invalid regular expression: {value}",
    "invalid escape string",
    "LIKE pattern must not end with escape character",
    "null character not permitted",
    "requested character too large",
    "requested length too large",
    "negative substring length not allowed",
    "invalid hexadecimal digit: \"{value}\"",
    "invalid hexadecimal data: odd number of digits",
    "invalid symbol \"{value}\" while decoding base64 sequence",
    "invalid base64 end sequence",
    "unrecognized encoding: \"{value}\"",
    "unsupported Unicode escape sequence",
    "invalid XML content",
    "invalid XML document",
    "invalid XML comment",
    "cannot extract elements from a scalar",
    "cannot extract elements from an object",
    "cannot get array length of a non-array",
    "cannot get array length of a scalar",
    "cannot set path in scalar",
    "key value must be scalar, not array, composite, or json",
    "null value not allowed for object key",
    "improper binary format in array element {number}",
    "incorrect binary data format",
    "incorrect binary data format in bind parameter {number}",
    "insufficient data left in message",
    // libpq, each line of it.
    "server closed the connection unexpectedly",
    "SSL connection has been closed unexpectedly",
    "SSL SYSCALL error: {system}",
    "SSL error: {system}",
    "could not receive data from server: {system}",
    "could not send data to server: {system}",
    "could not send startup packet: {system}",
    "could not send SSL negotiation packet: {system}",
    "connection not open",
    "no connection to the server",
    "another command is already in progress",
    "number of parameters must be between 0 and {number}",
    "timeout expired",
    "{known}",
    "could not translate host name \"{name}\" to address: {system}",
    "could not create socket: {system}",
    "server does not support SSL, but SSL was required",
    "server does not support SSL",
    "SSL was required",
    "root certificate file \"{name}\" does not exist",
    "could not read root certificate file \"{name}\": {system}",
    "certificate present, but not private key file \"{name}\"",
    "server certificate for \"{name}\" does not match host name \"{name}\"",
    "server certificate for \"{name}\" (and {number} other name) does not match host name \"{name}\"",
    "server certificate for \"{name}\" (and {number} other names) does not match host name \"{name}\"",
    "invalid {path} value: \"{value}\"",
    "invalid port number: \"{value}\"",
    "invalid integer value \"{value}\" for connection option \"{value}\"",
    "invalid connection option \"{value}\"",
    "invalid URI query parameter: \"{value}\"",
    "invalid percent-encoded token: \"{value}\"",
    "forbidden value %00 in percent-encoded value: \"{value}\"",
    "missing \"=\" after \"{value}\" in connection info string",
    "unterminated quoted string in connection info string",
    "unexpected character \"{value}\" at position {value} in URI (expected \":\" or \"/\"): \"{value}\"",
    "session is read-only",
    "session is not read-only",
    "server is in hot standby mode",
    "server is not in hot standby mode",
    "fe_sendauth: no password supplied",
    "AuthenticationSASLFinal received from server, but SASL authentication was not completed",
    "COPY terminated by new PQexec",
    "Crypt authentication not supported",
    "PGresult cannot support more than INT_MAX tuples",
    "PGresult is not an error result",
    "SCM_CRED authentication method not supported",
    "SSL SYSCALL error: EOF detected",
    "SSL certificate's address entry is missing",
    "SSL certificate's name contains embedded null",
    "SSL certificate's name entry is missing",
    "cannot queue commands during COPY",
    "channel binding is required, but client does not support it",
    "channel binding is required, but server did not offer an authentication method that supports channel binding",
    "channel binding required but not supported by server's authentication request",
    "channel binding required, but SSL not in use",
    "channel binding required, but server authenticated client without channel binding",
    "command string is a null pointer",
    "connection in wrong state",
    "connection pointer is NULL",
    "could not determine server certificate signature algorithm",
    "could not encode client proof",
    "could not encode nonce",
    "could not generate nonce",
    "could not generate peer certificate hash",
    "could not generate random salt",
    "could not get server's host name from server certificate",
    "duplicate GSS authentication request",
    "duplicate SASL authentication request",
    "duplicate SSPI authentication request",
    "host name must be specified",
    "host name must be specified for a verified SSL connection",
    "incoming GSSAPI message did not use confidentiality",
    "incomplete multibyte character",
    "incorrect server signature",
    "insufficient data in \"D\" message",
    "insufficient data in \"T\" message",
    "insufficient data in \"t\" message",
    "invalid ExecStatusType code",
    "invalid SCRAM exchange state",
    "invalid SCRAM response (nonce mismatch)",
    "invalid SSL protocol version range",
    "invalid connection state, probably indicative of memory corruption",
    "invalid multibyte character",
    "invalid socket",
    "length must be given for binary parameter",
    "malformed SCRAM message (empty message)",
    "malformed SCRAM message (garbage at end of server-final-message)",
    "malformed SCRAM message (garbage at end of server-first-message)",
    "malformed SCRAM message (invalid iteration count)",
    "malformed SCRAM message (invalid salt)",
    "malformed SCRAM message (invalid server signature)",
    "malformed SCRAM message (length mismatch)",
    "no COPY in progress",
    "no client response found after SASL exchange success",
    "no error message available",
    "no error text available",
    "none of the server's SASL authentication mechanisms are supported",
    "outgoing GSSAPI message would not use confidentiality",
    "password_encryption value too long",
    "protocol error: no function result",
    "query to initialize large object functions did not return data",
    "received unencrypted data after GSSAPI encryption response",
    "received unencrypted data after SSL response",
    "requirepeer parameter is not supported on this platform",
    "server doesn't support GSSAPI encryption, but it was required",
    "server offered SCRAM-SHA-256-PLUS authentication over a non-SSL connection",
    "server sent an error response during SSL exchange",
    "server sent data (\"D\" message) without prior row description (\"T\" message)",
    "statement name is a null pointer",
    "unexpected field count in \"D\" message",
    "unexpected message from server during startup",
    "unexpected shape of result set returned for SHOW",
    "write to server failed",
    "sslmode value \"{mode}\" invalid when SSL support is not compiled in",
    "gssencmode value \"{mode}\" invalid when GSSAPI support is not compiled in",
    "authentication method {number} not supported",
    "private key file \"{name}\" is not a regular file",
    "could not open certificate file \"{name}\": {system}",
    "could not read certificate file \"{name}\": {system}",
    "could not load private key file \"{name}\": {system}",
    "certificate does not match private key file \"{name}\": {system}",
    "could not get home directory to locate root certificate file",
    "could not get client address from socket: {system}",
    "could not get socket error status: {system}",
    "could not establish SSL connection: {system}",
    "could not create SSL context: {system}",
    // PgBouncer.
    "query_wait_timeout",
    "query_timeout",
    "client_idle_timeout",
    "client_login_timeout",
    "idle transaction timeout",
    "server_login_retry",
    "server conn crashed?",
    "server connection crashed",
    "server login failed: wrong password type",
    "pgbouncer cannot connect to server",
    "pgbouncer is shutting down",
    "database is disabled",
    "no more connections allowed",
    "no more connections allowed (max_client_conn)",
    "no such user",
    "SASL authentication failed",
    "auth failed",
    "connection lost",
    // SQLite: fixed texts.
    "SQL logic error",
    "abort due to ROLLBACK",
    "access permission denied",
    "attempt to write a readonly database",
    "authorization denied",
    "bad parameter or other API misuse",
    "cannot VACUUM - SQL statements in progress",
    "cannot VACUUM from within a transaction",
    "cannot change into wal mode from within a transaction",
    "cannot commit - no transaction is active",
    "cannot commit transaction - SQL statements in progress",
    "cannot rollback - no transaction is active",
    "cannot start a transaction within a transaction",
    "column index out of range",
    "constraint failed",
    "database disk image is malformed",
    "database is locked",
    "database or disk is full",
    "database schema has changed",
    "database table is locked",
    "datatype mismatch",
    "disk I/O error",
    "file is not a database",
    "incomplete input",
    "integer overflow",
    "interrupted",
    "large file support is disabled",
    "locking protocol",
    "out of memory",
    "output file already exists",
    "parser stack overflow",
    "string or blob too big",
    "too many SQL variables",
    "unable to close due to unfinalized statements or unfinished backups",
    "unable to open database file",
    "unknown error",
    "unknown operation",
    "FOREIGN KEY constraint failed",
    "JSON cannot hold BLOB values",
    "LIKE or GLOB pattern too complex",
    "all VALUES must have the same number of terms",
    "malformed JSON",
    "no tables specified",
    "unable to use function MATCH in the requested context",
    "unterminated string",
    // SQLite: names.
    "UNIQUE constraint failed: {names}",
    "NOT NULL constraint failed: {names}",
    "CHECK constraint failed: {path}",
    "CHECK constraint failed: {value}",
    "Expression tree is too large (maximum depth {number})",
    "SELECTs to the left and right of {command} do not have the same number of result columns",
    "ambiguous column name: {path}",
    "cannot INSERT into generated column \"{name}\"",
    "cannot UPDATE generated column \"{name}\"",
    "cannot modify {path} because it is a view",
    "cannot store {storage} value in {storage} column {path}",
    "database schema is locked: {path}",
    "database table is locked: {path}",
    "duplicate column name: {path}",
    "foreign key mismatch - \"{name}\" referencing \"{name}\"",
    "index {path} already exists",
    "misuse of aggregate: {path}()",
    "misuse of window function {path}()",
    "no such collation sequence: {path}",
    "no such function: {path}",
    "no such index: {path}",
    "no such module: {path}",
    "no such savepoint: {path}",
    "no such trigger: {path}",
    "no such view: {path}",
    "sub-select returns {number} columns - expected {number}",
    "table {path} already exists",
    "table {path} has no column named {path}",
    "table {path} has {number} columns but {number} values were supplied",
    "table {path} may not be modified",
    "there is already a table named {path}",
    "there is already an index named {path}",
    "trigger {path} already exists",
    "view {path} already exists",
    "wrong number of arguments to function {path}()",
    "{number} values for {number} columns",
    // SQLite: values, or names that may be values, such as the `:p` of `pragma_integrity_check(:p)`; see `named`.
    "near \"{value}\": syntax error",
    "unrecognized token: \"{value}\"",
    "no such table: {value}",
    "no such column: {value}",
    "no such database: {value}",
    "unknown database {value}",
    "unable to open database: {value}",
    "bad JSON path: {value}",
    "JSON path error near '{value}'",
    "fts5: syntax error near \"{value}\"",
    "fts5: {value}",
    "malformed MATCH expression: [{value}]",
    "unknown special query: {value}",
    "unknown tokenizer: {value}",
];

#[cfg(test)]
mod tests {
    use super::*;

    fn slots(shape: &str) -> Vec<&str> {
        let slots = shape.split('{').skip(1);
        slots
            .filter_map(|rest| Some(rest.split_once('}')?.0))
            .collect()
    }

    #[test]
    fn shapes_are_well_formed() {
        for shape in SHAPES {
            let slots = slots(shape);
            for slot in &slots {
                assert!(KINDS.contains(slot), "{shape}: {slot}");
            }
            // The value can contain the literal before the next slot, followed by a name of its own.
            let values = slots.iter().skip_while(|slot| **slot != "value");
            for slot in values {
                assert!(
                    *slot == "value" || *slot == "type" && shape.ends_with("{type}"),
                    "{shape}: {slot} behind a value"
                );
            }
            assert_eq!(shape.lines().count(), 1, "{shape}");
            assert!(
                !shape.contains("}{"),
                "{shape}: nothing ends the first of the slots"
            );
        }
    }

    const KINDS: [&str; 20] = [
        "address", "clause", "command", "duration", "jsonb", "known", "mode", "name", "names",
        "near", "number", "object", "operator", "path", "storage", "system", "type", "types",
        "value", "",
    ];

    #[test]
    fn matching_megabytes_takes_linear_time() {
        for text in [
            "\"".repeat(1 << 20),
            "secret \" ".repeat(1 << 18),
            format!(
                "invalid input syntax for type integer: \"{}\"",
                "\"".repeat(1 << 20)
            ),
            format!("value \"{}", "\" is out of range for type ".repeat(1 << 15)),
            format!("{} does not exist", "relation \"".repeat(1 << 17)),
            "could not \" file \"".repeat(1 << 16),
        ] {
            let started_at = std::time::Instant::now();
            let _ = shown(&text);
            assert!(
                started_at.elapsed().as_secs() < 5,
                "{} bytes took {:?}",
                text.len(),
                started_at.elapsed()
            );
        }
    }
}
