//! The `:authority` of gRPC over a Unix socket: grpc-go sends the socket's path with '%' for its slashes, which is none.
//!
//! HTTP/2 servers refuse such a request, as they should, and kube-apiserver's GRPC mode knows no other way. So '%' becomes '-'
//! there, on its way in. Nobody reads the authority of a Unix socket.

use std::{
    io::{self, IoSlice},
    ops::Range,
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::{Buf, BytesMut};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::hpack::correct_authorities;
use crate::frontend::head::PREFACE;

/// Length of a frame's head (RFC 9113 section 4.1).
const HEAD: usize = 9;

/// Longest fields of one request, in frames, that are corrected: more than the server takes.
const LIMIT: usize = 64 * 1024;

/// What is read at once.
const READ_SIZE: usize = 16 * 1024;

const HEADERS: u8 = 1;
const CONTINUATION: u8 = 9;
const END_HEADERS: u8 = 0x4;
const PADDED: u8 = 0x8;
const PRIORITY: u8 = 0x20;

/// A client's connection whose authorities are corrected as it is read.
#[derive(Debug)]
pub(crate) struct Authorities<C> {
    client: C,
    filter: Filter,
    /// Read and corrected.
    ready: BytesMut,
}

/// What is known of the bytes that pass.
#[derive(Debug)]
pub(super) struct Filter {
    /// So many bytes pass as they are.
    passing: usize,
    /// Frames of one request's fields, as far as they have arrived.
    held: BytesMut,
    /// Where in them the fields are, of frames that are whole.
    parts: Vec<Range<usize>>,
    /// Where the frame begins that is not whole.
    start: usize,
    /// Nothing more is corrected: the server will not go on with this.
    off: bool,
}

impl<C> Authorities<C> {
    pub(crate) fn new(client: C) -> Self {
        Self { client, filter: Filter::new(), ready: BytesMut::new() }
    }
}

impl Filter {
    pub(super) fn new() -> Self {
        Self { passing: PREFACE.len(), held: BytesMut::new(), parts: Vec::new(), start: 0, off: false }
    }

    /// Takes what has arrived, and puts into `ready` what may go on.
    pub(super) fn pass(&mut self, mut arrived: &[u8], ready: &mut BytesMut) {
        while !arrived.is_empty() {
            if self.passing > 0 || self.off {
                let count = if self.off { arrived.len() } else { self.passing.min(arrived.len()) };
                ready.extend_from_slice(&arrived[..count]);
                arrived.advance(count);
                self.passing = self.passing.saturating_sub(count);
                continue;
            }
            let count = (self.known_end() - self.held.len()).min(arrived.len());
            self.held.extend_from_slice(&arrived[..count]);
            arrived.advance(count);
            if self.held.len() == self.start + HEAD {
                self.head_arrived(ready);
            }
            if !self.held.is_empty() && self.held.len() == self.known_end() {
                self.frame_arrived(ready);
            }
        }
    }

    /// Where the frame ends that is not whole; or its head, as long as that is not there.
    fn known_end(&self) -> usize {
        let head = self.held.get(self.start..self.start + HEAD);
        let payload =
            head.map_or(0, |head| usize::from(head[0]) << 16 | usize::from(head[1]) << 8 | usize::from(head[2]));
        self.start + HEAD + payload
    }

    /// Lets the frame go on that has no fields to correct.
    fn head_arrived(&mut self, ready: &mut BytesMut) {
        let fields = matches!(self.held[self.start + 3], HEADERS | CONTINUATION);
        let end = self.known_end();
        if fields && end <= LIMIT {
            return;
        }
        self.off = fields;
        self.passing = end - self.held.len();
        self.release(ready);
    }

    fn frame_arrived(&mut self, ready: &mut BytesMut) {
        let last = self.held[self.start + 4] & END_HEADERS != 0;
        self.parts.push(self.fields());
        self.start = self.held.len();
        if last {
            self.correct();
            self.release(ready);
        }
    }

    /// Where the fields are in the last frame (RFC 9113 sections 6.2 and 6.10).
    fn fields(&self) -> Range<usize> {
        let (kind, flags) = (self.held[self.start + 3], self.held[self.start + 4]);
        let (mut start, mut end) = (self.start + HEAD, self.held.len());
        if kind == HEADERS && flags & PADDED != 0 {
            end = end.saturating_sub(self.held.get(start).copied().map_or(0, usize::from));
            start += 1;
        }
        if kind == HEADERS && flags & PRIORITY != 0 {
            start += 5;
        }
        start..end.max(start)
    }

    fn correct(&mut self) {
        let held = &mut self.held;
        let whole = |part: &Range<usize>| held.get(part.clone()).is_some();
        if !self.parts.iter().all(whole) {
            return;
        }
        let mut block: Vec<u8> = self.parts.iter().flat_map(|part| &held[part.clone()]).copied().collect();
        correct_authorities(&mut block);
        let mut corrected = &block[..];
        for part in self.parts.iter().cloned() {
            let length = part.len();
            held[part].copy_from_slice(&corrected[..length]);
            corrected.advance(length);
        }
    }

    fn release(&mut self, ready: &mut BytesMut) {
        ready.unsplit(self.held.split());
        self.parts.clear();
        self.start = 0;
    }
}

impl<C: AsyncRead + Unpin> AsyncRead for Authorities<C> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let connection = self.get_mut();
        while connection.ready.is_empty() {
            let mut piece = [0; READ_SIZE];
            let mut piece = ReadBuf::new(&mut piece);
            ready!(Pin::new(&mut connection.client).poll_read(cx, &mut piece))?;
            if piece.filled().is_empty() {
                return Poll::Ready(Ok(()));
            }
            connection.filter.pass(piece.filled(), &mut connection.ready);
        }
        let count = connection.ready.len().min(buffer.remaining());
        buffer.put_slice(&connection.ready[..count]);
        connection.ready.advance(count);
        Poll::Ready(Ok(()))
    }
}

