//! Goal: the architecture stays what it is.
//!
//! | rule | file |
//! |---|---|
//! | imports between rooms point downward | `rooms` |
//! | inside a room modules import each other in no circle, and in large rooms from lower floors | `circles`, `floors` |
//! | what a header says must not be known is not imported | `headers` |
//! | a type has few methods and fields, and its inherent impl lies in one file | `types` |
//! | files and functions can be read at a sitting; the top level holds what was agreed | `sizes` |
//! | `unsafe` lies in one folder of small files and names what it relies on | `obligations` |
//! | locks, and packages that touch memory or foreign bytes, lie in one file each; the library has no command line | `packages` |
//! | each atomic says what its ordering is for | `atomics` |
//! | names and prose use standard terms | `words` |
//! | no page names a file that does not exist; the table of rooms is the one that is checked | `documents` |
//!
//! Method: a small lexer (`code`) turns every file of `src/` into tokens, without comments and
//! literals, and the rules look at tokens. What is compiled for tests only (`#[cfg(test)]`, files
//! named `tests.rs`) may import upward. Each rule has a test that shows it failing on a bad
//! snippet. What does not keep to a rule yet stands in a table of exceptions below
//! `layering/tables/`, which only shrinks: `tables` says how.
//!
//! Not covered: names that arrive through a macro of another package; calls of methods, the types
//! of which are not named.

#[path = "layering/atomics.rs"]
mod atomics;
#[path = "layering/circles.rs"]
mod circles;
#[path = "layering/code.rs"]
mod code;
#[path = "layering/documents.rs"]
mod documents;
#[path = "layering/floors.rs"]
mod floors;
#[path = "layering/headers.rs"]
mod headers;
#[path = "layering/items.rs"]
mod items;
#[path = "layering/obligations.rs"]
mod obligations;
#[path = "layering/packages.rs"]
mod packages;
#[path = "layering/rooms.rs"]
mod rooms;
#[path = "layering/sizes.rs"]
mod sizes;
#[path = "layering/sources.rs"]
mod sources;
#[path = "layering/tables.rs"]
mod tables;
#[path = "layering/types.rs"]
mod types;
#[path = "layering/words.rs"]
mod words;
