//! The directory tree of the disks that are not real: in memory and simulated.
//!
//! Owns which path is a directory and which is a file of type `T`; returns the errors of a real
//! file system. Must not know what a file is. The disks call it under their own lock.

use std::collections::BTreeMap;
use std::io::{self, ErrorKind};
use std::ops::Bound;
use std::path::{Path, PathBuf};

use super::{Entry, EntryKind};

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Node<T> {
    Directory,
    File(T),
}

/// Paths are kept as they were given; the empty path and a path without a parent are directories
/// that always exist.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Names<T> {
    nodes: BTreeMap<PathBuf, Node<T>>,
}

impl<T> Default for Names<T> {
    fn default() -> Self {
        Self { nodes: BTreeMap::new() }
    }
}

impl<T: Clone> Names<T> {
    pub(super) fn kind(&self, path: &Path) -> Option<EntryKind> {
        match self.nodes.get(path) {
            Some(Node::Directory) => Some(EntryKind::Directory),
            Some(Node::File(_)) => Some(EntryKind::File),
            None if path.parent().is_none() || path.as_os_str().is_empty() => {
                Some(EntryKind::Directory)
            }
            None => None,
        }
    }

    pub(super) fn file(&self, path: &Path) -> io::Result<&T> {
        match self.nodes.get(path) {
            Some(Node::File(file)) => Ok(file),
            Some(Node::Directory) => Err(ErrorKind::IsADirectory.into()),
            None => Err(ErrorKind::NotFound.into()),
        }
    }

    #[cfg(any(test, feature = "testing"))]
    pub(super) fn files(&self) -> impl Iterator<Item = (&PathBuf, &T)> {
        self.nodes.iter().filter_map(|(path, node)| match node {
            Node::File(file) => Some((path, file)),
            Node::Directory => None,
        })
    }

    pub(super) fn directory(&self, path: &Path) -> io::Result<()> {
        match self.kind(path) {
            Some(EntryKind::Directory) => Ok(()),
            Some(_) => Err(ErrorKind::NotADirectory.into()),
            None => Err(ErrorKind::NotFound.into()),
        }
    }

    pub(super) fn list(&self, dir: &Path) -> io::Result<Vec<Entry>> {
        self.directory(dir)?;
        let entries = self.below(dir).filter(|path| path.parent() == Some(dir));
        let mut entries: Vec<Entry> = entries
            .filter_map(|path| {
                let name = path.file_name()?.to_str()?.to_owned();
                Some(Entry { name, kind: self.kind(path)? })
            })
            .collect();
        entries.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(entries)
    }

    /// All paths below a directory; they follow it in the order of the map.
    fn below<'a>(&'a self, dir: &'a Path) -> impl Iterator<Item = &'a PathBuf> {
        let after = self.nodes.range::<Path, _>((Bound::Excluded(dir), Bound::Unbounded));
        after.map(|(path, _)| path).take_while(move |path| path.starts_with(dir))
    }

    pub(super) fn insert(&mut self, path: &Path, node: Node<T>) -> io::Result<()> {
        if self.kind(path).is_some() {
            return Err(ErrorKind::AlreadyExists.into());
        }
        self.directory(path.parent().unwrap_or(Path::new("")))?;
        self.nodes.insert(path.to_path_buf(), node);
        Ok(())
    }

    /// Renames a file; nothing is replaced.
    pub(super) fn rename(&mut self, from: &Path, to: &Path) -> io::Result<()> {
        let node = Node::File(self.file(from)?.clone());
        self.insert(to, node)?;
        self.nodes.remove(from);
        Ok(())
    }

    pub(super) fn remove_file(&mut self, path: &Path) -> io::Result<T> {
        let file = self.file(path)?.clone();
        self.nodes.remove(path);
        Ok(file)
    }

    pub(super) fn remove_dir(&mut self, path: &Path) -> io::Result<()> {
        self.directory(path)?;
        if self.below(path).next().is_some() {
            return Err(ErrorKind::DirectoryNotEmpty.into());
        }
        self.nodes.remove(path).map(|_| ()).ok_or_else(|| ErrorKind::ResourceBusy.into())
    }
}