impl<C: AsyncWrite + Unpin> AsyncWrite for Authorities<C> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().client).poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().client).poll_write_vectored(cx, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.client.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().client).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().client).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn frame(kind: u8, flags: u8, payload: &[u8]) -> Vec<u8> {
        let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
        [&length[1..], &[kind, flags, 0, 0, 0, 1], payload].concat()
    }

    /// What a client's bytes become that arrive in pieces of `size`.
    fn passed(bytes: &[u8], size: usize) -> Vec<u8> {
        let (mut filter, mut ready) = (Filter::new(), BytesMut::new());
        bytes.chunks(size).for_each(|piece| filter.pass(piece, &mut ready));
        ready.to_vec()
    }

    /// A request whose fields are cut into `cuts` frames, with padding and priority; then another frame.
    fn request(authority: &str, cuts: usize, padding: u8, priority: bool) -> Vec<u8> {
        let length = u8::try_from(authority.len()).unwrap();
        let block = [&[0x83, 0x41, length][..], authority.as_bytes(), &[0x04, 0x02, b'/', b'%']].concat();
        let mut bytes = PREFACE.to_vec();
        let size = block.len().div_ceil(cuts);
        let count = block.chunks(size).count();
        for (index, part) in block.chunks(size).enumerate() {
            let mut flags = if index + 1 == count { END_HEADERS } else { 0 };
            if index > 0 {
                bytes.extend(frame(CONTINUATION, flags, part));
                continue;
            }
            flags |= PADDED | if priority { PRIORITY } else { 0 };
            let pad = vec![b'%'; padding.into()];
            let weight: &[u8] = if priority { b"%%%%%" } else { b"" };
            bytes.extend(frame(HEADERS, flags, &[&[padding], weight, part, &pad].concat()));
        }
        bytes.extend(frame(0, 0, b"\x41\x02%%"));
        bytes
    }

    proptest! {
        #[test]
        fn only_the_authority_is_another_however_it_arrives(
            authority in "[%a-z]{1,60}",
            cuts in 1usize..6,
            padding in 0u8..40,
            priority in any::<bool>(),
            size in 1usize..100,
        ) {
            let bytes = request(&authority, cuts, padding, priority);
            let expected = request(&authority.replace('%', "-"), cuts, padding, priority);
            prop_assert_eq!(passed(&bytes, size), expected);
        }

        #[test]
        fn no_bytes_panic_and_none_are_added(bytes in prop::collection::vec(any::<u8>(), 0..400), size in 1usize..50) {
            let bytes = [&PREFACE[..], &bytes].concat();
            prop_assert!(passed(&bytes, size).len() <= bytes.len());
        }
    }

    #[test]
    fn fields_without_an_end_are_not_held_for_ever() {
        let mut bytes = [&PREFACE[..], &frame(HEADERS, 0, &[0x83])].concat();
        while bytes.len() < 2 * LIMIT {
            bytes.extend(frame(CONTINUATION, 0, &[0x83; 1000]));
        }
        assert!(passed(&bytes, 777) == bytes);
    }
}
