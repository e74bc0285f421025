//! Asks the processor to fetch a cache line before it is needed.

use std::sync::Arc;

/// What comes from memory at once.
#[cfg(target_arch = "x86_64")]
const LINE_BYTES: usize = 64;

/// Hints that `slice[index]` will be read soon. Out of range is no hint.
#[inline]
#[expect(unsafe_code, reason = "the intrinsic is unsafe; the pointer comes from a live reference")]
pub(crate) fn prefetch<T>(slice: &[T], index: usize) {
    #[cfg(target_arch = "x86_64")]
    if let Some(item) = slice.get(index) {
        // SAFETY: a prefetch reads nothing and faults never; the address is that of
        // a live reference.
        unsafe {
            core::arch::x86_64::_mm_prefetch::<{ core::arch::x86_64::_MM_HINT_T0 }>(std::ptr::from_ref(item).cast());
        }
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = (slice, index);
}

/// Hints that all of what stands at `item` will be read soon. Any pointer will do.
#[inline]
#[expect(unsafe_code, reason = "the intrinsic is unsafe; it reads nothing")]
pub(crate) fn prefetch_whole<T>(item: *const T) {
    #[cfg(target_arch = "x86_64")]
    for offset in (0..size_of::<T>()).step_by(LINE_BYTES) {
        // SAFETY: a prefetch reads nothing and faults never, whatever the address.
        unsafe {
            let line = item.cast::<i8>().wrapping_add(offset);
            core::arch::x86_64::_mm_prefetch::<{ core::arch::x86_64::_MM_HINT_T0 }>(line);
        }
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = item;
}

/// Hints that the owners of what `item` shares will be counted. Where it does not stand
/// before what is shared, the hint is in vain.
#[inline]
pub(crate) fn prefetch_count<T>(item: &Arc<T>) {
    /// Of those who own it, and of those who only know it.
    type Counts = [usize; 2];
    prefetch_whole(Arc::as_ptr(item).cast::<Counts>().wrapping_sub(1));
}
