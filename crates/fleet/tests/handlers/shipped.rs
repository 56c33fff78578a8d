//! The examples of `packaging/handlers`, as they are shipped but for their paths.

use super::*;
use mcp_fleet::journal::Verdict;
use serde_json::json;
use std::os::unix::fs::MetadataExt;
use std::process::{Command, Output};

/// Installs an example, with changes to its manifest.
fn install(lab: &Lab, name: &str, changes: &[(&str, &str)]) {
    let shipped = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../packaging/handlers");
    let bin = lab.path("bin");
    let mut text = fs::read_to_string(shipped.join(format!("{name}.toml"))).unwrap();
    text = text.replace("/usr/lib/mcp/handlers", bin.to_str().unwrap());
    for (from, to) in changes {
        assert!(text.contains(from), "{name}: {from}");
        text = text.replace(from, to);
    }
    lab.manifest(name, &text);
    if let Ok(program) = fs::read_to_string(shipped.join(name)) {
        assert_eq!(
            fs::metadata(shipped.join(name)).unwrap().mode() & 0o111,
            0o111,
            "{name} is not executable"
        );
        lab.write(&format!("bin/{name}"), &program, 0o755);
    }
}

fn output(program: &str, args: &[&str]) -> Output {
    Command::new(program).args(args).output().unwrap()
}

fn with(handler: &str, name: &str, value: &str, object: ObjectFile) -> Job {
    let arguments = Values::from([(name.to_owned(), json!(value))]);
    Job { handler: handler.into(), arguments, object: Some(object) }
}

#[test]
fn a_script_runs_and_can_do_little() {
    let Some(lab) = Lab::new() else { return };
    install(&lab, "script", &[]);
    let text = "id -u; echo \"$1\"; touch /tmp/x && echo tmp; touch /var/tmp/x || exit 7\n";
    let report = lab.perform(&with("script", "argument", "a/b.c", lab.object("tidy.sh", text.as_bytes())));
    assert_eq!(report.outcome.verdict, Verdict::Failed);
    assert!(report.outcome.text.starts_with("exited with 7"), "{report:?}");
    assert!(report.output.starts_with("65534\na/b.c\ntmp\n"), "{report:?}");
    let job = Job { object: Some(lab.object("ok.sh", b"echo \"$#\"\n")), ..job("script") };
    assert_eq!(lab.perform(&job).output, "0");
}

#[test]
fn a_tree_is_replaced_whole() {
    let Some(lab) = Lab::new() else { return };
    let srv = lab.path("srv");
    fs::create_dir(&srv).unwrap();
    install(&lab, "copy-tree", &[("\"/srv\"", &format!("\"{}\"", srv.display()))]);
    let archive = |lines: &str| {
        let build = lab.path("build");
        let _ = fs::remove_dir_all(&build);
        fs::create_dir(&build).unwrap();
        sh(lines, &build);
        sh("tar --create --gzip --file=../tree.tar.gz .", &build);
        lab.object("site.tar.gz", &fs::read(lab.path("tree.tar.gz")).unwrap())
    };
    let to = srv.join("site");
    let run = |object: ObjectFile| lab.perform(&with("copy-tree", "to", to.to_str().unwrap(), object));
    let first = archive("mkdir sub; echo one >sub/file; ln -s sub link; cp /bin/true tool; chmod 4755 tool");
    let report = run(first.clone());
    assert_eq!(report.outcome.verdict, Verdict::Done, "{report:?}");
    assert_eq!(fs::read_to_string(to.join("link/file")).unwrap(), "one\n");
    assert_eq!(fs::metadata(to.join("tool")).unwrap().mode() & 0o7000, 0);
    assert_eq!(run(first).outcome.text, "it was there already");
    // What is not in the new archive is gone.
    let report = run(archive("echo two >other"));
    assert_eq!(report.outcome.verdict, Verdict::Done, "{report:?}");
    assert_eq!(
        (fs::read_to_string(to.join("other")).unwrap(), to.join("sub").exists()),
        ("two\n".into(), false)
    );
    assert_eq!(fs::read_dir(&srv).unwrap().count(), 1);
    // A broken archive leaves the old tree.
    let report = run(lab.object("site.tar.gz", b"no archive at all"));
    assert!(report.outcome.text.contains("it was rolled back"), "{report:?}");
    assert_eq!(fs::read_to_string(to.join("other")).unwrap(), "two\n");
    assert_eq!(fs::read_dir(&srv).unwrap().count(), 1);
    // Members that lead elsewhere do not.
    sh(
        "echo evil >evil; tar --create --absolute-names --transform='s,^,../,' --file=evil.tar evil",
        &lab.root,
    );
    run(lab.object("site.tar", &fs::read(lab.path("evil.tar")).unwrap()));
    assert!(!srv.join("evil").exists());
    for wrong in ["/etc", "/srv/../etc", "site", "/srv/a/b"] {
        let report = lab.perform(&with("copy-tree", "to", wrong, lab.object("x", b"x")));
        assert!(report.outcome.text.contains("its argument to"), "{report:?}");
    }
}

