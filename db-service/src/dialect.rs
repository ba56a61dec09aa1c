//! A statement with its values, as each backend takes them. diesel prepares each text once per connection.

#[cfg(feature = "postgres")]
pub(crate) mod postgres;
#[cfg(feature = "sqlite")]
pub(crate) mod sqlite;

use std::borrow::Cow;
use std::sync::Arc;

use chrono::Timelike;
use diesel::backend::Backend as DieselBackend;
#[cfg(feature = "postgres")]
use diesel::pg::Pg;
use diesel::pg::PgValue;
use diesel::query_builder::{AstPass, Query, QueryFragment, QueryId};
use diesel::result::{Error as DieselError, QueryResult};
use diesel::serialize::ToSql;
use diesel::sql_types::{HasSqlType, Untyped};
use parking_lot::Mutex;

use crate::error::DbError;
#[cfg(feature = "postgres")]
use crate::error::remember_place_in_statement;
#[cfg(feature = "postgres")]
use crate::sql::MAX_TEXT;
use crate::sql::{ListOperator, ParsedStatement, Piece};
use crate::values::Params;
use crate::values::Value;

/// The differences between the backends in how they take values.
pub(crate) trait Dialect: DieselBackend {
    /// A value in the form that the backend's driver takes.
    type Bind<'a>: std::fmt::Debug;

    /// The prefix of the backend's placeholders.
    const PLACEHOLDER: &'static str;

    /// Converts a value for the driver.
    fn bind(value: &Value) -> Self::Bind<'_>;

    /// Converts a list. `is_operand` is whether it occurs only after operators for lists. Returns the reason if the
    /// backend has no such list.
    fn bind_list(values: &[Value], is_operand: bool) -> Result<Self::Bind<'_>, &'static str>;

    /// Returns the reason why the backend would store another value without an error, if there is one.
    fn problem(value: &Value) -> Option<&'static str>;

    /// Returns the reason why a value cannot be sent for this place. `is_operand` is whether it is a list after an
    /// operator for lists.
    fn refusal(bind: &Self::Bind<'_>, place: Place, is_operand: bool) -> Option<&'static str>;

    /// Returns the literal that a value must be written as, because it takes its type from its place in the statement
    /// and the driver cannot send it as that type.
    fn literal<'b>(bind: &'b Self::Bind<'_>, place: Place) -> Option<Literal<'b>>;

    /// Returns the operator before a list, with its opening parenthesis. `text` is how the statement has it.
    fn list_operator<'b>(
        bind: &Self::Bind<'_>,
        operator: ListOperator,
        text: &'b str,
    ) -> Result<ListText<'b>, &'static str>;

    /// Adds a value to the statement, with its placeholder unless the text contains it already.
    fn push<'b>(
        bind: &'b Self::Bind<'_>,
        place: Place,
        placeholder: Placeholder,
        out: &mut AstPass<'_, 'b, Self>,
    ) -> QueryResult<()>
    where
        Self: Sized;
}

/// The conversions of a statement's values by SQLite, once they are known.
#[cfg(feature = "sqlite")]
pub(crate) type Conversions = Option<sqlite::Conversions>;
/// PostgreSQL needs none.
#[cfg(not(feature = "sqlite"))]
#[derive(Debug, Default)]
pub(crate) struct Conversions {}

/// The type of the place where a parameter stands.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Place {
    /// No value of the statement needs the type of its place.
    Any,
    /// The type is unknown.
    Unknown,
    /// The object identifier of its type.
    Type(u32),
}

/// A value as a part of a statement's text.
#[cfg_attr(
    not(feature = "postgres"),
    allow(dead_code, reason = "only PostgreSQL gets literals")
)]
#[derive(Debug, PartialEq)]
pub(crate) enum Literal<'a> {
    Null,
    /// A text that the server converts to the type of its place.
    Text(Cow<'a, str>),
}

/// The text before and after a list.
#[derive(Debug, PartialEq)]
pub(crate) struct ListText<'a> {
    pub(crate) before: &'a str,
    pub(crate) after: &'static str,
}

