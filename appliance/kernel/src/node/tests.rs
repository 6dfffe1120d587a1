//! The loop with NICs in memory.
