//! What a reservation is found by: its tenant, and its id within it. Neither holds control
//! characters, so that no two read the same.

use std::ops::Deref;

use super::short::Short;

/// Bytes of a name that needs no memory of its own: a random id, and a tenant of two dozen
/// letters.
const USUAL_BYTES: usize = 56;

/// The name of a reservation.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Name(Short<USUAL_BYTES>);

impl Name {
    pub(crate) fn of(tenant: &str, id: &str) -> Self {
        Self(Short::of(&[tenant, "\0", id]))
    }

    /// As it is stored.
    pub(crate) fn stored(text: &str) -> Self {
        Self(text.into())
    }

    /// Tenant and id.
    pub(crate) fn parts(&self) -> (&str, &str) {
        self.split_once('\0').unwrap_or((self, ""))
    }
}

impl Deref for Name {
    type Target = str;

    fn deref(&self) -> &str {
        &self.0
    }
}
