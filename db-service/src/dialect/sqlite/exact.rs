//! Numbers that SQLite would round.
//!
//! A decimal is bound as text. Where SQLite converts that text to a number, because of a column's affinity or for a
//! comparison, it keeps integers of 64 bits, and about 15 digits of all other numbers. Columns, indexes, triggers and
//! views decide which conversions a statement applies to a parameter, so SQLite is asked: `EXPLAIN` lists the
//! instructions of the statement, which <https://sqlite.org/opcode.html> describes. The parameter is followed through
//! them. An instruction that is not known here counts as a conversion: a value is refused rather than rounded.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::RangeInclusive;

use bigdecimal::BigDecimal;
use diesel::QueryableByName;
use diesel::RunQueryDsl;
use diesel::result::QueryResult;
use diesel::sql_types::{BigInt, Nullable, Text};
use diesel::sqlite::SqliteConnection;

use crate::dialect::LoadError;
use crate::error::DbError;
use crate::sql::ParsedStatement;
use crate::values::{Params, Value};

/// Refuses parameters that the statement would round. `conversions` keeps SQLite's answer for the next parameters of
/// the same statement.
pub(crate) fn check_exact(
    connection: &mut SqliteConnection,
    parsed: &ParsedStatement,
    params: &Params,
    conversions: &mut Option<Conversions>,
) -> Result<(), LoadError> {
    // A user's `EXPLAIN` executes nothing.
    let is_explain = || {
        let first_word = parsed.rendered().split_whitespace().next();
        first_word.is_some_and(|word| word.eq_ignore_ascii_case("EXPLAIN"))
    };
    if params.values().all(is_exact_everywhere) || is_explain() {
        return Ok(());
    }
    for (index, name) in parsed.names.iter().enumerate() {
        let Some(value) = params.get(name) else {
            continue;
        };
        let sql = || parsed.rendered().to_owned();
        if let Some(problem) = rounding(connection, value, index, sql, conversions)? {
            return Err(LoadError::NotSent(DbError::UnstorableValue {
                name: String::from(&**name),
                row: None,
                problem,
            }));
        }
    }
    Ok(())
}

/// Returns the reason why a value is refused as the parameter with this index of the statement that `sql` returns.
pub(crate) fn rounding(
    connection: &mut SqliteConnection,
    value: &Value,
    index: usize,
    sql: impl FnOnce() -> String,
    conversions: &mut Option<Conversions>,
) -> QueryResult<Option<&'static str>> {
    if is_exact_everywhere(value) {
        return Ok(None);
    }
    let conversions = match conversions {
        Some(known) => known,
        none => none.insert(Conversions::ask(connection, &sql())?),
    };
    let tolerated = Conversion::tolerated_by(value);
    let is_list = matches!(value, Value::Array(_));
    let is_rounded = conversions.of_parameter(index, is_list) > tolerated;
    Ok(is_rounded.then_some(match tolerated {
        Conversion::Integer => {
            "SQLite would round this integer, because the statement converts it to a float; declare the column INTEGER \
             or TEXT, or round the value to 15 digits"
        }
        _ => {
            "SQLite would round this decimal, because the statement converts it to a number; declare the column TEXT, \
             which keeps all digits, or round the value to 15 digits"
        }
    }))
}

/// Returns whether SQLite keeps a value exact in each column.
pub(crate) fn is_exact_everywhere(value: &Value) -> bool {
    match value {
        Value::Decimal(_) | Value::Array(_) => Conversion::tolerated_by(value) == Conversion::Float,
        _ => true,
    }
}

/// The conversions by SQLite of a number that is bound as text, from the least loss to the most.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Conversion {
    /// It keeps the text.
    None,
    /// It converts an integer of 64 bits to that integer, and any other number to a float.
    Integer,
    /// It converts the number to a float, or computes with it.
    Float,
}

