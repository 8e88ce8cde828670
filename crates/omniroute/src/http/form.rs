//! What forms come to: a recording, or pictures that are to be changed. The same for forms that clients send and for those that
//! are only asked about.

use omniroute_dialect::DecodeError;
use omniroute_dialect::audio::Fields;
use omniroute_dialect::images::EditFields;
use omniroute_dialect::images::edit::MAX_GIVEN;
use omniroute_dialect::ir::ErrorKind;
use omniroute_engine::GatewayError;
use omniroute_engine::task::{EditForm, Recording, Upload};

/// Most bytes of a form.
pub(super) const MAX_BYTES: u64 = 512 * 1024 * 1024;
/// Longest name of a file.
const MAX_NAME: usize = 255;

/// A form whose fields come one after the other.
pub(super) trait Form {
    /// What the whole form is.
    type Whole;
    /// What it should have, for people.
    const WANTS: &str;
    /// How its files are to be sent, for people.
    const FILES: &str;

    /// Whether the field of this name is a file. An error is for one too many.
    fn is_file(&self, name: &str) -> Result<bool, GatewayError>;
    /// How many bytes of text the next field may have.
    fn room(&self) -> usize;
    /// Takes a text.
    fn text(&mut self, name: &str, value: &str) -> Result<(), DecodeError>;
    /// Takes a file.
    fn file(&mut self, name: &str, upload: Upload);
    /// Bytes of the files that came.
    fn taken(&self) -> u64;
    /// The request, after its last field.
    fn finish(self) -> Result<Self::Whole, GatewayError>;
}

/// A recording, to be written down.
#[derive(Debug, Default)]
pub(super) struct RecordingForm {
    fields: Fields,
    file: Option<Upload>,
    translates: bool,
}

impl RecordingForm {
    /// `translates` says what it is for.
    pub(super) fn new(translates: bool) -> Self {
        Self { translates, ..Self::default() }
    }
}

impl Form for RecordingForm {
    type Whole = Recording;
    const WANTS: &str = "the recording its field `file`";
    const FILES: &str = "send the recording as `file`";

    fn is_file(&self, name: &str) -> Result<bool, GatewayError> {
        match name == "file" && self.file.is_some() {
            true => Err(wrong("`file` is given more than once")),
            false => Ok(name == "file"),
        }
    }

    fn room(&self) -> usize {
        self.fields.room()
    }

    fn text(&mut self, name: &str, value: &str) -> Result<(), DecodeError> {
        self.fields.add(name, value)
    }

    fn file(&mut self, _: &str, upload: Upload) {
        self.file = Some(upload);
    }

    fn taken(&self) -> u64 {
        self.file.as_ref().map_or(0, |upload| upload.file.len())
    }

    fn finish(self) -> Result<Recording, GatewayError> {
        let mut request = self.fields.finish(self.file.is_some())?;
        request.translates = self.translates;
        let Some(upload) = self.file else { return Err(wrong("`file` is required")) };
        Ok(Recording { request, upload })
    }
}

/// Pictures that are to be changed.
#[derive(Debug, Default)]
pub(super) struct PicturesForm {
    fields: EditFields,
    pictures: Vec<Upload>,
    mask: Option<Upload>,
    taken: u64,
}

impl Form for PicturesForm {
    type Whole = EditForm;
    const WANTS: &str = "the picture its field `image`";
    const FILES: &str = "send pictures as `image` or `image[]`, and a mask as `mask`";

    fn is_file(&self, name: &str) -> Result<bool, GatewayError> {
        match name {
            "image" | "image[]" if self.pictures.len() == MAX_GIVEN => {
                Err(wrong(&format!("a form has at most {MAX_GIVEN} pictures")))
            }
            "mask" if self.mask.is_some() => Err(wrong("`mask` is given more than once")),
            name => Ok(matches!(name, "image" | "image[]" | "mask")),
        }
    }

    fn room(&self) -> usize {
        self.fields.room()
    }

    fn text(&mut self, name: &str, value: &str) -> Result<(), DecodeError> {
        self.fields.add(name, value)
    }

    fn file(&mut self, name: &str, upload: Upload) {
        self.taken = self.taken.saturating_add(upload.file.len());
        match name {
            "mask" => self.mask = Some(upload),
            _ => self.pictures.push(upload),
        }
    }

    fn taken(&self) -> u64 {
        self.taken
    }

    fn finish(self) -> Result<EditForm, GatewayError> {
        let Self { fields, pictures, mask, .. } = self;
        let request = fields.finish()?;
        if pictures.is_empty() {
            let message = "`image` is required: a file, or several as `image[]`".to_owned();
            let error = GatewayError::new(ErrorKind::InvalidRequest, "missing_required_parameter", message);
            return Err(error.param("image"));
        }
        Ok(EditForm { request, pictures, mask })
    }
}

/// The error for a file where a text belongs.
pub(super) fn misplaced<F: Form>(name: &str) -> GatewayError {
    wrong(&format!("the field `{}` is a file; {}", shown(name), F::FILES))
}

/// The error for a text without room.
pub(super) fn too_long(name: &str) -> GatewayError {
    wrong(&format!("the field `{}` is too long", shown(name)))
}

pub(super) fn wrong(message: &str) -> GatewayError {
    GatewayError::new(ErrorKind::InvalidRequest, "invalid_multipart", message.to_owned())
}

pub(super) fn too_large() -> GatewayError {
    let message = format!("the form is larger than {} MiB", MAX_BYTES >> 20);
    GatewayError::new(ErrorKind::TooLarge, "request_too_large", message)
}

/// A name in a message: no longer than names are.
pub(super) fn shown(name: &str) -> String {
    name.chars().filter(|c| !c.is_control()).take(64).collect()
}

/// A file's name as it is kept.
pub(super) fn file_name(told: &str) -> String {
    told.chars().filter(|c| !c.is_control()).take(MAX_NAME).collect()
}
