//! Who may call what.
//!
//! - [`access`]: the access values handlers take, and how a request earns one.
//! - [`session`]: the signed cookie. [`password`]: checking and storing the password. [`lockout`]: guessing stops.
//! - [`origin`]: requests that a browser sends on behalf of another site. [`client`]: who is at the other end.

mod access;
mod client;
mod lockout;
mod origin;
mod password;
mod session;

pub(crate) use access::{Actor, Caller, Management, MetricsReader, Public};
pub use client::Client;
pub(crate) use lockout::Lockouts;
pub(crate) use password::{
    HasPassword, change_password, check_password, has_password, is_same, judge_password, set_password,
};
pub(crate) use session::{COOKIE, cleared_cookie, new_session, revoke};
