//! What the dialects' entries for searches of the web have in common.

use omniroute_wire::json_out::Object;

use crate::{
    DecodeError,
    ir::{Loss, Place},
    json_in::{Fields, str_of, wrong_type},
};

/// Members that say roughly where the user is.
const PLACE: &[&str] = &["type", "city", "country", "region", "timezone"];

/// Reads the member that says roughly where the user is.
pub(crate) fn place(
    fields: &Fields<'_>,
    name: &str,
    losses: &mut Vec<Loss>,
) -> Result<Option<Place>, DecodeError> {
    let Some(fields) = fields.object_of(name, PLACE, losses)? else { return Ok(None) };
    Ok(Some(Place {
        city: fields.str("city")?.map(Into::into),
        country: fields.str("country")?.map(Into::into),
        region: fields.str("region")?.map(Into::into),
        timezone: fields.str("timezone")?.map(Into::into),
    }))
}

/// Writes them.
pub(crate) fn write_place(object: &mut Object<'_>, place: &Place) {
    for (name, value) in [
        ("city", &place.city),
        ("country", &place.country),
        ("region", &place.region),
        ("timezone", &place.timezone),
    ] {
        object.opt_str(name, value.as_deref());
    }
}

/// Reads a list of domains.
pub(crate) fn domains(fields: &Fields<'_>, name: &str) -> Result<Vec<String>, DecodeError> {
    let list = fields.list(name)?.unwrap_or_default();
    let texts = list.into_iter().map(|raw| {
        str_of(raw).map(Into::into).ok_or_else(|| wrong_type(fields.path_of(name), "a list of strings"))
    });
    texts.collect()
}
