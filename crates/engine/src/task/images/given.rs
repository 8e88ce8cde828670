//! Pictures that are to be changed: from the client's form or document to the form or document that the upstream wants.

use std::sync::Arc;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use bytes::Bytes;
use http::HeaderValue;
use http::header::CONTENT_TYPE;
use omniroute_dialect::DecodeError;
use omniroute_dialect::images::edit::{self, FileName, Reference};
use omniroute_dialect::images::gemini::{self, Inlined};
use omniroute_dialect::images::{Edits, Given, ImageRequest, Quirks};
use omniroute_dialect::ir::{ErrorKind, Loss};
use omniroute_domain::resolve::Target;
use omniroute_provider::media_quirks::image_quirks;
use omniroute_provider::{Capability, Failure, Service, ServiceDialect};
use sha2::{Digest as _, Sha256};

use super::{Call, Fault, Message};
use crate::ctx::RequestCtx;
use crate::error::GatewayError;
use crate::media;
use crate::ports::Attachment;
use crate::spool::Spooled;
use crate::task::{Payload, Upload};

/// Most bytes of files that are put into a JSON document.
const MAX_INLINED: u64 = 20 * 1024 * 1024;
/// Most providers that a message names.
const MAX_NAMED: usize = 8;

/// A form that a client sent.
#[derive(Debug)]
pub struct EditForm {
    /// Everything but the files.
    pub request: ImageRequest,
    /// The pictures.
    pub pictures: Vec<Upload>,
    /// What shows where.
    pub mask: Option<Upload>,
}

/// What a client gave.
pub(super) enum Pictures {
    /// Files.
    Files { pictures: Vec<File>, mask: Option<File> },
    /// Places.
    Named(Given),
}

/// A picture that was uploaded.
pub(super) struct File {
    file: Arc<Spooled>,
    name: String,
    media_type: String,
}

impl EditForm {
    /// What tells one request from another.
    pub(super) fn mark(&self) -> Bytes {
        let mut hash = Sha256::new();
        // With every member in it.
        let all = Quirks { streams: true, ..Quirks::default() };
        if let Ok((body, _)) = self.request.write(&self.request.model, &all) {
            hash.update(&body);
        }
        for upload in &self.pictures {
            hash.update(upload.file.digest());
        }
        if let Some(mask) = &self.mask {
            hash.update(b"mask");
            hash.update(mask.file.digest());
        }
        Bytes::copy_from_slice(&hash.finalize())
    }

    pub(super) fn open(self) -> Result<(ImageRequest, Pictures), DecodeError> {
        let pictures = self.pictures.into_iter().map(|upload| File::of(upload, "image"));
        let pictures = pictures.collect::<Result<_, _>>()?;
        let mask = self.mask.map(|upload| File::of(upload, "mask")).transpose()?;
        Ok((self.request, Pictures::Files { pictures, mask }))
    }
}

impl File {
    fn of(upload: Upload, field: &str) -> Result<Self, DecodeError> {
        let Upload { file, filename, content_type, .. } = upload;
        let media_type = edit::media_type(content_type.as_deref(), file.head());
        let Some(media_type) = media_type.filter(|_| !file.is_empty()) else {
            return Err(DecodeError {
                code: "unsupported_content",
                message: format!("`{field}` is no picture; send png, jpeg or webp"),
                param: Some(field.to_owned()),
            });
        };
        let name = match filename.trim() {
            "" => format!("{field}.{}", media_type.rsplit('/').next().unwrap_or("png")),
            name => name.to_owned(),
        };
        Ok(Self { file, name, media_type })
    }

    fn name(&self) -> FileName<'_> {
        FileName { name: &self.name, media_type: &self.media_type }
    }

    async fn inlined(&self) -> Result<Inlined, Fault> {
        let bytes = self.file.read_all().await.map_err(|error| {
            tracing::warn!(%error, "an uploaded file cannot be read again");
            let message = "the gateway cannot read the uploaded file again; send the request once more";
            GatewayError::new(ErrorKind::Internal, "internal_server_error", message)
        })?;
        Ok(Inlined { media_type: self.media_type.clone(), data: BASE64_STANDARD.encode(&bytes) })
    }
}