impl Conversion {
    /// Returns the conversion by an affinity, as SQLite's instructions write it.
    fn of_affinity(affinity: u8) -> Self {
        match affinity {
            b'@' | b'A' | b'B' => Conversion::None,
            b'C' | b'D' => Conversion::Integer,
            _ => Conversion::Float,
        }
    }

    /// Returns the conversion by a column of a `STRICT` table.
    fn of_strict_type(name: &str) -> Self {
        match name.to_ascii_uppercase().as_str() {
            "TEXT" | "BLOB" | "ANY" => Conversion::None,
            "INT" | "INTEGER" => Conversion::Integer,
            _ => Conversion::Float,
        }
    }

    /// Returns the strongest conversion after which the value, or each element of a list, is still exact.
    fn tolerated_by(value: &Value) -> Self {
        match value {
            Value::Decimal(value) => Conversion::tolerated_by_decimal(value),
            Value::Array(values) => {
                let all = values.iter().map(Conversion::tolerated_by);
                all.min().unwrap_or(Conversion::Float)
            }
            _ => Conversion::Float,
        }
    }

    fn tolerated_by_decimal(value: &BigDecimal) -> Self {
        /// The number of digits that a float keeps of each decimal.
        const EXACT_DIGITS: usize = f64::DIGITS as usize;
        /// The powers of ten between which floats have their full precision.
        const MAGNITUDES: RangeInclusive<i64> = f64::MIN_10_EXP as i64..=f64::MAX_10_EXP as i64 - 1;
        let text = value.to_plain_string();
        let unsigned = text.trim_start_matches('-');
        let (whole, fraction) = unsigned.split_once('.').unwrap_or((unsigned, ""));
        let digits = || whole.bytes().chain(fraction.bytes());
        let Some(first) = digits().position(|digit| digit != b'0') else {
            return Conversion::Float;
        };
        let zeros = digits().rev().take_while(|digit| *digit == b'0').count();
        let significant = whole.len() + fraction.len() - first - zeros;
        let magnitude = whole.len() as i64 - 1 - first as i64;
        // SQLite makes an integer of the float that is nearest to 123456789012345000.0. It has other digits.
        let becomes_integer = !fraction.is_empty() && magnitude >= EXACT_DIGITS as i64;
        if significant <= EXACT_DIGITS && MAGNITUDES.contains(&magnitude) && !becomes_integer {
            return Conversion::Float;
        }
        match text.parse::<i64>() {
            Ok(integer) if integer.unsigned_abs() <= 1 << f64::MANTISSA_DIGITS => Conversion::Float,
            Ok(_) => Conversion::Integer,
            Err(_) => Conversion::None,
        }
    }
}

/// The instructions of a statement.
#[derive(Debug)]
pub(crate) struct Conversions {
    instructions: Vec<Instruction>,
    /// The conversions by the columns of `STRICT` tables that are written, by a table's name and number of columns.
    strict: BTreeMap<(String, i64), Vec<Conversion>>,
}

/// An instruction of a statement, or of a trigger that it starts.
#[derive(Debug)]
struct Instruction {
    /// The position of its program in the list. The statement and each trigger have registers and cursors of their own.
    program: usize,
    opcode: String,
    p1: i64,
    p2: i64,
    p3: i64,
    p4: String,
    p5: i64,
}

#[derive(QueryableByName)]
struct ExplainedRow {
    #[diesel(sql_type = BigInt)]
    addr: i64,
    #[diesel(sql_type = Text)]
    opcode: String,
    #[diesel(sql_type = BigInt)]
    p1: i64,
    #[diesel(sql_type = BigInt)]
    p2: i64,
    #[diesel(sql_type = BigInt)]
    p3: i64,
    #[diesel(sql_type = Nullable<Text>)]
    p4: Option<String>,
    #[diesel(sql_type = BigInt)]
    p5: i64,
}

