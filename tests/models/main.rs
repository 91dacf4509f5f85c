//! Goal: random programs over the public interface agree with models that are simple enough to be
//! right.
//!
//! Method: a file for each model, in one program, because each program links the whole crate. What
//! each of them tries, and how to run it as a campaign, stands in its file.

#[path = "../common/mod.rs"]
mod common;

mod group_model;
mod life_model;
mod model;

/// Says where a walk failed, if it did.
fn show_last_steps(steps: &[impl std::fmt::Debug]) {
    if std::thread::panicking() {
        let last: Vec<_> = steps.iter().skip(steps.len().saturating_sub(12)).collect();
        eprintln!("failed at step {}, the last ones: {last:#?}", steps.len());
    }
}
