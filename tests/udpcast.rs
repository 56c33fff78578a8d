//! The lines of `docs/from-udpcast.md`, run as they stand there, between two hosts in namespaces. Only what names a
//! machine's own things is replaced: interface, addresses, ports, devices, directories, counts and times.

mod support;

use std::fs;
use std::path::PathBuf;
use support::files::TempDir;
use support::loops::Loop;
use support::mcp::SOON;
use support::site::{Site, must};

const DOCUMENT: &str = include_str!("../docs/from-udpcast.md");
const MIB: u64 = 1 << 20;

/// An image of a file system with some files in it, and what partclone makes of it.
struct Image {
    tree: PathBuf,
    disk: PathBuf,
    clone: PathBuf,
}

impl Image {
    fn new(tmp: &TempDir) -> Self {
        let tree = tmp.dir("tree");
        tmp.file("tree/random", 2 * MIB + 77, 1);
        fs::create_dir(tree.join("sub")).expect("directory");
        fs::write(tree.join("sub/hello"), "hello\n").expect("file");
        let (disk, clone) = (tmp.join("disk.img"), tmp.join("d1p2.img"));
        must(&format!(
            "truncate -s 16M '{0}'; mkfs.ext4 -q -F -d '{1}' '{0}'; \
             partclone.ext4 -c -s '{0}' -o - 2>/dev/null | zstd -q >'{2}'",
            disk.display(),
            tree.display(),
            clone.display()
        ));
        Self { tree, disk, clone }
    }

    /// Whether a device has the file system with its files: checked, mounted and compared.
    #[track_caller]
    fn assert_restored(&self, device: &Loop, tmp: &TempDir) {
        let at = tmp.dir("mounted");
        must(&format!(
            "e2fsck -fn {0} >/dev/null 2>&1; mount -o ro {0} '{1}'; \
             diff -r --exclude=lost+found '{2}' '{1}' && umount '{1}' || {{ umount '{1}'; false; }}",
            device.path(),
            at.display(),
            self.tree.display()
        ));
    }
}

/// Options with which a test does not wait.
const NOW: (&str, &str) = ("-n 30 -w 600s", "-n 1 -w 60s");

