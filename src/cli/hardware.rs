//! What tells this machine from others if nothing is kept on its disk, as in an initramfs.

use std::fs;
use std::path::Path;

/// The directory of the kernel's facts.
pub const SYS: &str = "/sys";

/// A machine's hardware.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hardware {
    /// The mainboard's UUID, as the firmware has it. Boards of one series may have the same; empty if it is unknown.
    uuid: String,
    /// The lowest hardware address of its network interfaces, of the physical ones if there are any.
    mac: String,
}

impl Hardware {
    /// Looks the hardware up below `sys`, the root of a sysfs. `None` if no interface has a hardware address.
    pub fn find(sys: &Path) -> Option<Self> {
        let read = |path: &Path| fs::read_to_string(path).map(|text| text.trim().to_ascii_lowercase());
        let interfaces = fs::read_dir(sys.join("class/net")).ok()?.flatten().map(|entry| entry.path());
        let macs = interfaces.filter_map(|interface| {
            let mac = read(&interface.join("address")).ok().filter(|mac| is_mac(mac))?;
            Some((!interface.join("device").exists(), mac))
        });
        // Physical interfaces come first.
        let (_, mac) = macs.min()?;
        let uuid = read(&sys.join("class/dmi/id/product_uuid")).unwrap_or_default();
        Some(Self { uuid, mac })
    }

    /// Bytes that differ from machine to machine, and from one `slot` of it to the next.
    pub fn seed(&self, slot: u32) -> Vec<u8> {
        format!("{}\n{}\n{slot}\n", self.uuid, self.mac).into_bytes()
    }

    /// The end of the hardware address, for people: six hexadecimal digits.
    pub fn tail(&self) -> String {
        let digits: String = self.mac.chars().filter(char::is_ascii_hexdigit).collect();
        digits[digits.len().saturating_sub(6)..].to_owned()
    }
}

/// Whether it is the address of an Ethernet interface, and not zero.
fn is_mac(text: &str) -> bool {
    let parts: Vec<&str> = text.split(':').collect();
    let sound = |part: &&str| part.len() == 2 && part.bytes().all(|b| b.is_ascii_hexdigit());
    parts.len() == 6 && parts.iter().all(sound) && parts.iter().any(|part| *part != "00")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(root: &Path, path: &str, text: &str) {
        let path = root.join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    #[test]
    fn the_lowest_address_of_a_physical_interface() {
        let tmp = tempfile::tempdir().unwrap();
        let sys = tmp.path();
        assert_eq!(Hardware::find(sys), None);
        write(sys, "class/net/lo/address", "00:00:00:00:00:00\n");
        write(sys, "class/net/tun0/address", "\n");
        assert_eq!(Hardware::find(sys), None);
        write(sys, "class/net/br0/address", "02:00:00:00:00:01\n");
        let bridge = Hardware::find(sys).unwrap();
        assert_eq!((bridge.mac.as_str(), bridge.tail().as_str()), ("02:00:00:00:00:01", "000001"));
        write(sys, "class/net/eth1/address", "52:54:00:AA:bb:cd\n");
        write(sys, "class/net/eth1/device/vendor", "0x1af4\n");
        write(sys, "class/net/eth0/address", "52:54:00:aa:bb:ce\n");
        write(sys, "class/net/eth0/device/vendor", "0x1af4\n");
        write(sys, "class/dmi/id/product_uuid", "03000200-0400-0500-0006-000700080009\n");
        let found = Hardware::find(sys).unwrap();
        assert_eq!((found.mac.as_str(), found.tail().as_str()), ("52:54:00:aa:bb:cd", "aabbcd"));
        assert_eq!(found.uuid, "03000200-0400-0500-0006-000700080009");
        // It is the same from run to run, and differs from another machine's, and between slots.
        assert_eq!(Hardware::find(sys).unwrap().seed(1), found.seed(1));
        assert!(found.seed(1) != found.seed(2) && found.seed(1) != bridge.seed(1));
    }
}
