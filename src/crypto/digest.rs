//! BLAKE3 of the object, from the chaining values of its blocks.
