//! The object identifiers of PostgreSQL's types, from its `pg_type.dat`, where they never change.

pub(crate) const BOOL: u32 = 16;
pub(crate) const BYTEA: u32 = 17;
pub(crate) const CHAR: u32 = 18;
pub(crate) const NAME: u32 = 19;
pub(crate) const INT8: u32 = 20;
pub(crate) const INT2: u32 = 21;
pub(crate) const INT4: u32 = 23;
pub(crate) const TEXT: u32 = 25;
pub(crate) const OID: u32 = 26;
pub(crate) const JSON: u32 = 114;
pub(crate) const XML: u32 = 142;
pub(crate) const FLOAT4: u32 = 700;
pub(crate) const FLOAT8: u32 = 701;
pub(crate) const UNKNOWN: u32 = 705;
pub(crate) const BPCHAR: u32 = 1042;
pub(crate) const VARCHAR: u32 = 1043;
pub(crate) const DATE: u32 = 1082;
pub(crate) const TIME: u32 = crate::dialect::TIME;
pub(crate) const TIMESTAMP: u32 = 1114;
pub(crate) const TIMESTAMPTZ: u32 = 1184;
pub(crate) const NUMERIC: u32 = 1700;
pub(crate) const VOID: u32 = 2278;
pub(crate) const UUID: u32 = 2950;
pub(crate) const JSONB: u32 = 3802;
/// The first object identifier of types that users or extensions create.
pub(crate) const FIRST_NORMAL: u32 = 16384;

/// The types of arrays, and the types of their elements.
const ARRAYS: [(u32, u32); 41] = [
    (1000, BOOL),
    (1001, BYTEA),
    (1002, CHAR),
    (1003, NAME),
    (1005, INT2),
    (1007, INT4),
    (1009, TEXT),
    (1014, BPCHAR),
    (1015, VARCHAR),
    (1016, INT8),
    (1021, FLOAT4),
    (1022, FLOAT8),
    (1028, OID),
    (143, XML),
    (199, JSON),
    (3807, JSONB),
    (1115, TIMESTAMP),
    (1182, DATE),
    (1183, TIME),
    (1185, TIMESTAMPTZ),
    (1231, NUMERIC),
    (2951, UUID),
    // interval, timetz, bit, varbit
    (1187, 1186),
    (1270, 1266),
    (1561, 1560),
    (1563, 1562),
    // inet, cidr, macaddr, macaddr8
    (1041, 869),
    (651, 650),
    (1040, 829),
    (775, 774),
    // money
    (791, 790),
    // tsvector, tsquery, jsonpath
    (3643, 3614),
    (3645, 3615),
    (4073, 4072),
    // int4range, numrange, tsrange, tstzrange, daterange, int8range
    (3905, 3904),
    (3907, 3906),
    (3909, 3908),
    (3911, 3910),
    (3913, 3912),
    (3927, 3926),
    // point
    (1017, 600),
];

/// Returns the type of an array's elements, if the array is of a known type.
pub(crate) fn element_of(array: u32) -> Option<u32> {
    let mut types = ARRAYS.iter();
    types
        .find(|(known, _)| *known == array)
        .map(|(_, element)| *element)
}

/// Returns the type of the arrays of an element, if it is of a known type.
pub(crate) fn array_of(element: u32) -> Option<u32> {
    let mut types = ARRAYS.iter();
    types
        .find(|(_, known)| *known == element)
        .map(|(array, _)| *array)
}