/// Whether the text of a statement contains the placeholder of a value already.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Placeholder {
    Missing,
    Written,
}

/// Adds a value of the SQL type `ST` to a statement.
fn push<'b, D, ST, T>(
    value: &'b T,
    placeholder: Placeholder,
    out: &mut AstPass<'_, 'b, D>,
) -> QueryResult<()>
where
    D: DieselBackend + HasSqlType<ST>,
    T: ToSql<ST, D> + ?Sized,
{
    match placeholder {
        Placeholder::Missing => out.push_bind_param::<ST, T>(value),
        Placeholder::Written => out.push_bind_param_value_only::<ST, T>(value),
    }
}

/// The reason why a statement's rows could not be loaded.
#[derive(Debug)]
pub(crate) enum LoadError {
    /// The server or the driver failed, at this position in the caller's text if it is known.
    Driver(DieselError, Option<usize>),
    /// A value cannot be represented. The statement was executed.
    Value(DbError),
    /// The values do not fit the statement, so it was not sent.
    NotSent(DbError),
}

impl From<DieselError> for LoadError {
    fn from(error: DieselError) -> Self {
        LoadError::Driver(error, None)
    }
}

impl From<DbError> for LoadError {
    fn from(error: DbError) -> Self {
        LoadError::Value(error)
    }
}

/// The column names of a statement's last result. They are shared by later results, unless a table was changed
/// meanwhile.
#[derive(Debug, Default)]
pub(crate) struct ColumnNames(Mutex<Option<Arc<[String]>>>);

impl ColumnNames {
    /// Returns the names of a result with `count` columns. `compare` passes the name of a column to its argument.
    pub(crate) fn of(
        &self,
        count: usize,
        compare: impl Fn(usize, &mut dyn FnMut(&str) -> bool) -> bool,
    ) -> Arc<[String]> {
        let mut known = self.0.lock();
        if let Some(known) = &*known
            && known.len() == count
            && (0..count).all(|index| compare(index, &mut |name| name == known[index]))
        {
            return Arc::clone(known);
        }
        let mut names = Vec::with_capacity(count);
        for index in 0..count {
            compare(index, &mut |name| {
                names.push(name.to_owned());
                true
            });
        }
        let names: Arc<[String]> = names.into();
        *known = Some(Arc::clone(&names));
        names
    }
}

/// The types of a statement's parameters on PostgreSQL.
#[cfg_attr(
    not(feature = "postgres"),
    allow(dead_code, reason = "only PostgreSQL has types of parameters")
)]
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum ParameterTypes {
    /// No value needs them.
    NotNeeded,
    /// The server cannot tell them.
    Unknown,
    /// The object identifier of each parameter's type, in the order of their names in the statement.
    Known(Arc<[u32]>),
}

/// The facts about the places of parameters that the values of a statement depend on.
#[derive(Debug, Default)]
pub(crate) struct Needs {
    /// Whether a value takes its type from its place.
    pub(crate) types: bool,
    /// For each name, whether its value is a list. Empty if the statement has no operator for lists.
    pub(crate) lists: Vec<bool>,
}

impl Needs {
    /// Returns what the values of some rows need. In a statement with operators for lists, the first row decides which
    /// values are lists.
    pub(crate) fn of<'p>(
        parsed: &ParsedStatement,
        rows: impl IntoIterator<Item = &'p Params>,
    ) -> Self {
        let mut needs = Needs::default();
        for (position, row) in rows.into_iter().enumerate() {
            needs.types |= row.values().any(|value| match value {
                Value::Text(_) | Value::Json(_) | Value::Array(_) => true,
                // A literal has no type that must be inferred.
                Value::Null => !parsed.is_preparable,
                _ => false,
            });
            if position == 0 && parsed.has_lists {
                let values = parsed.names.iter().map(|name| row.get(name));
                let is_list = |value| matches!(value, Some(&Value::Array(_)));
                needs.lists = values.map(is_list).collect();
            }
        }
        needs
    }

    /// Returns whether the first parameter of these pieces is a list.
    #[cfg(feature = "postgres")]
    pub(crate) fn is_list(&self, pieces: &[Piece<'_>]) -> bool {
        let index = pieces.iter().find_map(parameter);
        index.is_some_and(|index| self.lists.get(index) == Some(&true))
    }
}

