//! A directory as a text file: segments are mostly zeros, and what changed can be compared.
//!
//! ```text
//! dir orders/0
//! file orders/0/00000000000000000000.log 16384
//! 0 894c504f4e440d0a...
//! ```
//!
//! A line of data is a position in the file and the bytes there. All other bytes of a file, up to
//! its length, are zero.

use std::fmt::Write as _;
use std::fs;
use std::io::{Seek, SeekFrom, Write as _};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// How many bytes a line holds at most, and how many zeros end one.
const LINE: usize = 44;
const ZEROS: usize = 8;

fn name(path: &Path, root: &Path) -> String {
    path.strip_prefix(root).unwrap().to_str().expect("a path in UTF-8").to_owned()
}

fn entries(dir: &Path, found: &mut Vec<PathBuf>) {
    let mut here: Vec<_> = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path()).collect();
    here.sort();
    for path in here {
        found.push(path.clone());
        if path.is_dir() {
            entries(&path, found);
        }
    }
}

/// The directory as text.
pub(crate) fn pack(root: &Path) -> String {
    let mut text = String::new();
    let mut found = Vec::new();
    entries(root, &mut found);
    for path in found {
        let name = name(&path, root);
        if path.is_dir() {
            writeln!(text, "dir {name}").unwrap();
            continue;
        }
        let bytes = fs::read(&path).unwrap();
        writeln!(text, "file {name} {}", bytes.len()).unwrap();
        let mut at = 0;
        while let Some(zeros) = bytes[at..].iter().position(|byte| *byte != 0) {
            let start = at + zeros;
            at = end_of_run(&bytes, start);
            write!(text, "{start} ").unwrap();
            bytes[start..at].iter().for_each(|byte| write!(text, "{byte:02x}").unwrap());
            text.push('\n');
        }
    }
    text
}

/// Where the line ends that begins at `start`: at its length, or before a few zeros.
fn end_of_run(bytes: &[u8], start: usize) -> usize {
    let most = bytes.len().min(start + LINE);
    let is_blank = |at: &usize| bytes[*at..].iter().take(ZEROS).all(|byte| *byte == 0);
    (start..most).find(is_blank).unwrap_or(most)
}

/// The directory that [`pack`] made a text of, with the permissions that logpond gives.
pub(crate) fn unpack(text: &str, root: &Path) {
    let make_dir = |path: &Path| fs::DirBuilder::new().mode(0o700).create(path).unwrap();
    make_dir(root);
    let mut file: Option<fs::File> = None;
    for line in text.lines().filter(|line| !line.starts_with('#')) {
        let mut words = line.split(' ');
        match (words.next().unwrap(), words.next().expect("two words")) {
            ("dir", name) => make_dir(&root.join(name)),
            ("file", name) => {
                let mut options = fs::OpenOptions::new();
                options.write(true).create_new(true).mode(0o600);
                let new = options.open(root.join(name)).unwrap();
                new.set_len(words.next().unwrap().parse().unwrap()).unwrap();
                file = Some(new);
            }
            (position, hex) => {
                let file = file.as_mut().expect("a file before its data");
                file.seek(SeekFrom::Start(position.parse().unwrap())).unwrap();
                file.write_all(&bytes_of(hex)).unwrap();
            }
        }
    }
}

fn bytes_of(hex: &str) -> Vec<u8> {
    let pair = |at| u8::from_str_radix(&hex[at..at + 2], 16).expect("hexadecimal digits");
    (0..hex.len()).step_by(2).map(pair).collect()
}

#[test]
fn a_directory_is_the_same_after_it_was_a_text() {
    let dir = tempfile::tempdir().unwrap();
    let (before, after) = (dir.path().join("before"), dir.path().join("after"));
    fs::create_dir_all(before.join("a/empty")).unwrap();
    let mut long = vec![0; 10_000];
    long[1] = 1;
    long[5000..5100].fill(7);
    long[5050..5054].fill(0);
    fs::write(before.join("a/long"), &long).unwrap();
    fs::write(before.join("none"), []).unwrap();
    fs::write(before.join("zeros"), [0; 77]).unwrap();
    let text = pack(&before);
    unpack(&text, &after);
    assert_eq!(pack(&after), text);
    assert_eq!(fs::read(after.join("a/long")).unwrap(), long);
    assert_eq!(fs::read(after.join("zeros")).unwrap(), [0; 77]);
}
