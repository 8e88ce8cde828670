//! A file of a form.

use std::sync::Arc;

use crate::spool::Spooled;

/// A file of a form.
#[derive(Debug)]
pub struct Upload {
    /// The file.
    pub file: Arc<Spooled>,
    /// Its name, as the client gave it.
    pub filename: String,
    /// Its type, as the client gave it.
    pub content_type: Option<String>,
    /// How long it plays, of a file that is only spoken of; others tell it themselves.
    pub seconds: Option<f64>,
}
