//! What gets through, and what does not.
