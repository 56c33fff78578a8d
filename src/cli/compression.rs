//! The argument of `--compress`.

use mcp_transfer::pack::LEVELS;
use mcp_transfer::protocol::sender::Compression;

/// Parses `off`, `auto` or a level from 1 on.
///
/// # Errors
/// If it is none of these.
pub fn parse_compression(text: &str) -> Result<Compression, String> {
    match text {
        "off" => Ok(Compression::Off),
        "auto" => Ok(Compression::Auto),
        level => {
            let level = level.parse().ok().filter(|level| (1..=*LEVELS.end()).contains(level));
            level
                .map(Compression::Level)
                .ok_or_else(|| format!("is neither off nor auto nor a level from 1 to {}", LEVELS.end()))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn levels_are_those_of_zstd_that_pay() {
        let parsed = ["off", "auto", "1", "19"].map(|text| parse_compression(text).unwrap());
        let levels = [Compression::Off, Compression::Auto, Compression::Level(1), Compression::Level(19)];
        assert_eq!(parsed, levels);
        for wrong in ["", "0", "-1", "20", "on", "Auto", "1.5", "300"] {
            assert!(parse_compression(wrong).is_err(), "{wrong}");
        }
    }
}
