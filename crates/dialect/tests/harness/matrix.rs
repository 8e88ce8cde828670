//! Snapshots of every fixture in every dialect.

use omniroute_dialect::{Caps, ir::ErrorKind, ir::PublicError, registry::DIALECTS};

use crate::support::{decode, echo, fixtures, list, pipe, pretty, recorded, run, snapshot};

#[test]
fn requests() {
    for fixture in fixtures("request.json") {
        let body = std::str::from_utf8(&fixture.body).unwrap();
        for target in DIALECTS {
            let mut request =
                decode(fixture.dialect, body).unwrap_or_else(|error| panic!("{}: {error}", fixture.name()));
            request.model = "up".to_owned();
            let text = match target.encode_request(&request, &Caps::permissive()) {
                Ok(encoded) => format!("{}\n\n{}", pretty(&encoded.body), list(&encoded.losses)),
                Err(error) => format!("{error:#?}"),
            };
            snapshot(format!("request_{}_{}_to_{}", fixture.dialect.id(), fixture.case, target.id()), &text);
        }
    }
}

#[test]
fn responses() {
    for fixture in fixtures("response.json") {
        let response = fixture.dialect.decode_response(&fixture.body).unwrap();
        for client in DIALECTS {
            let encoded = client.encode_response(&response, &echo());
            let text = format!("{}\n\n{}", pretty(&encoded.body), list(&encoded.losses));
            snapshot(format!("response_{}_{}_to_{}", fixture.dialect.id(), fixture.case, client.id()), &text);
        }
    }
}

#[test]
fn streams() {
    for fixture in recorded() {
        for client in DIALECTS.iter().copied() {
            let (out, watch) = run(pipe(fixture.dialect, client, echo()), [&fixture.body[..]]);
            assert!(
                watch.complete && watch.meaningful && watch.error.is_none(),
                "{}: {watch:?}",
                fixture.name()
            );
            let text = format!("{out}\n{watch:#?}");
            snapshot(format!("stream_{}_{}_to_{}", fixture.dialect.id(), fixture.case, client.id()), &text);
        }
    }
}

#[test]
fn errors() {
    for fixture in fixtures("error.json") {
        let status = match fixture.case.as_str() {
            "rate_limited" => 429,
            "overloaded" => 529,
            "not_found" => 404,
            _ => 400,
        };
        let error = fixture.dialect.decode_error(http::StatusCode::from_u16(status).unwrap(), &fixture.body);
        let mut text = format!("{error:#?}\n");
        let public = PublicError {
            kind: ErrorKind::from_status(status),
            code: error.code.clone().map(Into::into),
            message: error.message.clone(),
            param: error.param.clone(),
            request_id: "request-1".to_owned(),
            attempts: Vec::new(),
            retry_at: None,
        };
        for client in DIALECTS {
            let (status, body) = client.encode_error(&public);
            let in_stream = client.encode_stream_error(&public, client.framing());
            let in_stream = std::str::from_utf8(&in_stream).unwrap();
            text.push_str(&format!("\n{} {status}\n{}\n{in_stream}", client.id(), pretty(&body)));
        }
        snapshot(format!("error_{}_{}", fixture.dialect.id(), fixture.case), &text);
    }
}
