//! The wire format of protobuf: numbered fields with their payloads.

/// What is wrong with the bytes.
#[derive(Debug)]
pub(super) struct Malformed(pub(super) &'static str);

/// The value of a field, before its meaning is known.
#[derive(Debug)]
pub(super) enum Payload<'a> {
    Number(u64),
    Bytes(&'a [u8]),
    /// Four or eight bytes; no field of Kubernetes that we read has such.
    Fixed,
}

/// Reads the fields of one message, in the order they come.
pub(super) struct Reader<'a>(pub(super) &'a [u8]);

impl<'a> Iterator for Reader<'a> {
    type Item = Result<(u32, Payload<'a>), Malformed>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.0.is_empty() {
            return None;
        }
        let field = self.field();
        if field.is_err() {
            // Nothing after it can be made sense of.
            self.0 = &[];
        }
        Some(field)
    }
}

impl<'a> Reader<'a> {
    fn field(&mut self) -> Result<(u32, Payload<'a>), Malformed> {
        let key = self.number()?;
        let number = u32::try_from(key >> 3).ok().filter(|number| (1..1 << 29).contains(number));
        let number = number.ok_or(Malformed("illegal tag"))?;
        let payload = match key & 7 {
            0 => Payload::Number(self.number()?),
            1 => self.take(8).map(|_| Payload::Fixed)?,
            2 => {
                let length = usize::try_from(self.number()?).map_err(|_| TOO_SHORT)?;
                Payload::Bytes(self.take(length)?)
            }
            5 => self.take(4).map(|_| Payload::Fixed)?,
            _ => return Err(Malformed("illegal wireType")),
        };
        Ok((number, payload))
    }

    fn take(&mut self, length: usize) -> Result<&'a [u8], Malformed> {
        let (taken, rest) = self.0.split_at_checked(length).ok_or(TOO_SHORT)?;
        self.0 = rest;
        Ok(taken)
    }

    /// A base-128 number of at most ten bytes, low bits first.
    fn number(&mut self) -> Result<u64, Malformed> {
        let mut number = 0;
        for shift in (0..64).step_by(7) {
            let byte = self.take(1)?[0];
            if shift == 63 && byte > 1 {
                return Err(Malformed("integer overflow"));
            }
            number |= u64::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                return Ok(number);
            }
        }
        Err(Malformed("integer overflow"))
    }
}

const TOO_SHORT: Malformed = Malformed("unexpected EOF");

pub(super) fn text(bytes: &[u8]) -> Result<&str, Malformed> {
    std::str::from_utf8(bytes).map_err(|_| Malformed("a string is not UTF-8"))
}
