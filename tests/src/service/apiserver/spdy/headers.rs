//! Header blocks of SPDY/3.1: names and values, compressed with one zlib stream for each direction of a connection.

use std::io;

use bytes::{Buf as _, Bytes};
use flate2::{Compress, Compression, Decompress, DecompressError, FlushCompress, FlushDecompress, Status};

use super::dictionary::dictionary;

/// The most that a block may hold when it is uncompressed.
const LARGEST: usize = 64 * 1024;

/// Names, in lower case, and values, in their order.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Headers(Vec<(String, String)>);

/// Compresses the blocks of one direction, in the order in which they are sent.
#[derive(Debug)]
pub(super) struct Deflater(Compress);

/// Uncompresses the blocks of one direction, in the order in which they come.
#[derive(Debug)]
pub(super) struct Inflater(Decompress);

/// A block that cannot be understood; the connection ends by it.
#[derive(Debug, thiserror::Error)]
pub(super) enum BadBlock {
    #[error("the header block is not compressed as SPDY/3 wants it; check the dictionary")]
    Compression(#[from] DecompressError),
    #[error("the header block holds more than {LARGEST} bytes; send fewer")]
    Large,
    #[error("the header block is shorter than its lengths say; send it whole")]
    Short,
}

impl Headers {
    #[cfg(test)]
    pub(super) fn new<'a>(pairs: impl IntoIterator<Item = (&'a str, &'a str)>) -> Self {
        Self(pairs.into_iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect())
    }

    /// The value of that name, which is given in lower case.
    pub(crate) fn get(&self, name: &str) -> Option<&str> {
        self.0.iter().find_map(|(found, value)| (found == name).then_some(value.as_str()))
    }

    fn encode(&self) -> Vec<u8> {
        let mut block = Vec::new();
        let put_length = |block: &mut Vec<u8>, length: usize| {
            block.extend(u32::try_from(length).unwrap_or(u32::MAX).to_be_bytes());
        };
        put_length(&mut block, self.0.len());
        for text in self.0.iter().flat_map(|(name, value)| [name, value]) {
            put_length(&mut block, text.len());
            block.extend(text.as_bytes());
        }
        block
    }

    fn decode(mut block: Bytes) -> Result<Self, BadBlock> {
        let count = block.try_get_u32().map_err(|_| BadBlock::Short)?;
        let mut pairs = Vec::new();
        for _ in 0..count {
            let name = text(&mut block)?.to_ascii_lowercase();
            pairs.push((name, text(&mut block)?));
        }
        Ok(Self(pairs))
    }
}

fn text(block: &mut Bytes) -> Result<String, BadBlock> {
    let length = block.try_get_u32().map_err(|_| BadBlock::Short)? as usize;
    if length > block.len() {
        return Err(BadBlock::Short);
    }
    Ok(String::from_utf8_lossy(&block.split_to(length)).into_owned())
}

impl Deflater {
    pub(super) fn new() -> io::Result<Self> {
        let mut compress = Compress::new(Compression::default(), true);
        compress.set_dictionary(dictionary()).map_err(io::Error::other)?;
        Ok(Self(compress))
    }

    pub(super) fn block(&mut self, headers: &Headers) -> io::Result<Bytes> {
        let plain = headers.encode();
        let mut block = Vec::with_capacity(plain.len() + 64);
        let before = self.0.total_in();
        loop {
            let taken = usize::try_from(self.0.total_in() - before).map_err(io::Error::other)?;
            let rest = plain.get(taken..).unwrap_or_default();
            self.0.compress_vec(rest, &mut block, FlushCompress::Sync).map_err(io::Error::other)?;
            // All is out when there is room left that was not needed.
            if block.len() < block.capacity() {
                return Ok(block.into());
            }
            block.reserve(256);
        }
    }
}

impl Inflater {
    pub(super) fn new() -> Self {
        Self(Decompress::new(true))
    }

    pub(super) fn headers(&mut self, block: &[u8]) -> Result<Headers, BadBlock> {
        let mut plain = Vec::with_capacity(1024);
        let mut rest = block;
        loop {
            let before = (self.0.total_in(), plain.len());
            let inflated = self.0.decompress_vec(rest, &mut plain, FlushDecompress::Sync);
            let taken = usize::try_from(self.0.total_in() - before.0).unwrap_or(rest.len());
            rest = rest.get(taken..).unwrap_or_default();
            match inflated {
                Err(error) if error.needs_dictionary().is_some() => {
                    self.0.set_dictionary(dictionary())?;
                    continue;
                }
                Err(error) => return Err(error.into()),
                Ok(Status::Ok | Status::BufError | Status::StreamEnd) => {}
            }
            if plain.len() > LARGEST {
                return Err(BadBlock::Large);
            }
            if plain.len() == plain.capacity() {
                plain.reserve(4096);
                continue;
            }
            if rest.is_empty() || (taken == 0 && plain.len() == before.1) {
                return Headers::decode(plain.into());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn headers() -> impl Strategy<Value = Headers> {
        prop::collection::vec(("[a-z-]{1,20}", "[ -~]{0,400}"), 0..8).prop_map(Headers)
    }

    proptest! {
        #[test]
        fn what_is_compressed_is_read_again_block_after_block(blocks in prop::collection::vec(headers(), 1..6)) {
            let (mut deflater, mut inflater) = (Deflater::new().unwrap(), Inflater::new());
            for headers in blocks {
                let block = deflater.block(&headers).unwrap();
                prop_assert_eq!(inflater.headers(&block).unwrap(), headers);
            }
        }

        #[test]
        fn no_block_is_too_strange(block in prop::collection::vec(any::<u8>(), 0..300)) {
            let plain = Headers::decode(block.clone().into());
            prop_assert!(plain.is_err() || block.len() >= 4);
            // A zlib stream begins with a head that is seldom met by chance.
            prop_assert!(Inflater::new().headers(&block).is_err() || block.len() > 1);
        }
    }

    #[test]
    fn a_block_that_would_fill_the_memory_is_refused() {
        let huge = Headers(vec![("a".to_owned(), "x".repeat(2 * LARGEST))]);
        let block = Deflater::new().unwrap().block(&huge).unwrap();
        assert!(matches!(Inflater::new().headers(&block), Err(BadBlock::Large)));
    }

    #[test]
    fn a_name_is_found_in_lower_case() {
        let headers = Headers::new([("Streamtype", "data")]);
        let block = Deflater::new().unwrap().block(&headers).unwrap();
        assert_eq!(Inflater::new().headers(&block).unwrap().get("streamtype"), Some("data"));
    }
}
