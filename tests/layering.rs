//! Goal: the architecture stays what it is. Imports between rooms point downward by the table
//! [`rooms::LEVELS`], `unsafe` stays in one file, each package that touches memory or foreign bytes
//! is imported by one file, nothing grows beyond what can be read at a sitting, and the top level
//! of the repository holds what was agreed.
//!
//! Method: a small lexer (`layering/code.rs`) turns every file of `src/` into tokens, without
//! comments and literals, and the rules look at tokens. What is compiled for tests only
//! (`#[cfg(test)]`, files named `tests.rs`) may import upward. Each rule has a test that shows it
//! failing on a bad snippet.
//!
//! Not covered: names that arrive through a glob re-export or a macro of another package.

#[path = "layering/code.rs"]
mod code;
#[path = "layering/packages.rs"]
mod packages;
#[path = "layering/rooms.rs"]
mod rooms;
#[path = "layering/sizes.rs"]
mod sizes;
#[path = "layering/sources.rs"]
mod sources;
