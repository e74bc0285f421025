//! Life.

