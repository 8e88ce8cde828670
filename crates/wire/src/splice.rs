//! Edits of a JSON body as a chain of slices: the untouched parts are reference counts into the original.

use std::ops::Range;

use bytes::Bytes;
use smallvec::SmallVec;

/// A body with pending edits. `apply` yields the pieces in order; nothing of the original is copied.
#[derive(Debug, Clone)]
pub struct Splice {
    source: Bytes,
    edits: SmallVec<[(Range<usize>, Bytes); 4]>,
}

/// The pieces of an edited body, in order; concatenated they are the body to send.
pub type Pieces = SmallVec<[Bytes; 8]>;

impl Splice {
    /// A body without edits.
    pub fn new(source: Bytes) -> Self {
        Self { source, edits: SmallVec::new() }
    }

    /// Replaces `span` of the source by `with`; an empty span inserts, an empty `with` removes.
    ///
    /// Spans must not overlap; they may be given in any order. Two inserts at one place keep their order.
    pub fn replace(&mut self, span: Range<usize>, with: impl Into<Bytes>) {
        debug_assert!(span.start <= span.end && span.end <= self.source.len());
        let at = self.edits.partition_point(|(other, _)| other.start <= span.start);
        self.edits.insert(at, (span, with.into()));
    }

    /// Whether the body is sent as it came.
    pub fn is_untouched(&self) -> bool {
        self.edits.is_empty()
    }

    /// Length of the edited body in bytes.
    pub fn len(&self) -> usize {
        let removed: usize = self.edits.iter().map(|(span, _)| span.len()).sum();
        let added: usize = self.edits.iter().map(|(_, with)| with.len()).sum();
        self.source.len() - removed + added
    }

    /// Whether the edited body has no bytes.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The pieces of the edited body, none of them empty.
    pub fn into_pieces(self) -> Pieces {
        let mut pieces = Pieces::new();
        let mut position = 0;
        for (span, with) in self.edits {
            if position < span.start {
                pieces.push(self.source.slice(position..span.start));
            }
            if !with.is_empty() {
                pieces.push(with);
            }
            position = span.end;
        }
        if position == 0 && !self.source.is_empty() {
            pieces.push(self.source);
        } else if position < self.source.len() {
            pieces.push(self.source.slice(position..));
        }
        pieces
    }

    /// The edited body as one buffer; copies unless nothing was edited.
    pub fn to_bytes(&self) -> Bytes {
        if self.is_untouched() {
            return self.source.clone();
        }
        let mut whole = Vec::with_capacity(self.len());
        let mut position = 0;
        for (span, with) in &self.edits {
            whole.extend_from_slice(&self.source[position..span.start]);
            whole.extend_from_slice(with);
            position = span.end;
        }
        whole.extend_from_slice(&self.source[position..]);
        whole.into()
    }
}

impl From<Bytes> for Splice {
    fn from(source: Bytes) -> Self {
        Self::new(source)
    }
}

/// Checks edits against the same edits of a list of bytes. The first line says where they are: three bytes for each, what
/// is skipped, what is replaced, and by how much.
#[doc(hidden)]
pub fn fuzz_splice(data: &[u8]) {
    let end = memchr::memchr(b'\n', data).unwrap_or(0);
    let (places, source) = data.split_at(end);
    let mut splice = Splice::new(Bytes::copy_from_slice(source));
    let (mut expected, mut position) = (Vec::new(), 0);
    let mut edits = Vec::new();
    for place in places.chunks_exact(3) {
        let start = (position + usize::from(place[0])).min(source.len());
        let end = (start + usize::from(place[1] % 16)).min(source.len());
        let with = vec![b'x'; usize::from(place[2] % 4)];
        expected.extend_from_slice(&source[position..start]);
        expected.extend_from_slice(&with);
        position = end;
        edits.push((start..end, with));
    }
    expected.extend_from_slice(&source[position..]);
    // Inserts at one place keep their order; all others may come in any.
    let ordered = edits.windows(2).any(|pair| pair[0].0.start == pair[1].0.start);
    if !ordered {
        edits.reverse();
    }
    for (span, with) in edits {
        splice.replace(span, with);
    }
    assert_eq!(splice.len(), expected.len());
    assert_eq!(splice.is_empty(), expected.is_empty());
    assert_eq!(splice.to_bytes(), expected);
    let pieces = splice.into_pieces();
    assert!(pieces.iter().all(|piece| !piece.is_empty()));
    assert_eq!(pieces.concat(), expected);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn edits_apply_in_the_order_of_their_places() {
        let mut splice = Splice::new(Bytes::from_static(b"{\"a\":1,\"b\":2}"));
        splice.replace(11..12, "3");
        splice.replace(5..6, "10");
        splice.replace(12..12, ",\"c\":4");
        assert_eq!(splice.to_bytes(), "{\"a\":10,\"b\":3,\"c\":4}");
        assert_eq!(splice.len(), splice.to_bytes().len());
    }

    #[test]
    fn an_untouched_body_is_the_same_buffer() {
        let source = Bytes::from_static(b"{}");
        let splice = Splice::new(source.clone());
        assert_eq!(splice.to_bytes().as_ptr(), source.as_ptr());
        assert_eq!(splice.into_pieces().len(), 1);
    }
}
