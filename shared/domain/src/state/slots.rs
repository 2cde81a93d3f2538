//! What occupies an agent's slots.

use std::collections::BTreeMap;
use std::collections::btree_map::{IntoIter, Iter, Values};

use conductor_protocol::TaskId;
use conductor_protocol::ids::Position;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// What occupies slots of an agent, by the position of the assignment; how many they are in
/// all is kept, because it is asked for at every assignment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Slots {
    uses: BTreeMap<Position, SlotUse>,
    used: u64,
}

/// What occupies slots of an agent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SlotUse {
    /// The task.
    pub task: TaskId,
    /// Which try.
    pub attempt: u32,
    /// How many slots.
    pub cost: u32,
    /// Whether the lease is current, over, or over and the agent told.
    pub lease: LeaseState,
}

/// How a lease stands, seen from the agent that was given it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LeaseState {
    /// The task's current lease.
    Current,
    /// Over; the agent is to be told.
    Over,
    /// Over, and the agent was told.
    Told,
}

impl Slots {
    /// How many are in use.
    pub fn used(&self) -> u32 {
        u32::try_from(self.used).unwrap_or(u32::MAX)
    }

    /// Whether none is in use.
    pub fn is_empty(&self) -> bool {
        self.uses.is_empty()
    }

    /// What the assignment there occupies.
    pub fn get(&self, at: &Position) -> Option<&SlotUse> {
        self.uses.get(at)
    }

    /// How the lease assigned there stands, to be changed.
    pub fn lease_mut(&mut self, at: &Position) -> Option<&mut LeaseState> {
        self.uses.get_mut(at).map(|used| &mut used.lease)
    }

    /// Takes slots.
    pub fn insert(&mut self, at: Position, used: SlotUse) {
        self.used += u64::from(used.cost);
        if let Some(before) = self.uses.insert(at, used) {
            self.used -= u64::from(before.cost);
        }
    }

    /// Gives slots back.
    pub fn remove(&mut self, at: &Position) {
        if let Some(used) = self.uses.remove(at) {
            self.used -= u64::from(used.cost);
        }
    }

    /// All of them with their positions, in the order of these.
    pub fn iter(&self) -> Iter<'_, Position, SlotUse> {
        self.uses.iter()
    }

    /// All of them, in the order of the assignments.
    pub fn values(&self) -> Values<'_, Position, SlotUse> {
        self.uses.values()
    }
}

impl<'s> IntoIterator for &'s Slots {
    type Item = (&'s Position, &'s SlotUse);
    type IntoIter = Iter<'s, Position, SlotUse>;
    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

impl IntoIterator for Slots {
    type Item = (Position, SlotUse);
    type IntoIter = IntoIter<Position, SlotUse>;
    fn into_iter(self) -> Self::IntoIter {
        self.uses.into_iter()
    }
}

impl Serialize for Slots {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        self.uses.serialize(s)
    }
}

impl<'de> Deserialize<'de> for Slots {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        let uses = BTreeMap::<Position, SlotUse>::deserialize(d)?;
        Ok(Self {
            used: uses.values().map(|u| u64::from(u.cost)).sum(),
            uses,
        })
    }
}