/// A statement's text and values, for one backend.
#[derive(Debug)]
pub(crate) struct Statement<'a, D: Dialect> {
    parsed: &'a ParsedStatement,
    /// A text before the statement, such as the declaration of a cursor.
    prefix: &'a str,
    /// How often the statement's row of values is repeated, each time with its own values.
    rows: usize,
    binds: Vec<D::Bind<'a>>,
    /// Whether each bind is a list.
    lists: Vec<bool>,
    types: ParameterTypes,
    /// Whether a value is written as a literal.
    has_literal: bool,
    is_cached: bool,
}

impl<'a, D: Dialect> Statement<'a, D> {
    pub(crate) fn new(
        parsed: &'a ParsedStatement,
        params: &'a Params,
        types: ParameterTypes,
    ) -> Result<Self, DbError> {
        check_names(parsed, params)?;
        let mut binds = Vec::with_capacity(parsed.names.len());
        let mut lists = Vec::new();
        for (index, name) in parsed.names.iter().enumerate() {
            let value = value(name, params)?;
            let unstorable = |problem| DbError::UnstorableValue {
                name: String::from(&**name),
                row: None,
                problem,
            };
            binds.push(match value {
                Value::Array(values) => {
                    let is_operand = is_operand(parsed, index);
                    lists.resize(parsed.names.len(), false);
                    lists[index] = true;
                    D::bind_list(values, is_operand).map_err(unstorable)?
                }
                value => match D::problem(value) {
                    Some(problem) => return Err(unstorable(problem)),
                    None => D::bind(value),
                },
            });
        }
        let statement = Statement {
            parsed,
            prefix: "",
            rows: 1,
            binds,
            lists,
            types,
            has_literal: false,
            is_cached: parsed.is_cached,
        };
        statement.check_lists()?;
        statement.with_literals()
    }

    /// Puts a text before the statement, which is then not kept prepared.
    #[cfg(feature = "postgres")]
    pub(crate) fn unprepared_with_prefix(mut self, prefix: &'a str) -> Self {
        self.prefix = prefix;
        self.is_cached = false;
        self
    }

