//! A reproducible stream of bytes: what its seed says at each place, so that any byte lost, added, swapped or of another
//! connection is found, and where.

use std::fmt;
use std::io;

use sha2::{Digest as _, Sha256};
use thiserror::Error;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};

/// Bytes handed over at a time: about what one read of a fast socket gives.
const PIECE: usize = 64 * 1024;
/// SplitMix64's increment (Steele, Lea, Flood 2014): any word of the stream is computed from its index alone.
const GAMMA: u64 = 0x9e37_79b9_7f4a_7c15;

/// A stream of `length` pseudo-random bytes chosen by `seed`. On a wire it is followed by its SHA-256.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pattern {
    /// Which stream.
    pub seed: u64,
    /// Its length in bytes, without the checksum that follows.
    pub length: u64,
}

/// The SHA-256 of a whole pattern. `Display` is lower-case hex.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Checksum(pub [u8; 32]);

/// Why bytes that were read are not the pattern.
#[derive(Debug, Error)]
pub enum PatternError {
    /// A byte differs from what the seed says.
    #[error("byte {offset} of {length} is wrong: bytes were lost, added, swapped or are another connection's")]
    Differs { offset: u64, length: u64 },
    /// The stream ended in the middle, cleanly.
    #[error("the stream ended after {offset} of {length} bytes")]
    Short { offset: u64, length: u64 },
    /// All bytes are right and the checksum behind them is not.
    #[error("the checksum behind the {length} bytes is wrong")]
    Checksum { length: u64 },
    /// The stream failed.
    #[error("the stream failed after {offset} bytes")]
    Io {
        offset: u64,
        #[source]
        source: io::Error,
    },
}

impl Pattern {
    /// The pattern of that seed and length (in bytes).
    pub fn new(seed: u64, length: u64) -> Self {
        Self { seed, length }
    }

    /// Writes the pattern's bytes from `offset` on into all of `buffer`; `offset` must be a multiple of 8.
    pub fn fill(&self, offset: u64, buffer: &mut [u8]) {
        debug_assert!(offset.is_multiple_of(8), "words start at multiples of 8");
        for (index, word) in (offset / 8..).zip(buffer.chunks_mut(8)) {
            word.copy_from_slice(&self.word(index).to_le_bytes()[..word.len()]);
        }
    }

    /// The whole pattern, without checksum, in memory.
    pub fn to_vec(&self) -> Vec<u8> {
        let length = usize::try_from(self.length).expect("a pattern held in memory fits in it");
        let mut bytes = vec![0; length];
        self.fill(0, &mut bytes);
        bytes
    }

    /// Writes all bytes and no checksum; gives the checksum.
    pub async fn write_bytes(&self, to: &mut (impl AsyncWrite + Unpin)) -> io::Result<Checksum> {
        let mut piece = vec![0; PIECE];
        let mut digest = Sha256::new();
        let mut offset = 0;
        while offset < self.length {
            let piece = &mut piece[..piece_length(self.length - offset)];
            self.fill(offset, piece);
            digest.update(&*piece);
            to.write_all(piece).await?;
            offset += piece.len() as u64;
        }
        to.flush().await?;
        Ok(Checksum(digest.finalize().into()))
    }

    /// Writes all bytes and the checksum.
    pub async fn write(&self, to: &mut (impl AsyncWrite + Unpin)) -> io::Result<Checksum> {
        let checksum = self.write_bytes(to).await?;
        to.write_all(&checksum.0).await?;
        to.flush().await?;
        Ok(checksum)
    }

    /// Reads exactly the pattern's bytes, comparing each, and no checksum; gives the checksum.
    pub async fn read_bytes(&self, from: &mut (impl AsyncRead + Unpin)) -> Result<Checksum, PatternError> {
        let (mut piece, mut expected) = (vec![0; PIECE], vec![0; PIECE]);
        let mut digest = Sha256::new();
        let mut offset = 0;
        while offset < self.length {
            let length = piece_length(self.length - offset);
            let read = read_full(from, &mut piece[..length]).await.map_err(|(read, source)| match source {
                Some(source) => PatternError::Io { offset: offset + read as u64, source },
                None => PatternError::Short { offset: offset + read as u64, length: self.length },
            });
            self.fill(offset, &mut expected[..length]);
            read?;
            if piece[..length] != expected[..length] {
                let same = piece.iter().zip(&expected).take_while(|(read, expected)| read == expected).count();
                return Err(PatternError::Differs { offset: offset + same as u64, length: self.length });
            }
            digest.update(&piece[..length]);
            offset += length as u64;
        }
        Ok(Checksum(digest.finalize().into()))
    }

