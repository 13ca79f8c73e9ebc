//! What Curfew notices and a person should look at: the values of `curfew_alarms_total{alarm}`.

/// One kind of it. The log says of what.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Alarm {
    /// What an issuer holds is seen in part only: bindings may be missing.
    BindingBlind,
    /// The target took none of the candidates; what was made of them is undone.
    CandidateRejected,
    /// Dead, and not removed: it owns objects.
    CleanupPending,
    /// The wall clock cannot be trusted: no deadline is noticed.
    Clock,
    /// Another place where consumers read does not have the new value.
    CopyNotUpdated,
    /// Our own access is denied: the system is blocked.
    Denied,
    /// A reduction took more, or less, than it was to: what was taken was given back.
    Differs,
    /// A partition cannot go on without an operator.
    HaltedPartition,
    /// Another cluster of Kubernetes answers than the one that is configured.
    KubernetesOtherCluster,
    /// A cluster refuses what Curfew asks of it.
    KubernetesRefused,
    /// Too many tasks of a source fell silent at once: they are held.
    MassSilence,
    /// Not all consumers took the new value in time.
    NotAdopted,
    /// Who was to be called about a new value was not reached.
    NotNotified,
    /// A provider says it never will.
    Refused,
    /// What was called dead or inactive lets somebody in.
    StillAlive,
    /// Registered, but its issuer never knew it.
    Typo,
    /// A consumer cannot work with the new value: the old one was given back.
    Unhealthy,
}

impl Alarm {
    /// All of them.
    pub const ALL: [Self; 17] = [
        Self::BindingBlind,
        Self::CandidateRejected,
        Self::CleanupPending,
        Self::Clock,
        Self::CopyNotUpdated,
        Self::Denied,
        Self::Differs,
        Self::HaltedPartition,
        Self::KubernetesOtherCluster,
        Self::KubernetesRefused,
        Self::MassSilence,
        Self::NotAdopted,
        Self::NotNotified,
        Self::Refused,
        Self::StillAlive,
        Self::Typo,
        Self::Unhealthy,
    ];

    /// The label's value.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::BindingBlind => "binding_blind",
            Self::CandidateRejected => "candidate_rejected",
            Self::CleanupPending => "cleanup_pending",
            Self::Clock => "clock",
            Self::CopyNotUpdated => "copy_not_updated",
            Self::Denied => "denied",
            Self::Differs => "differs",
            Self::HaltedPartition => "halted_partition",
            Self::KubernetesOtherCluster => "kubernetes_other_cluster",
            Self::KubernetesRefused => "kubernetes_refused",
            Self::MassSilence => "mass_silence",
            Self::NotAdopted => "not_adopted",
            Self::NotNotified => "not_notified",
            Self::Refused => "refused",
            Self::StillAlive => "still_alive",
            Self::Typo => "typo",
            Self::Unhealthy => "unhealthy",
        }
    }
}