    /// Creates a statement whose row of values is repeated. `binds` are the values of all rows.
    #[cfg(feature = "postgres")]
    pub(crate) fn of_rows(
        parsed: &'a ParsedStatement,
        rows: usize,
        binds: Vec<D::Bind<'a>>,
        types: ParameterTypes,
    ) -> Result<Self, DbError> {
        let length = |piece: Piece<'_>| match piece {
            Piece::Text(text) | Piece::List(text, _) => text.len(),
            Piece::Parameter(_) => "$65535".len(),
        };
        let pieces = parsed.pieces();
        let row: usize = match &parsed.row {
            Some(row) => pieces
                .skip(*row.start())
                .take(row.clone().count())
                .map(length)
                .sum(),
            None => 0,
        };
        let statement = Statement {
            parsed,
            prefix: "",
            rows,
            binds,
            lists: Vec::new(),
            types,
            has_literal: false,
            is_cached: parsed.text().len() + row * (rows - 1) <= MAX_TEXT,
        };
        statement.with_literals()
    }

    /// Determines whether a value is a literal. A statement with values in its text is not kept prepared.
    fn with_literals(mut self) -> Result<Self, DbError> {
        if self.types == ParameterTypes::NotNeeded {
            return Ok(self);
        }
        let width = self.parsed.names.len();
        for (index, bind) in self.binds.iter().enumerate() {
            let place = self.place(index);
            let is_operand = self.lists.get(index) == Some(&true) && is_operand(self.parsed, index);
            if let Some(problem) = D::refusal(bind, place, is_operand) {
                return Err(DbError::UnstorableValue {
                    name: self.parsed.names[index % width].to_string(),
                    row: None,
                    problem,
                });
            }
            self.has_literal |= D::literal(bind, place).is_some();
        }
        self.is_cached &= !self.has_literal;
        Ok(self)
    }

    /// Returns an error for a list after an operator that takes none.
    fn check_lists(&self) -> Result<(), DbError> {
        if self.lists.is_empty() {
            return Ok(());
        }
        let pieces: Vec<_> = self.parsed.pieces().collect();
        for (position, piece) in pieces.iter().enumerate() {
            let Piece::List(text, operator) = piece else {
                continue;
            };
            let index = pieces[position..].iter().find_map(parameter);
            let Some(index) = index.filter(|&index| self.lists[index]) else {
                continue;
            };
            D::list_operator(&self.binds[index], *operator, text).map_err(|problem| {
                DbError::UnstorableValue {
                    name: self.parsed.names[index].to_string(),
                    row: None,
                    problem,
                }
            })?;
        }
        Ok(())
    }

    /// Returns whether the statement changes rows, and its result has none.
    #[cfg(feature = "sqlite")]
    pub(crate) fn is_done_without_rows(&self) -> bool {
        self.parsed.changes_rows && !self.parsed.has_returning
    }

    /// Returns the place of a value. In a repeated row, places repeat too.
    fn place(&self, index: usize) -> Place {
        match &self.types {
            ParameterTypes::NotNeeded => Place::Any,
            ParameterTypes::Unknown => Place::Unknown,
            ParameterTypes::Known(types) if types.is_empty() => Place::Unknown,
            ParameterTypes::Known(types) => Place::Type(types[index % types.len()]),
        }
    }

    /// Returns the statement's text without its values, for logs.
    pub(crate) fn shown(&self) -> String {
        format!("{}{}", self.prefix, self.parsed.rendered())
    }
}

fn parameter(piece: &Piece<'_>) -> Option<usize> {
    match piece {
        Piece::Parameter(index) => Some(*index),
        _ => None,
    }
}

/// Returns whether a parameter occurs only after operators for lists.
fn is_operand(parsed: &ParsedStatement, index: usize) -> bool {
    let mut follows_operator = false;
    for piece in parsed.pieces() {
        match piece {
            Piece::List(..) => follows_operator = true,
            Piece::Text(_) => {}
            Piece::Parameter(found) => {
                if found == index && !follows_operator {
                    return false;
                }
                follows_operator = false;
            }
        }
    }
    true
}

