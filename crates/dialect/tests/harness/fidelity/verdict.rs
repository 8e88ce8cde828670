//! What became of a feature, and how it is judged.

use omniroute_dialect::ir::{Loss, LossAction};

/// What became of a feature.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    /// The dialect that should say it has no word for it.
    Unsaid,
    /// Read back, it is the same, and nothing was recorded.
    Kept,
    /// Something was recorded, or it is said in other words.
    Changed {
        action: LossAction,
        /// Named to the client, and a reason for a refusal in strict mode.
        told: bool,
        /// Whether some of it is still there.
        in_part: bool,
    },
    /// Not there, and the client's dialect has no member for it; answers only.
    NoPlace,
    Refused,
}

/// What was seen of an experiment.
pub(super) struct Seen<'a> {
    /// The losses that are not there without the feature.
    pub(super) losses: &'a [&'a Loss],
    /// Whether it is read back as it was given.
    pub(super) same: bool,
    /// Whether the bytes have it, in the dialect's own word or in others.
    pub(super) proven: bool,
    /// Whether nothing of it is left.
    pub(super) gone: bool,
}

impl Seen<'_> {
    /// The verdict, or what is wrong.
    pub(super) fn judge(&self) -> Result<Verdict, &'static str> {
        let worst = [LossAction::Dropped, LossAction::Clamped, LossAction::Invented, LossAction::Mapped]
            .into_iter()
            .find(|action| self.losses.iter().any(|loss| loss.action == *action));
        let told = self.losses.iter().any(|loss| !loss.silent);
        let changed = |action, in_part| Ok(Verdict::Changed { action, told, in_part });
        let here = self.same || self.proven;
        match worst {
            None if self.same => Ok(Verdict::Kept),
            None if self.proven => changed(LossAction::Mapped, false),
            None => Err("lost in silence"),
            Some(action @ (LossAction::Mapped | LossAction::Invented)) if here => changed(action, false),
            Some(LossAction::Mapped | LossAction::Invented) => Err("said to be there and not found"),
            Some(LossAction::Clamped) if self.same => Err("said to be clamped and is not"),
            Some(LossAction::Clamped) if self.gone => Err("said to be clamped and is dropped"),
            Some(LossAction::Clamped) => changed(LossAction::Clamped, false),
            Some(LossAction::Dropped) if self.same => Err("said to be dropped and is there"),
            Some(LossAction::Dropped) => changed(LossAction::Dropped, !self.gone),
        }
    }
}

impl Verdict {
    /// The word for it; what is told to the client is strong.
    pub(super) fn sign(self) -> String {
        match self {
            Self::Unsaid => "–".to_owned(),
            Self::Kept => "kept".to_owned(),
            Self::Refused => "**refused**".to_owned(),
            Self::NoPlace => "no place".to_owned(),
            Self::Changed { action, told, in_part } => {
                let word = action.as_str();
                let strong = if told { "**" } else { "" };
                format!("{strong}{word}{strong}{}", if in_part { " in part" } else { "" })
            }
        }
    }
}

#[test]
fn a_loss_has_to_be_told_and_what_is_told_has_to_be_true() {
    let loss = |action| Loss { path: "a".into(), action, silent: true };
    let (dropped, mapped) = (loss(LossAction::Dropped), loss(LossAction::Mapped));
    let judge = |losses: &[&Loss], same, proven, gone| Seen { losses, same, proven, gone }.judge();
    assert_eq!(judge(&[], true, false, false), Ok(Verdict::Kept));
    assert!(judge(&[], false, false, true).is_err(), "nothing is told");
    assert!(judge(&[&dropped], true, true, false).is_err(), "it is there");
    assert!(judge(&[&mapped], false, false, true).is_err(), "it is not there");
    let part = Verdict::Changed { action: LossAction::Dropped, told: false, in_part: true };
    assert_eq!(judge(&[&mapped, &dropped], false, false, false), Ok(part));
    assert_eq!(part.sign(), "dropped in part");
}