#[test]
fn what_imaging_systems_run_restores_file_systems() {
    let programs =
        ["losetup", "partclone.ext4", "partclone.restore", "mkfs.ext4", "e2fsck", "zstdmt", "bash"];
    let Some(site) = Site::new(DOCUMENT, 2, &programs) else { return };
    let (tmp, image) = (&site.tmp, Image::new(&site.tmp));
    let clone = image.clone.display().to_string();
    let targets = ["fog-fifo", "fog", "clonezilla"]
        .map(|name| Loop::sized(&tmp.join(format!("{name}.disk")), 16 * MIB));
    must(&format!(
        "cd '{}'; split -b 1M d1p2.img d1p1.img.; split -b 1M d1p2.img IMG.",
        tmp.path().display()
    ));
    let parts = |name: &str| tmp.join(name).display().to_string();
    let fifo = tmp.join("pigz1").display().to_string();
    must(&format!("mkfifo '{fifo}'"));
    let mut all = vec![
        // FOG, with the fifo as it is.
        site.run(
            1,
            "fog-fifo-client",
            "mcp recv -p $port -o - --name \"$name\" >/tmp/pigz1 &\n\
             zstdmt -dc </tmp/pigz1 | partclone.restore --ignore_crc -O $target -Nf 1",
            &[("$port", "63100"), ("$name", "d1p2.img"), ("/tmp/pigz1", &fifo), ("$target", targets[0].path())],
        ),
        site.run(
            0,
            "fog-fifo-server",
            "mcp send /images/x/d1p2.img 239.1.1.5 -i I --name d1p2.img -n 30 -w 600s --wait-first forever -p 63100 --ttl 32 -q",
            &[("/images/x/d1p2.img", &clone), ("-i I", "-i eth0"), NOW],
        ),
        // FOG, with a split image and receipts that tell the truth.
        site.run(
            1,
            "fog-client",
            "mcp recv -p $port -o - --name d1p2.img --any-sender --pipe \"zstdmt -dc | partclone.restore -O $target -Nf 1\"",
            &[("$port", "63110"), ("d1p2.img", "d1p1.img"), ("$target", targets[1].path())],
        ),
        site.run(
            0,
            "fog-server",
            "cat d1p1.img.* | mcp send - 239.1.1.5 -i I --name d1p1.img -n 30 -w 600s --wait-first forever -p 63100 --ttl 32 -q",
            &[("cat d1p1.img.", &format!("cat {}.", parts("d1p1.img"))), ("-i I", "-i eth0"), ("63100", "63110"), NOW],
        ),
        // Clonezilla.
        site.run(
            1,
            "clonezilla-client",
            "mcp recv -o - -p 2232 --name sda1 | zstd -dc | partclone.ext4 -r -s - -o /dev/sda1",
            &[("/dev/sda1", targets[2].path())],
        ),
        site.run(
            0,
            "clonezilla-server",
            "cat IMG.* | mcp send - -i eth0 -n 20 -w 300s --wait-first forever -p 2232 --name sda1",
            &[("cat IMG.", &format!("cat {}.", parts("IMG"))), ("-n 20", "-n 1")],
        ),
        // OpenGnsys.
        site.run(
            1,
            "opengnsys-client",
            "mcp recv A -p P -o F --timeout 120s",
            &[(" A ", " 239.1.1.9 "), ("-p P", "-p 9020"), ("-o F", "-o copy.img")],
        ),
        site.run(
            0,
            "opengnsys-server",
            "mcp send F A -p P -r auto:80M --ttl 16 -n N -w T --wait-first forever",
            &[(" F A ", &format!(" {clone} 239.1.1.9 ")), ("-p P", "-p 9020"), ("-n N -w T", "-n 1 -w 60s")],
        ),
    ];
    for process in &mut all {
        process.expect(0, SOON);
    }
    targets.iter().for_each(|target| image.assert_restored(target, tmp));
    let same = |path: PathBuf| fs::read(path).expect("copy") == fs::read(&image.clone).expect("image");
    assert!(same(tmp.join("opengnsys-client/copy.img")));
    // linbo: the sender goes on serving, and an existing file is replaced.
    let mut server = site.run(
        0,
        "linbo-server",
        "mcp send F -i I -p P -w 60s --linger forever",
        &[(" F ", &format!(" {clone} ")), ("-i I", "-i eth0"), ("-p P", "-p 9000"), ("-w 60s", "-w 1s")],
    );
    let client = "mcp recv -i I -p P -o F --force";
    let replaced = [("-i I", "-i eth0"), ("-p P", "-p 9000"), ("-o F", "-o copy.img")];
    fs::write(tmp.dir("linbo-client").join("copy.img"), "old").expect("an old file");
    site.run(1, "linbo-client", client, &replaced).expect(0, SOON);
    assert!(same(tmp.join("linbo-client/copy.img")));
    server.signal("TERM");
    server.finish(SOON);
}

#[test]
fn whole_disks_and_directories_go_as_they_are() {
    let Some(site) =
        Site::new(DOCUMENT, 2, &["losetup", "partclone.ext4", "mkfs.ext4", "e2fsck", "zstd", "bash"])
    else {
        return;
    };
    let (tmp, image) = (&site.tmp, Image::new(&site.tmp));
    let (from, to) = (Loop::sized(&image.disk, 16 * MIB), Loop::sized(&tmp.join("to.disk"), 16 * MIB));
    let mut client =
        site.run(1, "disk-client", "mcp recv -o /dev/sda --any-sender", &[("/dev/sda", to.path())]);
    let mut server = site.run(0, "disk-server", "mcp send /dev/sda", &[("/dev/sda", from.path())]);
    client.expect(0, SOON);
    server.expect(0, SOON);
    image.assert_restored(&to, tmp);
    must(&format!("cmp {} {}", from.path(), to.path()));
    let tree = tmp.dir("directory-server").join("lab-image");
    must(&format!("cp -a '{}' '{}'", image.tree.display(), tree.display()));
    let srv = tmp.dir("srv").display().to_string();
    let mut client = site.run(1, "directory-client", "mcp recv -o /srv/ -i eth0", &[("/srv/", &srv)]);
    let mut server = site.run(0, "directory-server", "mcp send lab-image -i eth0", &[]);
    client.expect(0, SOON);
    server.expect(0, SOON);
    must(&format!("diff -r '{}' '{srv}/lab-image'", tree.display()));
}