#[derive(QueryableByName)]
struct StrictColumn {
    #[diesel(sql_type = Text)]
    schema: String,
    #[diesel(sql_type = Text)]
    data_type: String,
}

impl Conversions {
    fn ask(connection: &mut SqliteConnection, sql: &str) -> QueryResult<Self> {
        let rows: Vec<ExplainedRow> =
            diesel::sql_query(format!("EXPLAIN {sql}")).load(connection)?;
        let mut program = 0;
        let instructions: Vec<_> = rows
            .into_iter()
            .map(|row| {
                program += usize::from(row.addr == 0);
                Instruction {
                    program,
                    opcode: row.opcode,
                    p1: row.p1,
                    p2: row.p2,
                    p3: row.p3,
                    p4: row.p4.unwrap_or_default(),
                    p5: row.p5,
                }
            })
            .collect();
        let mut strict = BTreeMap::new();
        for check in instructions.iter().filter(|it| it.opcode == "TypeCheck") {
            let columns = strict_columns(connection, &check.p4, check.p2)?;
            strict.insert((check.p4.clone(), check.p2), columns);
        }
        Ok(Conversions {
            instructions,
            strict,
        })
    }

    /// Returns the strongest conversion of the parameter with this index.
    fn of_parameter(&self, index: usize, is_list: bool) -> Conversion {
        let mut trace = Trace {
            conversions: self,
            parameter: index as i64 + 1,
            is_list,
            values: BTreeSet::new(),
            places: BTreeMap::new(),
            strongest: Conversion::None,
            has_changed: true,
        };
        while trace.has_changed {
            trace.has_changed = false;
            for instruction in &self.instructions {
                trace.follow(instruction);
            }
        }
        // If no instruction reads the parameter, its use is not known.
        match trace.values.is_empty() {
            true => Conversion::Float,
            false => trace.strongest,
        }
    }
}

/// Returns the conversions by the `count` stored columns of a `STRICT` table. `EXPLAIN` does not name its schema, so
/// tables of that name in all schemas are combined.
fn strict_columns(
    connection: &mut SqliteConnection,
    table: &str,
    count: i64,
) -> QueryResult<Vec<Conversion>> {
    // `hidden` is 2 for a generated column that is not stored.
    let sql = "SELECT d.name AS \"schema\", x.type AS data_type \
               FROM pragma_database_list AS d, pragma_table_xinfo(?, d.name) AS x \
               WHERE x.hidden <> 2 ORDER BY d.seq, x.cid";
    let columns: Vec<StrictColumn> = diesel::sql_query(sql)
        .bind::<Text, _>(table)
        .load(connection)?;
    let mut combined = vec![None; usize::try_from(count).unwrap_or_default()];
    for schema in columns.chunk_by(|left, right| left.schema == right.schema) {
        if schema.len() == combined.len() {
            for (known, column) in combined.iter_mut().zip(schema) {
                *known = (*known).max(Some(Conversion::of_strict_type(&column.data_type)));
            }
        }
    }
    let known = |column: Option<_>| column.unwrap_or(Conversion::Float);
    Ok(combined.into_iter().map(known).collect())
}

/// A register, by its program and its number.
type Register = (usize, i64);

/// Where records are stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Place {
    /// A table or an index, by its database and its root page.
    Stored(i64, i64),
    /// A temporary table, a sorter or a virtual table, by its program and its cursor.
    Temporary(usize, i64),
    Register(Register),
}

/// The search for everything that a parameter's value can reach. It ignores the order of the instructions, so it finds
/// at least what happens.
struct Trace<'a> {
    conversions: &'a Conversions,
    parameter: i64,
    is_list: bool,
    /// The registers that can contain the value.
    values: BTreeSet<Register>,
    /// The columns of records that can contain the value.
    places: BTreeMap<Place, BTreeSet<i64>>,
    strongest: Conversion,
    has_changed: bool,
}