impl Pictures {
    /// Those that a document names.
    pub(super) fn named(request: &ImageRequest) -> Result<Self, DecodeError> {
        Given::of(request).map(Self::Named)
    }

    /// How many they are.
    pub(super) fn count(&self) -> usize {
        match self {
            Self::Files { pictures, .. } => pictures.len(),
            Self::Named(given) => given.pictures.len(),
        }
    }

    /// The same with what shows where in them.
    pub(super) fn all(&self) -> usize {
        self.count() + usize::from(self.has_mask())
    }

    fn has_mask(&self) -> bool {
        match self {
            Self::Files { mask, .. } => mask.is_some(),
            Self::Named(given) => given.mask.is_some(),
        }
    }

    /// Whether a target takes them, before anybody is asked.
    pub(super) fn fit(
        &self,
        ctx: &RequestCtx,
        target: &Target,
        service: &Service,
    ) -> Result<(), GatewayError> {
        let edits = edits(target, service);
        if edits == Edits::None && service.dialect != ServiceDialect::Gemini {
            return Err(not_able(ctx, target));
        }
        if edits == Edits::OpenAi {
            return Ok(());
        }
        match self {
            Self::Named(given) => {
                let mut all = given.pictures.iter().chain(&given.mask);
                match all.any(|one| matches!(one, Reference::FileId(_))) {
                    false => Ok(()),
                    true => Err(refused(&format!(
                        "`{}` does not know pictures by `file_id`; send their addresses or themselves",
                        target.full_name()
                    ))),
                }
            }
            Self::Files { pictures, mask } => {
                let bytes: u64 = pictures.iter().chain(mask).map(|picture| picture.file.len()).sum();
                match bytes <= MAX_INLINED {
                    true => Ok(()),
                    false => Err(refused(&format!(
                        "`{}` takes pictures of {} MiB together at most; make them smaller",
                        target.full_name(),
                        MAX_INLINED >> 20
                    ))),
                }
            }
        }
    }

    /// What is sent, and what of the request it does not say.
    pub(super) async fn message(
        &self,
        call: &Call<'_>,
        request: &ImageRequest,
        model: &str,
        quirks: &Quirks,
    ) -> Result<(Message, Vec<Loss>), Fault> {
        let mut headers = call.headers();
        if call.service.dialect == ServiceDialect::Gemini {
            let (body, losses) = gemini::write(request, &self.inlined(call).await?, self.has_mask());
            return Ok((Message { headers, payload: body.into() }, losses));
        }
        let (payload, losses) = match (self, quirks.edits) {
            (Self::Files { pictures, mask }, Edits::OpenAi) => {
                let engine = &call.ctx().engine;
                let boundary = format!("omniroute-{:016x}{:016x}", engine.random(), engine.random());
                let names: Vec<_> = pictures.iter().map(File::name).collect();
                let files = (names.as_slice(), mask.as_ref().map(File::name));
                let (form, losses) =
                    edit::form(request, model, quirks, files, &boundary).map_err(GatewayError::from)?;
                let content_type = HeaderValue::from_str(&form.content_type)
                    .map_err(|_| Failure::protocol("the form's boundary cannot be sent in a header"))?;
                headers.insert(CONTENT_TYPE, content_type);
                let files = pictures.iter().chain(mask).map(|picture| picture.file.clone());
                let attachment = Some(Box::new(Attachment { files: files.zip(form.behind).collect() }));
                (Payload { attachment, ..form.head.into() }, losses)
            }
            (Self::Named(given), Edits::OpenAi) => {
                let (body, losses) =
                    edit::document(request, model, quirks, given).map_err(GatewayError::from)?;
                (body.into(), losses)
            }
            (_, Edits::Json | Edits::None) => {
                let (pictures, mask) = self.addresses().await?;
                let (body, losses) = edit::json(request, model, quirks, &pictures, mask.as_deref())
                    .map_err(GatewayError::from)?;
                (body.into(), losses)
            }
        };
        Ok((Message { headers, payload }, losses))
    }

