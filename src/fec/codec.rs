//! Encoder, decoder and the bounded cache of encoding plans.

/// Encoding plans by K, shared by the worker threads and bounded.
#[derive(Debug, Default)]
pub struct PlanCache {}

/// Makes repair symbols of one block.
pub struct Encoder {}

impl Encoder {
    /// An encoder over `block` (1 byte to K symbols; the last symbol is padded with zeros).
    #[must_use]
    pub fn new(block: &[u8], symbol_size: u16, plans: &PlanCache) -> Self {
        todo!("{} {symbol_size} {plans:?}", block.len())
    }
    /// Repair symbols with the encoding symbol ids `first..first + count`, one after the other;
    /// `first` is at least K.
    #[must_use]
    pub fn repair(&self, first: u32, count: u32) -> Vec<u8> {
        todo!("{first} {count}")
    }
}
