//! What the codecs make of bytes that somebody else has sent.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

#[cfg(feature = "json")]
use crate::codec::Json;
use crate::codec::{Bincode, Codec};

/// Every kind of value that serde knows, and as deep as the bytes want it.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
enum Tree {
    Nothing,
    Number(i128),
    Letter(char),
    Text(String),
    Bytes(Box<[u8]>),
    Maybe(Option<Box<Tree>>),
    Many(Vec<Tree>),
    Named { branches: BTreeMap<String, Tree>, flag: bool, small: u16 },
    Pair(Box<Tree>, Box<Tree>),
}

/// A value. With an even first byte it is taken for bincode, otherwise for JSON.
///
/// # Panics
///
/// When a value that is accepted is not written as it was read.
pub fn codec(data: &[u8]) {
    let (mode, bytes) = super::mode(data);
    if mode & 1 == 0 {
        reads_back(&Bincode, bytes);
        // Elements without any bytes: only a count says how many.
        let _: Result<Vec<()>, _> = Bincode.decode(bytes);
        let _: Result<BTreeMap<(), Option<Vec<()>>>, _> = Bincode.decode(bytes);
    } else {
        #[cfg(feature = "json")]
        reads_back(&Json, bytes);
    }
}

fn reads_back(codec: &impl Codec<Tree>, bytes: &[u8]) {
    let Ok(tree) = codec.decode(bytes) else { return };
    let mut written = Vec::new();
    let encoded = codec.encode(&tree, &mut written);
    assert!(encoded.is_ok(), "{tree:?}: {encoded:?}");
    let again = codec.decode(&written);
    assert!(again.as_ref().is_ok_and(|again| *again == tree), "{tree:?}: {again:?}");
}
