//! What a device does with the object, if it does not keep it as a file.

use super::block_device::{SimBlock, SimBlockSink};
use super::faults::Faults;
use super::pipe::{SimPipe, SimPipeSink};
use super::scenario::DevicePlan;
use super::tree::{SimTree, Tree};
use crate::storage::Sink;
use std::sync::Arc;

/// An output other than a file, through all runs of its device. Clones are the same one.
#[derive(Clone)]
pub enum Output {
    /// It passes the object on.
    Pipe(SimPipe),
    /// It writes the object to a block device.
    Block(SimBlock),
    /// It receives a tree.
    Tree(SimTree),
}

impl Output {
    /// The output of a device with this plan; `None` for a file.
    #[must_use]
    pub fn of(plan: &DevicePlan, tree: Option<&Tree>, object: &Arc<Vec<u8>>, seed: u64) -> Option<Self> {
        if let Some((plan, tree)) = plan.tree.zip(tree) {
            return Some(Self::Tree(SimTree::new(plan, tree.clone(), Arc::clone(object))));
        }
        let block = || plan.block.map(|block| Self::Block(SimBlock::new(block, Arc::clone(object), seed)));
        plan.pipe.map(|_| Self::Pipe(SimPipe::new(Arc::clone(object)))).or_else(block)
    }
    /// The sink of a device with this plan.
    #[must_use]
    pub fn sink(&self, plan: &DevicePlan) -> Option<Box<dyn Sink>> {
        Some(match self {
            Self::Pipe(pipe) => Box::new(SimPipeSink(pipe.clone(), plan.pipe?)),
            Self::Block(block) => Box::new(SimBlockSink(block.clone())),
            Self::Tree(tree) => tree.sink(),
        })
    }
    /// Whether it has all of the object for good.
    #[must_use]
    pub fn is_whole(&self) -> bool {
        match self {
            Self::Pipe(pipe) => pipe.is_whole(),
            Self::Block(block) => block.is_whole(),
            Self::Tree(tree) => tree.is_whole(),
        }
    }
    /// Counts the changes of what it stores.
    #[must_use]
    pub fn changes(&self) -> u64 {
        match self {
            Self::Pipe(_) => 0,
            Self::Block(block) => block.changes(),
            Self::Tree(tree) => tree.changes(),
        }
    }
    /// The faults that occurred.
    #[must_use]
    pub fn struck(&self) -> Faults {
        match self {
            Self::Pipe(_) => Faults::default(),
            Self::Block(block) => block.struck(),
            Self::Tree(tree) => tree.struck(),
        }
    }
    /// Cuts the power of its device, or kills its program.
    pub fn crash(&self, rng: &mut fastrand::Rng) {
        match self {
            Self::Pipe(_) => {}
            Self::Block(block) => block.crash(rng),
            Self::Tree(tree) => tree.kill(),
        }
    }
    /// Whether that happened at one of its operations since the last call.
    #[must_use]
    pub fn take_power_loss(&self) -> bool {
        match self {
            Self::Pipe(_) => false,
            Self::Block(block) => block.take_power_loss(),
            Self::Tree(tree) => tree.take_death(),
        }
    }
}