/// A part of a statement that is sent, and the byte of the caller's text that it stands for.
enum Part<'b> {
    /// A piece of the caller's text.
    Source(&'b str),
    /// Text that was added.
    Added(&'static str),
    Literal(Literal<'b>),
    /// A value that is bound: its position in the statement's values, and its number among the bound ones, from 1.
    Value {
        index: usize,
        number: u32,
        is_first: bool,
    },
}

impl<D: Dialect> Statement<'_, D> {
    /// Passes the parts of the statement to `each`, with the byte of the caller's text for which each stands.
    fn parts<'b>(
        &'b self,
        each: &mut dyn FnMut(usize, Part<'b>) -> QueryResult<()>,
    ) -> QueryResult<()> {
        let pieces: Vec<_> = self.parsed.located_pieces().collect();
        let row = match &self.parsed.row {
            Some(row) if self.rows > 1 => *row.start()..*row.end() + 1,
            _ => 0..0,
        };
        let mut numbers = vec![0; self.binds.len()];
        let mut bound = 0;
        let mut after = "";
        let mut write = |number: usize, position: usize, begins_next_row: bool| {
            let (at, piece) = pieces[position];
            if begins_next_row {
                each(at, Part::Added(","))?;
            }
            match piece {
                Piece::Text(text) => each(at, Part::Source(text)),
                Piece::List(text, operator) => {
                    let mut next = pieces[position..].iter();
                    let index = next.find_map(|(_, piece)| parameter(piece));
                    let index = index.filter(|&index| self.lists.get(index) == Some(&true));
                    let list =
                        index.map(|index| D::list_operator(&self.binds[index], operator, text));
                    match list {
                        Some(Ok(list)) => {
                            after = list.after;
                            each(at, Part::Source(list.before))
                        }
                        // The constructor has checked the operator.
                        _ => each(at, Part::Source(text)),
                    }
                }
                Piece::Parameter(index) => {
                    let index = number * self.parsed.names.len() + index;
                    let part = match D::literal(&self.binds[index], self.place(index)) {
                        Some(literal) => Part::Literal(literal),
                        None => {
                            let is_first = numbers[index] == 0;
                            if is_first {
                                bound += 1;
                                numbers[index] = bound;
                            }
                            Part::Value {
                                index,
                                number: numbers[index],
                                is_first,
                            }
                        }
                    };
                    each(at, part)?;
                    each(at, Part::Added(std::mem::take(&mut after)))
                }
            }
        };
        for position in 0..row.start {
            write(0, position, false)?;
        }
        if !row.is_empty() {
            for number in 0..self.rows {
                for position in row.clone() {
                    write(number, position, number > 0 && position == row.start)?;
                }
            }
        }
        for position in row.end..pieces.len() {
            write(0, position, false)?;
        }
        Ok(())
    }
}

/// Writes a literal of PostgreSQL. Between dollar signs, no character has a meaning, whatever the settings of the
/// session are. The tag is longer than all that the text contains.
///
/// If a string of the statement may end elsewhere (`has_backslash`), the literal could be read as a part of it. Then each
/// character is escaped, so that no part of the text can be executed.
fn quoted(text: &str, has_backslash: bool) -> String {
    if has_backslash {
        let escaped = text
            .chars()
            .map(|character| format!("\\U{:08X}", u32::from(character)));
        return format!(" E'{}' ", escaped.collect::<String>());
    }
    let mut longest = 0;
    for (position, _) in text.match_indices('$') {
        let tag = text[position + 1..].bytes();
        longest = longest.max(tag.take_while(|&byte| byte == b'q').count());
    }
    let tag = "q".repeat(longest + 1);
    format!(" ${tag}${text}${tag}$ ")
}

#[cfg(feature = "postgres")]
impl Statement<'_, Pg> {
    /// Adds the position in the caller's text to an error of the server, and notes which words of that text the message
    /// may show.
    pub(crate) fn located<T>(&self, result: Result<T, LoadError>) -> Result<T, LoadError> {
        if let Err(LoadError::Driver(error, _)) = &result {
            remember_place_in_statement(error, self.parsed.text());
        }
        result.map_err(|error| match error {
            LoadError::Driver(DieselError::DatabaseError(kind, information), _) => {
                let position = information
                    .statement_position()
                    .and_then(|sent| self.position_of(sent.try_into().ok()?));
                LoadError::Driver(DieselError::DatabaseError(kind, information), position)
            }
            error => error,
        })
    }

    /// Returns the position in the caller's text that belongs to a position in the text that was sent. Positions are
    /// characters, from 1. A position in a value is that of its parameter. Returns `None` for a position in text that
    /// was added.
    fn position_of(&self, sent: usize) -> Option<usize> {
        let text = self.parsed.text();
        let here = |byte: usize, characters: usize| text[..byte].chars().count() + characters + 1;
        let mut before = sent.checked_sub(1 + self.prefix.chars().count())?;
        let mut found = None;
        let mut place = |length: usize, position: &dyn Fn(usize) -> Option<usize>| {
            // Positions before `before` were passed.
            if found.is_none() {
                if before < length {
                    found = Some(position(before));
                } else {
                    before -= length;
                }
            }
        };
        let _ = self.parts(&mut |at, part| {
            let characters = |text: &str| text.chars().count();
            match part {
                Part::Source(source) => {
                    let length = characters(source);
                    let is_unchanged = text[at..].starts_with(source);
                    place(length, &|offset| {
                        Some(here(at, if is_unchanged { offset } else { 0 }))
                    });
                }
                Part::Added(text) => place(characters(text), &|_| None),
                Part::Literal(Literal::Null) => place("NULL".len(), &|_| Some(here(at, 0))),
                Part::Literal(Literal::Text(text)) => {
                    let written = quoted(&text, self.parsed.has_backslash);
                    place(characters(&written), &|_| Some(here(at, 0)));
                }
                Part::Value { number, .. } => {
                    place(format!("${number}").len(), &|_| Some(here(at, 0)));
                }
            }
            Ok(())
        });
        // The end of the statement.
        found.unwrap_or_else(|| (before == 0).then(|| here(text.len(), 0)))
    }
}

