//! The test-bed: a seeded world on one thread. Its clock, network and disks are virtual. The machines,
//! the engine loop and the job code are the real ones, driven through the same ports. The same seed and
//! the same commit replay the same run, byte for byte. Only tests and `examples/simulate.rs` use it.
//!
//! ```text
//!   scenario, disk_faults, hostile  (seed -> sizes, links, faults, enemies)   runner (ranges of seeds)
//!       |                                              |
//!   transfer  starts, crashes and restarts senders and devices (actors)
//!       |                     \
//!     world  event queue       checks  invariants at every step and at the end
//!       |        \
//!     node      network  loss, bursts, delay, reordering, duplication, corruption; line: rates, queues, meters
//!       |
//!   engine::Engine (the real one) on SimNet, SimJobs and a SimDisk
//! ```

pub mod actors;
pub mod block_device;
pub mod checks;
pub mod disk;
pub mod disk_faults;
pub mod fakes;
pub mod faults;
pub mod hostile;
pub mod likely;
pub mod line;
pub mod link;
pub mod network;
pub mod node;
pub mod one_way;
pub mod output;
pub mod pages;
pub mod pipe;
pub mod planned;
pub mod runner;
pub mod scenario;
pub mod sham;
pub mod shape;
pub mod source;
pub mod store;
pub mod surface;
pub mod totals;
pub mod transfer;
pub mod tree;
pub mod world;

#[cfg(test)]
mod hook;
#[cfg(test)]
mod liars;
#[cfg(test)]
mod poison;
#[cfg(test)]
mod rates;
#[cfg(test)]
mod recordings;
#[cfg(test)]
mod resume;
#[cfg(test)]
mod tests;
#[cfg(test)]
mod windows;
