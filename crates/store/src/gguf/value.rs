use super::GgufError;
use super::cursor::Cursor;

/// Deeper arrays have no use, and would let a small file exhaust the stack.
const MAX_DEPTH: usize = 4;

/// A value of the key-value part.
#[derive(Debug, Clone, PartialEq)]
pub enum Value {
    /// Unsigned, 8 bits.
    U8(u8),
    /// Signed, 8 bits.
    I8(i8),
    /// Unsigned, 16 bits.
    U16(u16),
    /// Signed, 16 bits.
    I16(i16),
    /// Unsigned, 32 bits.
    U32(u32),
    /// Signed, 32 bits.
    I32(i32),
    /// Single precision.
    F32(f32),
    /// Truth value.
    Bool(bool),
    /// UTF-8 text.
    String(String),
    /// Many values of one type.
    Array(Array),
    /// Unsigned, 64 bits.
    U64(u64),
    /// Signed, 64 bits.
    I64(i64),
    /// Double precision.
    F64(f64),
}

/// Many values of one type.
#[derive(Debug, Clone, PartialEq)]
pub enum Array {
    /// Unsigned, 8 bits.
    U8(Vec<u8>),
    /// Signed, 8 bits.
    I8(Vec<i8>),
    /// Unsigned, 16 bits.
    U16(Vec<u16>),
    /// Signed, 16 bits.
    I16(Vec<i16>),
    /// Unsigned, 32 bits.
    U32(Vec<u32>),
    /// Signed, 32 bits.
    I32(Vec<i32>),
    /// Single precision.
    F32(Vec<f32>),
    /// Truth values.
    Bool(Vec<bool>),
    /// UTF-8 texts.
    String(Vec<String>),
    /// Arrays.
    Array(Vec<Array>),
    /// Unsigned, 64 bits.
    U64(Vec<u64>),
    /// Signed, 64 bits.
    I64(Vec<i64>),
    /// Double precision.
    F64(Vec<f64>),
}

/// The fixed-size types: number in the file, variant, Rust type.
macro_rules! numbers {
    ($do:ident) => {
        $do! {
            (0, U8, u8), (1, I8, i8), (2, U16, u16), (3, I16, i16), (4, U32, u32), (5, I32, i32), (6, F32, f32),
            (10, U64, u64), (11, I64, i64), (12, F64, f64)
        }
    };
}

const BOOL: u32 = 7;
const STRING: u32 = 8;
const ARRAY: u32 = 9;

fn truth(byte: u8, key: &str) -> Result<bool, GgufError> {
    match byte {
        0 => Ok(false),
        1 => Ok(true),
        found => Err(GgufError::BadBool { key: key.to_owned(), found }),
    }
}

macro_rules! implement {
    ($(($id:literal, $variant:ident, $type:ty)),*) => {
        impl Value {
            pub(super) fn read(from: &mut Cursor<'_>, key: &str) -> Result<Value, GgufError> {
                Ok(match from.u32(key)? {
                    $($id => Value::$variant(<$type>::from_le_bytes(from.array(key)?)),)*
                    BOOL => Value::Bool(truth(from.array::<1>(key)?[0], key)?),
                    STRING => Value::String(from.string(key)?),
                    ARRAY => Value::Array(Array::read(from, key, 1)?),
                    id => return Err(GgufError::UnknownValueType { key: key.to_owned(), id }),
                })
            }

            pub(super) fn write(&self, out: &mut Vec<u8>) {
                match self {
                    $(Value::$variant(value) => {
                        out.extend(u32::to_le_bytes($id));
                        out.extend(value.to_le_bytes());
                    })*
                    Value::Bool(value) => {
                        out.extend(BOOL.to_le_bytes());
                        out.push(u8::from(*value));
                    }
                    Value::String(text) => {
                        out.extend(STRING.to_le_bytes());
                        write_string(text, out);
                    }
                    Value::Array(items) => {
                        out.extend(ARRAY.to_le_bytes());
                        items.write(out);
                    }
                }
            }

            /// The type's name, for messages.
            #[must_use]
            pub fn kind(&self) -> &'static str {
                match self {
                    $(Value::$variant(_) => stringify!($type),)*
                    Value::Bool(_) => "a truth value",
                    Value::String(_) => "text",
                    Value::Array(_) => "an array",
                }
            }
        }

        impl Array {
            fn read(from: &mut Cursor<'_>, key: &str, depth: usize) -> Result<Array, GgufError> {
                if depth > MAX_DEPTH {
                    return Err(GgufError::NestedTooDeep { key: key.to_owned(), limit: MAX_DEPTH });
                }
                Ok(match from.u32(key)? {
                    $($id => {
                        const SIZE: usize = size_of::<$type>();
                        let count = from.count(SIZE, key)?;
                        let chunks = from.take(count * SIZE, key)?.as_chunks::<SIZE>().0;
                        Array::$variant(chunks.iter().map(|bytes| <$type>::from_le_bytes(*bytes)).collect())
                    })*
                    BOOL => {
                        let count = from.count(1, key)?;
                        let bytes = from.take(count, key)?;
                        Array::Bool(bytes.iter().map(|&byte| truth(byte, key)).collect::<Result<_, _>>()?)
                    }
                    STRING => {
                        // A text has a length of 8 bytes at least.
                        let count = from.count(8, key)?;
                        Array::String((0..count).map(|_| from.string(key)).collect::<Result<_, _>>()?)
                    }
                    ARRAY => {
                        // An array has a type and a length: 12 bytes at least.
                        let count = from.count(12, key)?;
                        Array::Array((0..count).map(|_| Array::read(from, key, depth + 1)).collect::<Result<_, _>>()?)
                    }
                    id => return Err(GgufError::UnknownValueType { key: key.to_owned(), id }),
                })
            }

            fn write(&self, out: &mut Vec<u8>) {
                let mut head = |id: u32, count: usize| {
                    out.extend(id.to_le_bytes());
                    out.extend((count as u64).to_le_bytes());
                };
                match self {
                    $(Array::$variant(items) => {
                        head($id, items.len());
                        out.extend(items.iter().flat_map(|item| item.to_le_bytes()));
                    })*
                    Array::Bool(items) => {
                        head(BOOL, items.len());
                        out.extend(items.iter().map(|&item| u8::from(item)));
                    }
                    Array::String(items) => {
                        head(STRING, items.len());
                        items.iter().for_each(|text| write_string(text, out));
                    }
                    Array::Array(items) => {
                        head(ARRAY, items.len());
                        items.iter().for_each(|item| item.write(out));
                    }
                }
            }

            /// Items in the array.
            #[must_use]
            pub fn len(&self) -> usize {
                match self {
                    $(Array::$variant(items) => items.len(),)*
                    Array::Bool(items) => items.len(),
                    Array::String(items) => items.len(),
                    Array::Array(items) => items.len(),
                }
            }

            /// Whether the array has no item.
            #[must_use]
            pub fn is_empty(&self) -> bool {
                self.len() == 0
            }
        }
    };
}

numbers!(implement);

pub(super) fn write_string(text: &str, out: &mut Vec<u8>) {
    out.extend((text.len() as u64).to_le_bytes());
    out.extend(text.as_bytes());
}
