//! RETRY: validates a device's address before the sender spends anything on it.

use super::reader::{Reader, Result};
use super::writer::Writer;
use crate::units::{AgreementKey, Cookie};

/// Asks the device with this key to repeat its JOIN with this cookie. A device that can do so receives at the
/// address to which the cookie was sent (as in RFC 9147, section 5.1). The message is shorter than the JOIN.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Retry {
    /// The agreement key in the JOIN that it answers.
    pub agreement: AgreementKey,
    /// The cookie to return.
    pub cookie: Cookie,
}

impl Retry {
    pub(super) fn decode(r: &mut Reader<'_>) -> Result<Self> {
        Ok(Self { agreement: AgreementKey(r.array("agreement")?), cookie: Cookie(r.array("cookie")?) })
    }

    pub(super) fn encode(&self, w: &mut Writer) {
        w.bytes(&self.agreement.0);
        w.bytes(&self.cookie.0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::testing::{datagram, golden, takes};
    use crate::wire::{DecodeError, MessageKind, decode_plain};

    fn body() -> Vec<u8> {
        [[0x61; 32].as_slice(), &[0x62; 16]].concat()
    }

    #[test]
    fn golden_bytes() {
        golden(Retry { agreement: AgreementKey([0x61; 32]), cookie: Cookie([0x62; 16]) }, &body());
    }

    #[test]
    fn every_value_is_valid_and_each_missing_field_is_named() {
        takes(MessageKind::Retry, &body(), 0, &[0; 48]);
        for (len, field) in [(31, "agreement"), (47, "cookie")] {
            let error = DecodeError::Truncated { message: MessageKind::Retry, field };
            assert_eq!(decode_plain(&datagram(12, &body()[..len])), Err(error));
        }
    }
}
