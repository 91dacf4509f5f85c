//! The locks and atomics of the crate, in one module so that a model checker can replace them.
//!
//! Under `--cfg loom` the same protocol code (publication, waiting readers, group commit) runs on
//! loom's primitives, which explore every interleaving: the code that ships is the code that is
//! checked. Nothing outside this module names `parking_lot` or `std::sync::atomic`.
//!
//! Every lock is made with its level in the lock order, [`LockLevel`], which is the one list of all
//! locks: a thread that holds one waits only for locks further down. Debug builds check it. No code
//! of the application is called under a lock, but for a `Clock`.

pub(crate) use self::order::LockLevel;
#[cfg(all(debug_assertions, not(loom)))]
pub(crate) use self::order::is_out_of_order;

mod order;

#[cfg(not(loom))]
pub(crate) use self::native::*;

#[cfg(loom)]
pub(crate) use self::modelled::*;

#[cfg(not(loom))]
mod native {
    use std::fmt;
    use std::ops::{Deref, DerefMut};
    use std::time::Instant;

    pub(crate) use std::sync::OnceLock;
    pub(crate) use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize, Ordering};

    use super::order::{Held, Level, LockLevel};

    pub(crate) struct Mutex<T> {
        level: Level,
        lock: parking_lot::Mutex<T>,
    }

    impl<T> Mutex<T> {
        pub(crate) fn at_level(level: LockLevel, value: T) -> Self {
            Self { level: Level::of(level), lock: parking_lot::Mutex::new(value) }
        }

        /// A lock that only a test has: it may be taken anywhere.
        #[cfg(any(test, fuzzing, feature = "testing"))]
        pub(crate) fn new(value: T) -> Self {
            Self { level: Level::none(), lock: parking_lot::Mutex::new(value) }
        }

        #[inline]
        pub(crate) fn lock(&self) -> MutexGuard<'_, T> {
            let held = self.level.take();
            MutexGuard { guard: self.lock.lock(), held }
        }

        /// Never waits, and so may be called in any order.
        #[inline]
        pub(crate) fn try_lock(&self) -> Option<MutexGuard<'_, T>> {
            let guard = self.lock.try_lock()?;
            Some(MutexGuard { guard, held: self.level.take_unordered() })
        }
    }

    #[cfg(any(test, fuzzing, feature = "testing"))]
    impl<T: Default> Default for Mutex<T> {
        fn default() -> Self {
            Self::new(T::default())
        }
    }

    impl<T: fmt::Debug> fmt::Debug for Mutex<T> {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            self.lock.fmt(f)
        }
    }

    /// Fields are dropped in their order: the lock is released first.
    pub(crate) struct MutexGuard<'a, T> {
        guard: parking_lot::MutexGuard<'a, T>,
        held: Held,
    }

    impl<T> Deref for MutexGuard<'_, T> {
        type Target = T;

        #[inline]
        fn deref(&self) -> &T {
            &self.guard
        }
    }

    impl<T> DerefMut for MutexGuard<'_, T> {
        #[inline]
        fn deref_mut(&mut self) -> &mut T {
            &mut self.guard
        }
    }

    impl<T: fmt::Debug> fmt::Debug for MutexGuard<'_, T> {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            self.guard.fmt(f)
        }
    }

    pub(crate) struct RwLock<T> {
        level: Level,
        lock: parking_lot::RwLock<T>,
    }

    impl<T> RwLock<T> {
        pub(crate) fn at_level(level: LockLevel, value: T) -> Self {
            Self { level: Level::of(level), lock: parking_lot::RwLock::new(value) }
        }

        #[inline]
        pub(crate) fn read(&self) -> ReadGuard<'_, T> {
            let held = self.level.take();
            ReadGuard { guard: self.lock.read(), _held: held }
        }

        #[inline]
        pub(crate) fn write(&self) -> WriteGuard<'_, T> {
            let held = self.level.take();
            WriteGuard { guard: self.lock.write(), _held: held }
        }
    }

    impl<T: fmt::Debug> fmt::Debug for RwLock<T> {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            self.lock.fmt(f)
        }
    }

    pub(crate) struct ReadGuard<'a, T> {
        guard: parking_lot::RwLockReadGuard<'a, T>,
        _held: Held,
    }

    impl<T> Deref for ReadGuard<'_, T> {
        type Target = T;

        #[inline]
        fn deref(&self) -> &T {
            &self.guard
        }
    }

    pub(crate) struct WriteGuard<'a, T> {
        guard: parking_lot::RwLockWriteGuard<'a, T>,
        _held: Held,
    }

    impl<T> Deref for WriteGuard<'_, T> {
        type Target = T;

        #[inline]
        fn deref(&self) -> &T {
            &self.guard
        }
    }

    impl<T> DerefMut for WriteGuard<'_, T> {
        #[inline]
        fn deref_mut(&mut self) -> &mut T {
            &mut self.guard
        }
    }

    /// A condition variable whose waits take and return the guard, which both `parking_lot` and
    /// loom support. A wait releases the lock, and takes it again in the lock order.
    #[derive(Debug, Default)]
    pub(crate) struct Condvar(parking_lot::Condvar);

    impl Condvar {
        pub(crate) fn new() -> Self {
            Self::default()
        }

        pub(crate) fn notify_all(&self) {
            self.0.notify_all();
        }

        pub(crate) fn wait<'a, T>(&self, guard: MutexGuard<'a, T>) -> MutexGuard<'a, T> {
            let MutexGuard { mut guard, held } = guard;
            let level = held.release();
            self.0.wait(&mut guard);
            MutexGuard { guard, held: level.take() }
        }

        /// Waits until notified or until `deadline`; the flag says that the deadline passed.
        pub(crate) fn wait_until<'a, T>(
            &self,
            guard: MutexGuard<'a, T>,
            deadline: Instant,
        ) -> (MutexGuard<'a, T>, bool) {
            let MutexGuard { mut guard, held } = guard;
            let level = held.release();
            let timed_out = self.0.wait_until(&mut guard, deadline).timed_out();
            (MutexGuard { guard, held: level.take() }, timed_out)
        }
    }
}