#[test]
fn a_package_is_installed_once() {
    let Some(lab) = Lab::new() else { return };
    let root = lab.path("root");
    sh(
        "mkdir -p root/var/lib/dpkg/info root/var/lib/dpkg/updates; touch root/var/lib/dpkg/status",
        &lab.root,
    );
    let options = format!("--root={} --log=/dev/null --force-not-root", root.display());
    install(
        &lab,
        "deb",
        &[
            ("--force-confdef --force-confold", &options),
            ("write = [", &format!("write = [\"{}\", ", root.display())),
        ],
    );
    let package = |version: &str, more: &str| {
        let _ = fs::remove_dir_all(lab.path("deb"));
        let control = format!(
            "Package: mcp-editor\nVersion: {version}\nArchitecture: all\nMaintainer: Nobody <nobody@localhost>\n{more}Description: test\n"
        );
        sh(&format!("mkdir -p deb/DEBIAN deb/opt/editor; echo {version} >deb/opt/editor/version"), &lab.root);
        lab.write("deb/DEBIAN/control", &control, 0o644);
        sh("dpkg-deb --root-owner-group --build deb editor.deb >/dev/null", &lab.root);
        lab.object("editor.deb", &fs::read(lab.path("editor.deb")).unwrap())
    };
    let install = |object| lab.perform(&Job { object: Some(object), ..job("deb") });
    let status = || {
        let admin = format!("--admindir={}/var/lib/dpkg", root.display());
        let said = output("dpkg-query", &[&admin, "-W", "-f=${db:Status-Status} ${Version}", "mcp-editor"]);
        String::from_utf8(said.stdout).unwrap()
    };
    let report = install(package("1.0", ""));
    assert_eq!(report.outcome.verdict, Verdict::Done, "{report:?}");
    assert_eq!(
        (status(), fs::read_to_string(root.join("opt/editor/version")).unwrap()),
        ("installed 1.0".into(), "1.0\n".into())
    );
    assert_eq!(install(package("1.0", "")).outcome.text, "it was there already");
    let report = install(package("2.1", ""));
    assert_eq!((report.outcome.verdict, status()), (Verdict::Done, "installed 2.1".into()), "{report:?}");
    // One that cannot be installed.
    let report = install(package("3.0", "Depends: no-such-package\n"));
    assert!(
        report.outcome.verdict == Verdict::Failed && report.output.contains("no-such-package"),
        "{report:?}"
    );
    let report = install(lab.object("editor.deb", b"no package at all"));
    assert!(report.outcome.text.starts_with("its check exited with 2"), "{report:?}");
}

/// A loop device, detached when it is dropped.
struct Loop(String);

impl Loop {
    fn new(file: &Path) -> Self {
        let said = output("losetup", &["--find", "--show", file.to_str().unwrap()]);
        assert!(said.status.success(), "{said:?}");
        Self(String::from_utf8(said.stdout).unwrap().trim().to_owned())
    }
}

impl Drop for Loop {
    fn drop(&mut self) {
        output("losetup", &["--detach", &self.0]);
    }
}

#[test]
fn a_partition_is_written_and_read_back() {
    let Some(lab) = Lab::new() else { return };
    let disk = lab.path("disk");
    fs::write(&disk, vec![0x55; 4 << 20]).unwrap();
    let device = Loop::new(&disk);
    let other = lab.path("other");
    fs::write(&other, vec![0x66; 1 << 20]).unwrap();
    let forbidden = Loop::new(&other);
    let write = format!("write = [\"{}\"]", device.0);
    let changes =
        [("mmcblk0p[23]", "loop[0-9]+"), ("write = [\"/dev/mmcblk0p2\", \"/dev/mmcblk0p3\"]", &write)];
    install(&lab, "raw-partition", &changes);
    let image: Vec<u8> = (0..3 << 20).map(|n: u32| n.wrapping_mul(2_654_435_761).to_le_bytes()[3]).collect();
    let run = |device: &str, image: &[u8]| {
        lab.perform(&with("raw-partition", "device", device, lab.object("rootfs.img", image)))
    };
    let report = run(&device.0, &image);
    assert_eq!(report.outcome.verdict, Verdict::Done, "{report:?}");
    let held = fs::read(&disk).unwrap();
    assert!(held[..image.len()] == image && held[image.len()..].iter().all(|b| *b == 0x55));
    assert_eq!(run(&device.0, &image).outcome.text, "it was there already");
    // Too large, not named by the manifest, no device at all.
    let report = run(&device.0, &vec![1; 5 << 20]);
    assert!(
        report.outcome.verdict == Verdict::Failed && report.output.contains("has 4194304 bytes"),
        "{report:?}"
    );
    let report = run(&forbidden.0, &[2; 1000]);
    assert_eq!(report.outcome.verdict, Verdict::Failed, "{report:?}");
    assert_eq!(fs::read(&other).unwrap(), vec![0x66; 1 << 20]);
    for wrong in ["/dev/vda", "/dev/../etc/passwd", "/dev/loop1x"] {
        assert!(run(wrong, b"x").outcome.text.contains("its argument device"));
    }
}