impl Trace<'_> {
    fn follow(&mut self, it: &Instruction) {
        let (program, p1, p2, p3) = (it.program, it.p1, it.p2, it.p3);
        match it.opcode.as_str() {
            "Variable" if p1 == self.parameter => self.mark(program, p2),
            "Variable" => {}
            "SCopy" | "IntCopy" => self.copy(program, p1, p2),
            "Copy" => (0..=p3).for_each(|offset| self.copy(program, p1 + offset, p2 + offset)),
            "Move" => (0..p3).for_each(|offset| self.copy(program, p1 + offset, p2 + offset)),
            // A trigger reads a register of the program that starts it. The list does not say which program that is.
            "Param" => {
                let all = self.conversions.instructions.iter();
                let mut calls = all.filter(|call| call.opcode == "Program");
                if calls.any(|call| self.is_marked(call.program, call.p1 + p1)) {
                    self.mark(program, p2);
                }
            }
            "Column" | "VColumn" => {
                let mut places = self.places_of(program, p1).into_iter();
                if places.any(|place| self.columns(place).any(|column| column == p2)) {
                    self.mark(program, p3);
                }
            }
            "RowData" | "SorterData" => {
                self.store(
                    &self.places_of(program, p1),
                    &[Place::Register((program, p2))],
                );
            }
            "RowCell" => {
                self.store(&self.places_of(program, p2), &self.places_of(program, p1));
            }
            "Insert" | "IdxInsert" | "SorterInsert" => {
                if it.opcode == "Insert" {
                    self.convert(program, p3, Conversion::Integer);
                }
                self.store(
                    &[Place::Register((program, p2))],
                    &self.places_of(program, p1),
                );
            }
            "MakeRecord" => {
                for offset in 0..p2 {
                    if self.is_marked(program, p1 + offset) {
                        self.strengthen(it.affinity(offset));
                        self.add(Place::Register((program, p3)), offset);
                    }
                }
            }
            "Affinity" => {
                (0..p2).for_each(|offset| self.convert(program, p1 + offset, it.affinity(offset)));
            }
            "TypeCheck" => {
                let columns = &self.conversions.strict[&(it.p4.clone(), p2)];
                for (column, offset) in columns.iter().zip(0..) {
                    self.convert(program, p1 + offset, *column);
                }
            }
            "Cast" => self.convert(program, p1, Conversion::of_affinity(p2 as u8)),
            "Eq" | "Ne" | "Lt" | "Le" | "Gt" | "Ge" => {
                /// The bits of the affinity.
                const AFFINITY: i64 = 0x47;
                let conversion = Conversion::of_affinity((it.p5 & AFFINITY) as u8);
                self.convert(program, p1, conversion);
                self.convert(program, p3, conversion);
            }
            // Without a number of columns, the cursor is on a table, and its keys are integers.
            "SeekGE" | "SeekGT" | "SeekLE" | "SeekLT" => {
                if it.p4.parse().unwrap_or(0) == 0 {
                    self.convert(program, p3, Conversion::Integer);
                }
            }
            "SeekRowid" | "NotExists" => self.convert(program, p3, Conversion::Integer),
            "MustBeInt" => self.convert(program, p1, Conversion::Integer),
            "Concat" => {
                if self.is_marked(program, p1) || self.is_marked(program, p2) {
                    self.mark(program, p3);
                }
            }
            "Function" | "PureFunc" => self.follow_function(it),
            "VFilter" => self.follow_virtual_table(it),
            // The others read registers as numbers, as truth values, or in a way that is not known.
            "Add" | "And" | "BitAnd" | "BitOr" | "Divide" | "MemMax" | "Multiply" | "Or"
            | "Remainder" | "ShiftLeft" | "ShiftRight" | "Subtract" => self.read(program, [p1, p2]),
            "AddImm" | "BitNot" | "DecrJumpZero" | "If" | "IfNot" | "IfNotZero" | "IfPos"
            | "IsTrue" | "Not" => self.read(program, [p1]),
            "OffsetLimit" => self.read(program, [p1, p3]),
            "RowSetAdd" => self.read(program, [p2]),
            "RowSetTest" => self.read(program, [p3]),
            "AggInverse" | "AggStep" | "AggStep1" => self.read(program, p2..p2 + it.p5),
            "VUpdate" => self.read(program, p3..p3 + p2),
            opcode if KEEPS.contains(&opcode) => {}
            _ => self.strengthen(Conversion::Float),
        }
    }

    /// Follows the value through a function. A function of texts returns a text that may contain the value.
    fn follow_function(&mut self, it: &Instruction) {
        let (name, count) = it.p4.split_once('(').unwrap_or((&it.p4, ""));
        let count: i64 = count
            .trim_end_matches(')')
            .parse()
            .unwrap_or(i64::from(i32::MAX));
        let arguments = (it.program, it.p2)..(it.program, it.p2 + count);
        if self.values.range(arguments).next().is_none() {
            return;
        }
        if TEXT_FUNCTIONS.contains(&name) {
            self.mark(it.program, it.p3);
        } else {
            self.strengthen(Conversion::Float);
        }
    }

    /// Follows the elements of a list through `json_each`. What another virtual table does with a value is not known.
    fn follow_virtual_table(&mut self, it: &Instruction) {
        /// The number of columns of `json_each`.
        const COLUMNS: i64 = 10;
        // The arguments begin two registers after P3. Their number is known only when the statement runs.
        let arguments = (it.program, it.p3 + 2)..(it.program + 1, i64::MIN);
        if self.values.range(arguments).next().is_none() {
            return;
        }
        if self.is_list {
            let table = Place::Temporary(it.program, it.p1);
            (0..COLUMNS).for_each(|column| self.add(table, column));
        } else {
            self.strengthen(Conversion::Float);
        }
    }

    fn is_marked(&self, program: usize, register: i64) -> bool {
        self.values.contains(&(program, register))
    }

    fn mark(&mut self, program: usize, register: i64) {
        self.has_changed |= self.values.insert((program, register));
    }

    fn copy(&mut self, program: usize, from: i64, to: i64) {
        if self.is_marked(program, from) {
            self.mark(program, to);
        }
        let register = |number| [Place::Register((program, number))];
        self.store(&register(from), &register(to));
    }

    /// Notes a conversion of a register, if it can contain the value.
    fn convert(&mut self, program: usize, register: i64, conversion: Conversion) {
        if self.is_marked(program, register) {
            self.strengthen(conversion);
        }
    }

    /// Notes that an instruction reads registers as numbers.
    fn read(&mut self, program: usize, registers: impl IntoIterator<Item = i64>) {
        for register in registers {
            self.convert(program, register, Conversion::Float);
        }
    }

    fn strengthen(&mut self, conversion: Conversion) {
        self.strongest = self.strongest.max(conversion);
    }

    /// Returns the columns of a place that can contain the value.
    fn columns(&self, place: Place) -> impl Iterator<Item = i64> + '_ {
        self.places.get(&place).into_iter().flatten().copied()
    }

    fn add(&mut self, place: Place, column: i64) {
        self.has_changed |= self.places.entry(place).or_default().insert(column);
    }

    /// Stores the records of some places in others.
    fn store(&mut self, from: &[Place], to: &[Place]) {
        let columns = from.iter().flat_map(|place| self.columns(*place));
        for column in columns.collect::<Vec<_>>() {
            to.iter().for_each(|place| self.add(*place, column));
        }
    }

    /// Returns the places that a cursor can read and write.
    fn places_of(&self, program: usize, cursor: i64) -> Vec<Place> {
        let all = self.conversions.instructions.iter();
        let of_cursor = all.filter(|it| (it.program, it.p1) == (program, cursor));
        of_cursor.filter_map(Instruction::opened).collect()
    }
}

