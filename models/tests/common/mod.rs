//! Runs the models of one tree on its sound copy and on its faulty ones.

use std::panic::{AssertUnwindSafe, catch_unwind};

use odometer_models::FAULTY;
use odometer_models::faults::{FAULTS, Tree};

/// Whether a model fails, and what it says.
fn failure(run: impl Fn()) -> Option<String> {
    let payload = catch_unwind(AssertUnwindSafe(run)).err()?;
    let text = payload.downcast_ref::<String>().cloned();
    Some(text.or_else(|| payload.downcast_ref::<&str>().map(|&text| text.to_owned())).unwrap_or_default())
}

/// Every fault planted in `tree` is found by its model when `check` runs that.
pub(crate) fn finds_every_fault(tree: Tree, check: impl Fn(fn())) {
    let planted: Vec<_> = FAULTS.iter().filter(|fault| fault.tree == tree).collect();
    assert!(!planted.is_empty());
    for fault in planted {
        let models = FAULTY.iter().find(|(name, _)| *name == fault.name).unwrap().1;
        let model = models.iter().find(|(name, _)| *name == fault.found_by).unwrap().1;
        let said = failure(|| check(model)).unwrap_or_else(|| panic!("{} is not found", fault.name));
        // A checker that gave up has found nothing.
        assert!(!said.contains("exceeded"), "{}: {said}", fault.name);
        println!("{} is found by {}: {}", fault.name, fault.found_by, said.lines().next().unwrap_or_default());
    }
}
