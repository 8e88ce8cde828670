//! OmniRoute.

fn main() {}
