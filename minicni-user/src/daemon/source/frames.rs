//! Where one event of a watch ends and the next begins. Pure.

use prost::bytes::{Buf as _, Bytes, BytesMut};

use super::decode::{DecodeError, Encoding};

/// The longest event that is taken, in bytes: ten times what etcd stores of an object, and what client-go takes.
pub(super) const LONGEST: usize = 16 << 20;

/// The events of a watch, as they come: JSON on one line each; protobuf behind its length, 4 bytes in big-endian order.
#[derive(Debug)]
pub(super) struct Frames {
    encoding: Encoding,
    buffer: BytesMut,
    /// How much of the buffer is known to have no end of a line.
    searched: usize,
}

impl Frames {
    /// Nothing came yet.
    pub(super) fn new(encoding: Encoding) -> Self {
        Self { encoding, buffer: BytesMut::new(), searched: 0 }
    }

    /// Takes what came.
    pub(super) fn push(&mut self, bytes: &[u8]) {
        self.buffer.extend_from_slice(bytes);
    }

    /// The next event, if all of it came. After an error the stream is of no use any more.
    pub(super) fn next(&mut self) -> Result<Option<Bytes>, DecodeError> {
        match self.encoding {
            Encoding::Json => self.line(),
            Encoding::Protobuf => self.counted(),
        }
    }

    /// What the end of the stream means.
    pub(super) fn finish(&self) -> Result<(), DecodeError> {
        if self.buffer.is_empty() { Ok(()) } else { Err(DecodeError::Truncated(self.buffer.len())) }
    }

    fn line(&mut self) -> Result<Option<Bytes>, DecodeError> {
        let end = self.buffer[self.searched..].iter().position(|byte| *byte == b'\n');
        let Some(end) = end.map(|end| self.searched + end) else {
            self.searched = self.buffer.len();
            return if self.searched > LONGEST { Err(DecodeError::TooLong(self.searched)) } else { Ok(None) };
        };
        self.searched = 0;
        let line = self.buffer.split_to(end);
        self.buffer.advance(1);
        Ok(Some(line.freeze()))
    }

    fn counted(&mut self) -> Result<Option<Bytes>, DecodeError> {
        let Some(length) = self.buffer.first_chunk().map(|length| u32::from_be_bytes(*length) as usize) else {
            return Ok(None);
        };
        if length > LONGEST {
            return Err(DecodeError::TooLong(length));
        }
        if self.buffer.len() < 4 + length {
            return Ok(None);
        }
        self.buffer.advance(4);
        Ok(Some(self.buffer.split_to(length).freeze()))
    }
}

#[cfg(test)]
mod tests;
