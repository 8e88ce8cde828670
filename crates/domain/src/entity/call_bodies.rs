//! Which requests keep what was said in them.

use serde::{Deserialize, Serialize};

/// Bodies in the request log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct CallBodySettings {
    /// Of which requests.
    pub keep: KeepBodies,
    /// Whether what was sent to the last upstream, and what it answered, is kept beside what the client sent and got.
    pub pipeline: bool,
    /// Most megabytes of them on disk; the oldest go first.
    pub max_disk_mb: u32,
}

impl Default for CallBodySettings {
    fn default() -> Self {
        Self { keep: KeepBodies::Off, pipeline: false, max_disk_mb: 1_024 }
    }
}

impl CallBodySettings {
    /// Most bytes of them on disk.
    pub const fn max_bytes(&self) -> u64 {
        self.max_disk_mb as u64 * 1_024 * 1_024
    }
}

/// Of which requests the bodies are kept.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum KeepBodies {
    /// Of none: what people say does not reach the disk unless somebody wants that.
    #[default]
    Off,
    /// Of those that failed.
    Failures,
    /// Of all.
    All,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_kept_unless_that_is_said() {
        let settings: CallBodySettings = serde_json::from_str("{}").unwrap();
        assert_eq!(settings, CallBodySettings::default());
        assert_eq!((settings.keep, settings.pipeline), (KeepBodies::Off, false));
        assert_eq!(settings.max_bytes(), 1_073_741_824);
    }
}
