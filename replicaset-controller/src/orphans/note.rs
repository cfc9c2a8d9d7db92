//! What an Event says about orphans that are only reported. Pure.

use super::find::{HoldReason, Orphan};

/// Most machines that one Event names: its note has room for 1,024 bytes.
const MOST_NAMED: usize = 8;

/// The note about these orphans of one class. It names all of them, because an Event with the same reason replaces the one before.
pub(super) fn note(orphans: &[&Orphan], held: HoldReason) -> String {
    if let [orphan] = orphans {
        return format!("there is the {}: {held}", describe(orphan));
    }
    let named: Vec<String> = orphans.iter().take(MOST_NAMED).map(|orphan| short(orphan)).collect();
    let more = match orphans.len() - named.len() {
        0 => String::new(),
        more => format!(", and {more} more"),
    };
    let (count, named) = (orphans.len(), named.join(", "));
    format!("there are {count} machines of Servers that do not exist: {named}{more}. Of each: {held}")
}

/// The machine and its Server, in words.
pub(super) fn describe(orphan: &Orphan) -> String {
    let (id, owner) = (&orphan.machine.id, &orphan.machine.owner);
    let (namespace, name, uid) = (&owner.namespace, &owner.name, &owner.uid);
    format!("machine {id} of the Server {namespace}/{name} (UID {uid}), which does not exist")
}

fn short(orphan: &Orphan) -> String {
    let (id, owner) = (&orphan.machine.id, &orphan.machine.owner);
    format!("{id} of {}/{}", owner.namespace, owner.name)
}

#[cfg(test)]
mod tests {
    use berth_iaas::{MachineOwner, ProviderMachine, ProviderMachinePhase};
    use k8s_openapi::jiff::Timestamp;

    use super::*;

    fn orphan(n: usize) -> Orphan {
        let owner = MachineOwner {
            cluster: "here".into(),
            namespace: "default".into(),
            name: format!("web-{n}"),
            uid: format!("00000000-0000-4000-8000-{n:012}"),
        };
        let machine = ProviderMachine {
            id: owner.uid.clone(),
            owner,
            phase: ProviderMachinePhase::Running,
            address: None,
            ssh_port: 22,
            host_key: None,
            boot_id: None,
            created_at: Timestamp::UNIX_EPOCH,
        };
        Orphan { class: "small".into(), machine, held: Some(HoldReason::Policy) }
    }

    #[test]
    fn every_orphan_is_named() {
        let orphans: Vec<Orphan> = (0..8).map(orphan).collect();
        let all: Vec<&Orphan> = orphans.iter().collect();
        let note = note(&all, HoldReason::TooMany { found: 8, limit: 5 });
        for orphan in &orphans {
            assert!(note.contains(&orphan.machine.id), "{note}");
        }
        assert!(note.len() <= 1_024, "{} bytes: {note}", note.len());
    }

    #[test]
    fn of_more_orphans_than_there_is_room_for_the_number_is_said() {
        let orphans: Vec<Orphan> = (0..20).map(orphan).collect();
        let all: Vec<&Orphan> = orphans.iter().collect();
        let note = note(&all, HoldReason::Policy);
        assert!(note.starts_with("there are 20 machines of Servers that do not exist: "), "{note}");
        assert!(note.contains(", and 12 more. Of each: destroy it by hand"), "{note}");
    }
}