impl Instruction {
    /// Returns the conversion of a register by the instruction's list of affinities. The list can be shorter.
    fn affinity(&self, offset: i64) -> Conversion {
        let affinity = usize::try_from(offset)
            .ok()
            .and_then(|offset| self.p4.as_bytes().get(offset));
        affinity.map_or(Conversion::None, |affinity| {
            Conversion::of_affinity(*affinity)
        })
    }

    /// Returns the place of the cursor that the instruction opens.
    fn opened(&self) -> Option<Place> {
        /// The flag of an instruction whose root page is in a register.
        const ROOT_IN_REGISTER: i64 = 0x10;
        match self.opcode.as_str() {
            "OpenRead" | "OpenWrite" | "ReopenIdx" if self.p5 & ROOT_IN_REGISTER == 0 => {
                Some(Place::Stored(self.p3, self.p2))
            }
            "OpenDup" => Some(Place::Temporary(self.program, self.p2)),
            "OpenPseudo" => Some(Place::Register((self.program, self.p2))),
            "OpenRead" | "OpenWrite" | "ReopenIdx" | "OpenEphemeral" | "OpenAutoindex"
            | "SorterOpen" | "VOpen" => Some(Place::Temporary(self.program, self.p1)),
            _ => None,
        }
    }
}

/// Instructions that keep each value as it is: they move a cursor, jump, compare without a conversion, return a row, or
/// read no value.
#[rustfmt::skip]
const KEEPS: &[&str] = &[
    "Abortable", "AggFinal", "AggValue", "AutoCommit", "BeginSubrtn", "Blob", "Clear", "Close", "ClrSubtype", "CollSeq",
    "ColumnsUsed", "Compare", "Count", "CreateBtree", "CursorLock", "CursorUnlock", "DeferredSeek", "Delete", "Destroy",
    "DropIndex", "DropTable", "DropTrigger", "ElseEq", "EndCoroutine", "Expire", "Explain", "Filter", "FilterAdd",
    "FinishSeek", "FkCheck", "FkCounter", "FkIfZero", "Found", "GetSubtype", "Gosub", "Goto", "Halt", "HaltIfNull",
    "IdxDelete", "IdxGE", "IdxGT", "IdxLE", "IdxLT", "IdxRowid", "IfEmpty", "IfNoHope", "IfNotOpen", "IfNullRow",
    "IfSizeBetween", "Init", "InitCoroutine", "Int64", "Integer", "IsNull", "IsType", "Jump", "Last", "LoadAnalysis",
    "NewRowid", "Next", "NoConflict", "Noop", "NotFound", "NotNull", "Null", "NullRow", "Offset", "Once",
    "OpenAutoindex", "OpenDup", "OpenEphemeral", "OpenPseudo", "OpenRead", "OpenWrite", "ParseSchema", "Permutation",
    "Prev", "Program", "ReadCookie", "Real", "RealAffinity", "ReleaseReg", "ReopenIdx", "ResetCount", "ResetSorter",
    "ResultRow", "Return", "Rewind", "RowSetRead", "Rowid", "Savepoint", "SeekEnd", "SeekHit", "SeekScan", "Sequence",
    "SequenceTest", "SetCookie", "SetSubtype", "SoftNull", "Sort", "SorterCompare", "SorterNext", "SorterOpen",
    "SorterSort", "String", "String8", "TableLock", "Trace", "Transaction", "VBegin", "VNext", "VOpen", "Yield",
    "ZeroOrNull",
];

/// Functions of SQLite that take a text as it is.
#[rustfmt::skip]
const TEXT_FUNCTIONS: &[&str] = &[
    "concat", "concat_ws", "glob", "hex", "instr", "length", "like", "lower", "ltrim", "max", "min", "nullif", "quote",
    "replace", "rtrim", "substr", "substring", "trim", "typeof", "upper",
];
