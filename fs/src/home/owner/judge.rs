//! What can be said of an owner without watching its heartbeat: pure.

use super::identity::{NodeIdentity, ProcessState};

/// Whether an owner is dead for certain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// It is this very process.
    Myself,
    /// It was a process of this machine that is gone.
    Gone,
    /// Only its heartbeat can tell.
    Watch,
}

/// Judges `owner` from the place of `me`; `probe` looks at a process of this machine.
pub(super) fn judge(
    me: &NodeIdentity,
    owner: &NodeIdentity,
    probe: impl FnOnce(u32, u64) -> ProcessState,
) -> Verdict {
    if owner.incarnation == me.incarnation {
        return Verdict::Myself;
    }
    // Two machines may be called alike, so a reboot also takes the same machine id.
    let same_machine =
        !me.machine.is_empty() && owner.machine == me.machine && owner.node == me.node;
    let boots_known = !me.boot_id.is_empty() && !owner.boot_id.is_empty();
    if boots_known && owner.boot_id == me.boot_id {
        let visible = owner.pid_namespace == me.pid_namespace;
        if visible && probe(owner.pid, owner.process_start) == ProcessState::Gone {
            return Verdict::Gone;
        }
    } else if boots_known && same_machine {
        return Verdict::Gone;
    }
    Verdict::Watch
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::home::owner::tests::identity;

    #[test]
    fn an_owner_is_judged_by_what_is_certain() {
        use ProcessState::{Gone, Runs, Unknown};
        type Change = fn(&mut NodeIdentity);
        let other_life: Change = |owner| owner.pid = 77;
        let other_boot: Change = |owner| owner.boot_id = "b2".into();
        let other_node: Change = |owner| owner.node = "n2".into();
        let other_machine: Change = |owner| owner.machine = "m2".into();
        let no_machine: Change = |owner| owner.machine = String::new();
        let no_boot: Change = |owner| owner.boot_id = String::new();
        let other_namespace: Change = |owner| owner.pid_namespace = 2;
        let table: [(&str, &[Change], ProcessState, Verdict); 10] = [
            ("a process here that runs", &[other_life], Runs, Verdict::Watch),
            ("a process here that is gone", &[other_life], Gone, Verdict::Gone),
            ("a process here that is hidden", &[other_life], Unknown, Verdict::Watch),
            ("this node, rebooted", &[other_boot], Runs, Verdict::Gone),
            ("this node under another name", &[other_node], Gone, Verdict::Gone),
            ("another node", &[other_node, other_machine, other_boot], Gone, Verdict::Watch),
            ("another node of this name", &[other_machine, other_boot], Gone, Verdict::Watch),
            ("a node without a machine id", &[no_machine, other_boot], Gone, Verdict::Watch),
            ("an unknown boot", &[no_boot], Gone, Verdict::Watch),
            ("a container of this machine", &[other_namespace], Gone, Verdict::Watch),
        ];
        let me = identity("n1", 1);
        for (what, changes, state, verdict) in table {
            let mut owner = identity("n1", 2);
            changes.iter().for_each(|change| change(&mut owner));
            assert_eq!(judge(&me, &owner, |_, _| state), verdict, "{what}");
        }
        assert_eq!(judge(&me, &me.clone(), |_, _| Gone), Verdict::Myself);
    }
}
