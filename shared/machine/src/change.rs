//! What an operation changed on a machine.

use crate::{error::Result, operation::ScriptAnswer};

/// Whether an operation had to change the machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MachineChange {
    /// The machine was already as asked for, and nothing on it was written.
    None,
    /// The machine was changed.
    Done,
}

impl MachineChange {
    /// From the fact `changed`.
    pub(crate) fn read(answer: &ScriptAnswer) -> Result<Self> {
        Ok(if answer.yes("changed")? { Self::Done } else { Self::None })
    }
}

/// What became of a package that was to be removed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Removal {
    /// Berth manages no package of that name on the machine.
    None,
    /// It was removed.
    Removed,
    /// It stays installed, and Berth no longer manages it. Holds the human-readable reason.
    Kept(String),
}

impl Removal {
    /// From the facts `removed` and `kept`.
    pub(crate) fn read(answer: &ScriptAnswer) -> Result<Self> {
        let removed = answer.yes("removed")?;
        Ok(match answer.all("kept").next() {
            Some(reason) if !removed => Self::Kept(reason.to_owned()),
            _ if removed => Self::Removed,
            _ => Self::None,
        })
    }
}