#[cfg(loom)]
mod modelled {
    //! `parking_lot`'s shapes over loom's types. A poisoned lock cannot occur in a model, since a
    //! panic there ends the model; there is no time in a model, so a deadline never passes.
    use std::time::Instant;

    use super::order::LockLevel;

    pub(crate) use loom::sync::MutexGuard;
    pub(crate) use loom::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize, Ordering};

    #[derive(Debug)]
    pub(crate) struct Mutex<T>(loom::sync::Mutex<T>);

    impl<T> Mutex<T> {
        pub(crate) fn at_level(_level: LockLevel, value: T) -> Self {
            Self(loom::sync::Mutex::new(value))
        }

        pub(crate) fn new(value: T) -> Self {
            Self(loom::sync::Mutex::new(value))
        }

        #[expect(clippy::unwrap_used, reason = "a panic ends the model, so no lock is poisoned")]
        pub(crate) fn lock(&self) -> MutexGuard<'_, T> {
            self.0.lock().unwrap()
        }

        pub(crate) fn try_lock(&self) -> Option<MutexGuard<'_, T>> {
            self.0.try_lock().ok()
        }
    }

    impl<T: Default> Default for Mutex<T> {
        fn default() -> Self {
            Self::new(T::default())
        }
    }

    #[derive(Debug)]
    pub(crate) struct RwLock<T>(loom::sync::RwLock<T>);

    impl<T> RwLock<T> {
        pub(crate) fn at_level(_level: LockLevel, value: T) -> Self {
            Self(loom::sync::RwLock::new(value))
        }

        #[expect(clippy::unwrap_used, reason = "a panic ends the model, so no lock is poisoned")]
        pub(crate) fn read(&self) -> loom::sync::RwLockReadGuard<'_, T> {
            self.0.read().unwrap()
        }

        #[expect(clippy::unwrap_used, reason = "a panic ends the model, so no lock is poisoned")]
        pub(crate) fn write(&self) -> loom::sync::RwLockWriteGuard<'_, T> {
            self.0.write().unwrap()
        }
    }

    /// A value that is set once. loom has none, and would not try the orders of an access that it
    /// does not see.
    #[derive(Debug)]
    pub(crate) struct OnceLock<T> {
        is_set: AtomicBool,
        value: std::sync::OnceLock<T>,
    }

    impl<T> OnceLock<T> {
        pub(crate) fn new() -> Self {
            Self { is_set: AtomicBool::new(false), value: std::sync::OnceLock::new() }
        }

        pub(crate) fn get(&self) -> Option<&T> {
            if self.is_set.load(Ordering::Acquire) { self.value.get() } else { None }
        }

        pub(crate) fn set(&self, value: T) -> Result<(), T> {
            self.value.set(value)?;
            self.is_set.store(true, Ordering::Release);
            Ok(())
        }
    }

    impl<T> From<T> for OnceLock<T> {
        fn from(value: T) -> Self {
            Self { is_set: AtomicBool::new(true), value: std::sync::OnceLock::from(value) }
        }
    }

    #[derive(Debug)]
    pub(crate) struct Condvar(loom::sync::Condvar);

    impl Condvar {
        pub(crate) fn new() -> Self {
            Self(loom::sync::Condvar::new())
        }

        pub(crate) fn notify_all(&self) {
            self.0.notify_all();
        }

        #[expect(clippy::unwrap_used, reason = "a panic ends the model, so no lock is poisoned")]
        pub(crate) fn wait<'a, T>(&self, guard: MutexGuard<'a, T>) -> MutexGuard<'a, T> {
            self.0.wait(guard).unwrap()
        }

        pub(crate) fn wait_until<'a, T>(
            &self,
            guard: MutexGuard<'a, T>,
            _deadline: Instant,
        ) -> (MutexGuard<'a, T>, bool) {
            (self.wait(guard), false)
        }
    }
}