    /// Reads exactly the pattern and its checksum.
    pub async fn read(&self, from: &mut (impl AsyncRead + Unpin)) -> Result<Checksum, PatternError> {
        let checksum = self.read_bytes(from).await?;
        let mut received = [0; 32];
        match read_full(from, &mut received).await {
            Ok(()) if received == checksum.0 => Ok(checksum),
            Ok(()) => Err(PatternError::Checksum { length: self.length }),
            Err((read, None)) => {
                Err(PatternError::Short { offset: self.length + read as u64, length: self.length + 32 })
            }
            Err((read, Some(source))) => Err(PatternError::Io { offset: self.length + read as u64, source }),
        }
    }

    fn word(&self, index: u64) -> u64 {
        let mut word = self.seed.wrapping_add(index.wrapping_add(1).wrapping_mul(GAMMA));
        word = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        word ^ (word >> 31)
    }
}

impl fmt::Display for Checksum {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

fn piece_length(left: u64) -> usize {
    usize::try_from(left).map_or(PIECE, |left| left.min(PIECE))
}

/// Fills `buffer`; on failure says how much was read, and the error unless the stream just ended.
async fn read_full(from: &mut (impl AsyncRead + Unpin), buffer: &mut [u8]) -> Result<(), (usize, Option<io::Error>)> {
    let mut read = 0;
    while read < buffer.len() {
        match from.read(&mut buffer[read..]).await {
            Ok(0) => return Err((read, None)),
            Ok(more) => read += more,
            Err(source) => return Err((read, Some(source))),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const LENGTH: u64 = 200_003;

    async fn wire(pattern: Pattern) -> Vec<u8> {
        let mut wire = Vec::new();
        pattern.write(&mut wire).await.expect("a vector takes all");
        wire
    }

    #[tokio::test]
    async fn what_is_written_is_read_back() {
        let pattern = Pattern::new(1, LENGTH);
        let wire = wire(pattern).await;
        assert_eq!(wire.len() as u64, LENGTH + 32);
        let checksum = pattern.read(&mut wire.as_slice()).await.unwrap();
        assert_eq!(checksum.0, <[u8; 32]>::from(Sha256::digest(&wire[..wire.len() - 32])));
        assert_eq!(pattern.to_vec(), wire[..wire.len() - 32]);
    }

    #[tokio::test]
    async fn a_changed_byte_is_found_at_its_place() {
        let pattern = Pattern::new(1, LENGTH);
        let mut wire = wire(pattern).await;
        wire[100_001] ^= 1;
        let error = pattern.read(&mut wire.as_slice()).await.unwrap_err();
        assert!(matches!(error, PatternError::Differs { offset: 100_001, .. }), "{error}");
    }

    #[tokio::test]
    async fn a_lost_byte_a_short_stream_and_a_wrong_checksum_are_found() {
        let pattern = Pattern::new(1, LENGTH);
        let mut wire = wire(pattern).await;
        *wire.last_mut().unwrap() ^= 1;
        assert!(matches!(pattern.read(&mut wire.as_slice()).await, Err(PatternError::Checksum { .. })));
        assert!(matches!(pattern.read(&mut &wire[..99]).await, Err(PatternError::Short { offset: 99, .. })));
        wire.remove(50);
        assert!(matches!(pattern.read(&mut wire.as_slice()).await, Err(PatternError::Differs { .. })));
    }

    #[test]
    fn seeds_give_different_streams() {
        assert_ne!(Pattern::new(1, 64).to_vec(), Pattern::new(2, 64).to_vec());
    }
}