/// The object identifier of PostgreSQL's type `time`, from `pg_type.dat`.
pub(crate) const TIME: u32 = 1083;

/// Returns whether a value of PostgreSQL is the time 24:00, which the driver would read as 00:00.
pub(crate) fn is_midnight_at_the_end(value: &PgValue<'_>) -> bool {
    const MIDNIGHT_AT_THE_END: [u8; 8] = 86_400_000_000_i64.to_be_bytes();
    value.get_oid().get() == TIME && value.as_bytes() == MIDNIGHT_AT_THE_END
}

/// Returns the reason why PostgreSQL cannot store a time, if it is a leap second.
pub(crate) fn leap_second(time: &impl Timelike) -> Option<&'static str> {
    (time.nanosecond() >= 1_000_000_000).then_some(
        "PostgreSQL has no leap seconds and would store the next minute; use the second 59",
    )
}

/// Returns the parameters' values, in the order of their names in the statement.
#[cfg(feature = "postgres")]
pub(crate) fn values<'a>(
    parsed: &ParsedStatement,
    params: &'a Params,
) -> Result<Vec<&'a Value>, DbError> {
    check_names(parsed, params)?;
    let values = parsed.names.iter();
    values.map(|name| value(name, params)).collect()
}

/// Returns an error for a parameter that the statement does not name.
fn check_names(parsed: &ParsedStatement, params: &Params) -> Result<(), DbError> {
    match params.names().find(|name| !parsed.names.contains(*name)) {
        None => Ok(()),
        Some(name) => Err(DbError::UnusedParameter {
            name: name.to_owned(),
        }),
    }
}

fn value<'a>(name: &str, params: &'a Params) -> Result<&'a Value, DbError> {
    params.get(name).ok_or_else(|| DbError::MissingParameter {
        name: name.to_owned(),
    })
}

impl<D: Dialect> QueryFragment<D> for Statement<'_, D> {
    fn walk_ast<'b>(&'b self, mut out: AstPass<'_, 'b, D>) -> QueryResult<()> {
        if !self.is_cached {
            out.unsafe_to_cache_prepared();
        }
        let is_plain = self.prefix.is_empty() && self.rows == 1 && self.lists.is_empty();
        if is_plain && !self.has_literal {
            out.push_sql(self.parsed.rendered());
            let mut binds = self.binds.iter().enumerate();
            return binds.try_for_each(|(index, bind)| {
                D::push(bind, self.place(index), Placeholder::Written, &mut out)
            });
        }
        out.push_sql(self.prefix);
        self.parts(&mut |_, part| {
            match part {
                Part::Source(text) => out.push_sql(text),
                Part::Added(text) => out.push_sql(text),
                Part::Literal(Literal::Null) => out.push_sql("NULL"),
                Part::Literal(Literal::Text(text)) => {
                    out.push_sql(&quoted(&text, self.parsed.has_backslash))
                }
                Part::Value {
                    index,
                    is_first: true,
                    ..
                } => D::push(
                    &self.binds[index],
                    self.place(index),
                    Placeholder::Missing,
                    &mut out,
                )?,
                Part::Value { number, .. } => {
                    out.push_sql(D::PLACEHOLDER);
                    out.push_sql(&number.to_string());
                }
            }
            Ok(())
        })
    }
}

impl<D: Dialect> QueryId for Statement<'_, D> {
    type QueryId = ();
    // `false` makes diesel look the statement up by the text that `walk_ast` writes.
    const HAS_STATIC_QUERY_ID: bool = false;
}

impl<D: Dialect> Query for Statement<'_, D> {
    type SqlType = Untyped;
}
