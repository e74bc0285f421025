//! What the routes answer, asked of a whole node in a temporary directory.