    /// Where they are: in data URLs, if nowhere else.
    async fn addresses(&self) -> Result<(Vec<String>, Option<String>), Fault> {
        let address = async |picture: &File| {
            let Inlined { media_type, data } = picture.inlined().await?;
            Ok::<_, Fault>(format!("data:{media_type};base64,{data}"))
        };
        match self {
            Self::Named(given) => {
                let url = |one: &Reference| match one {
                    Reference::Url(url) | Reference::FileId(url) => url.clone(),
                };
                Ok((given.pictures.iter().map(url).collect(), given.mask.as_ref().map(url)))
            }
            Self::Files { pictures, mask } => {
                let mut addresses = Vec::with_capacity(pictures.len());
                for picture in pictures {
                    addresses.push(address(picture).await?);
                }
                let mask = match mask {
                    Some(mask) => Some(address(mask).await?),
                    None => None,
                };
                Ok((addresses, mask))
            }
        }
    }

    /// They themselves, but for the mask. What is at an address is fetched.
    async fn inlined(&self, call: &Call<'_>) -> Result<Vec<Inlined>, Fault> {
        let mut inlined = Vec::with_capacity(self.count());
        match self {
            Self::Files { pictures, .. } => {
                for picture in pictures {
                    inlined.push(picture.inlined().await?);
                }
            }
            Self::Named(given) => {
                for (at, picture) in given.pictures.iter().enumerate() {
                    let (Reference::Url(url) | Reference::FileId(url)) = picture;
                    inlined.push(match Inlined::in_url(url) {
                        Some(here) => here,
                        None => {
                            let found = media::picture(&call.ctx().engine, url, None).await;
                            let (media_type, data) = found.map_err(|reason| {
                                let path = format!("images[{at}]");
                                let message = format!("what `{path}` points at cannot be used: {reason}");
                                GatewayError::new(ErrorKind::InvalidRequest, "unsupported_content", message)
                                    .param(path)
                            })?;
                            Inlined { media_type, data }
                        }
                    });
                }
            }
        }
        Ok(inlined)
    }
}

fn edits(target: &Target, service: &Service) -> Edits {
    match service.dialect {
        ServiceDialect::OpenAi => image_quirks(target.provider.provider.spec(), &target.model).edits,
        _ => Edits::None,
    }
}

/// The error for a provider that makes pictures from words alone; names some that change them.
fn not_able(ctx: &RequestCtx, target: &Target) -> GatewayError {
    let changes = |service: &Service, spec| {
        service.dialect == ServiceDialect::Gemini || image_quirks(spec, "").edits != Edits::None
    };
    let others: Vec<String> = ctx
        .snapshot
        .providers()
        .into_iter()
        .filter(|provider| {
            let service =
                provider.connections.iter().find_map(|connection| connection.service(Capability::Images));
            service.is_some_and(|service| changes(service, provider.provider.spec()))
        })
        .map(|provider| format!("`{}`", provider.alias))
        .take(MAX_NAMED)
        .collect();
    let instead = match others.as_slice() {
        [] => "add a connection of a provider that does".to_owned(),
        others => format!("use a model of {}", others.join(", ")),
    };
    let message = format!("provider `{}` has no images/edits; {instead}", target.provider.alias);
    GatewayError::new(ErrorKind::InvalidRequest, "unsupported_operation", message).param("model")
}

fn refused(message: &str) -> GatewayError {
    GatewayError::new(ErrorKind::InvalidRequest, "unsupported_content", message.to_owned()).param("image")
}
