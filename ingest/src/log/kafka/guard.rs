//! Objects of librdkafka that are given back when they go.
#![expect(unsafe_code, reason = "calls librdkafka's own destructors")]

use std::ptr::NonNull;

/// A pointer and what gives it back.
pub(super) struct Guard<T> {
    pointer: NonNull<T>,
    destroy: unsafe extern "C" fn(*mut T),
}

impl<T> Guard<T> {
    /// Takes a pointer that `destroy` is made for and nobody else gives back; `None`
    /// when it is null.
    pub(super) fn new(pointer: *mut T, destroy: unsafe extern "C" fn(*mut T)) -> Option<Self> {
        Some(Self { pointer: NonNull::new(pointer)?, destroy })
    }

    pub(super) fn as_ptr(&self) -> *mut T {
        self.pointer.as_ptr()
    }
}

impl<T> Drop for Guard<T> {
    fn drop(&mut self) {
        // SAFETY: the pointer came from the matching constructor and is given back once.
        unsafe { (self.destroy)(self.pointer.as_ptr()) }
    }
}
