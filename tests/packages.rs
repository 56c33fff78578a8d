//! The packages: what `packaging/deb` and `packaging/rpm` make of the built program is accepted by `lintian` and `rpm`, and
//! in a root with nothing but a minimal Debian the first is installed, used, upgraded, removed and purged. The second is installed and
//! erased in a layer over this system.

mod support;

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use support::files::{TempDir, assert_only_copy, names};
use support::lab::Lab;
use support::mcp::{MCP, Network, SOON};
use support::process::Cmd;
use support::{has_program, is_root, skip};

/// Where users and systemd keep what outlives a package, by Debian's custom: users are never removed, and their files have backups.
const USERS: [&str; 4] = ["/etc/passwd-", "/etc/group-", "/etc/shadow-", "/etc/gshadow-"];

#[track_caller]
fn must(script: &str) -> String {
    let output = Command::new("bash")
        .args(["-c", &format!("set -euo pipefail; {script}")])
        .env("LC_ALL", "C")
        .env("DPKG_DEB_COMPRESSOR_LEVEL", "1")
        .output()
        .expect("bash");
    let text = String::from_utf8_lossy(&output.stdout).trim().to_owned();
    assert!(output.status.success(), "{script}: {text} {}", String::from_utf8_lossy(&output.stderr));
    text
}

/// Whether all of these programs are there. Says which is not.
fn have(programs: &[&str]) -> bool {
    let missing = programs.iter().find(|program| !has_program(program));
    if let Some(missing) = missing {
        skip(&format!("packages need the program {missing}"));
    }
    missing.is_none()
}

/// Makes a package with `packaging/SCRIPT`.
fn package(script: &str, tmp: &TempDir) -> PathBuf {
    let out = tmp.dir(script);
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("packaging").join(script);
    must(&format!("'{}' '{MCP}' '{}'", script.display(), out.display()));
    let [name] = &names(&out)[..] else { panic!("not one package: {:?}", names(&out)) };
    out.join(name)
}

/// A minimal Debian, made once for all runs.
fn minimal() -> PathBuf {
    let root = Path::new(env!("CARGO_TARGET_TMPDIR")).join("minimal-debian");
    if !root.is_dir() {
        let new = root.with_extension("new");
        must(&format!(
            "read -r mirror suite < <(apt-get indextargets --format '$(SITE) $(CODENAME)' 'Created-By: Packages' | sed -n 1p)
             rm -rf '{0}'
             debootstrap --variant=minbase --include=systemd-standalone-sysusers $suite '{0}' $mirror
             rm -rf '{0}'/var/cache/apt/* '{0}'/var/lib/apt/lists/*",
            new.display()
        ));
        fs::rename(new, &root).expect("rename");
    }
    root
}

/// Every path below a root, but for the package manager's own.
fn paths(root: &Path) -> BTreeSet<String> {
    let own = "-path ./var/lib/dpkg -o -path ./var/log -o -path ./var/cache -o -path ./tmp";
    must(&format!("cd '{}' && find . \\( {own} \\) -prune -o -printf '/%P\\n'", root.display()))
        .lines()
        .map(str::to_owned)
        .collect()
}

/// A package of the next version, with another default in the file that administrators may edit.
fn next_version(deb: &Path, tmp: &TempDir) -> PathBuf {
    let (tree, next) = (tmp.join("tree"), tmp.join("next.deb"));
    must(&format!(
        "dpkg-deb -R '{0}' '{1}' && cd '{1}' && sed -i 's/^Version: .*/Version: 99.0-1/' DEBIAN/control
         sed -i 's/^title=mcp$/title=new/' etc/ufw/applications.d/mcp
         dpkg-deb --root-owner-group -Zgzip -z1 -b . '{2}'",
        deb.display(),
        tree.display(),
        next.display()
    ));
    next
}

#[test]
fn a_debian_package_comes_works_and_goes() {
    if !have(&["dpkg-buildpackage", "dh", "lintian", "debootstrap"]) {
        return;
    }
    if !is_root() {
        return skip("a root of its own needs root");
    }
    let Some(lab) = Lab::new(1) else { return };
    let tmp = TempDir::new();
    let deb = package("deb", &tmp);
    must(&format!("lintian --allow-root --fail-on error,warning '{}'", deb.display()));

    let root = tmp.join("root");
    must(&format!("cp -a '{}' '{}'", minimal().display(), root.display()));
    let dpkg = |words: &str| must(&format!("chroot '{}' dpkg {words} </dev/null", root.display()));
    let at = |path: &str| root.join(path.trim_start_matches('/'));
    let before = paths(&root);

    fs::copy(&deb, at("/tmp/mcp.deb")).expect("copy");
    dpkg("-i /tmp/mcp.deb");
    let installed = paths(&root);
    for path in [
        "/usr/bin/mcp",
        "/usr/share/man/man1/mcp-send.1.gz",
        "/usr/share/bash-completion/completions/mcp",
        "/usr/share/zsh/vendor-completions/_mcp",
        "/usr/share/fish/vendor_completions.d/mcp.fish",
        "/usr/lib/sysctl.d/10-mcp.conf",
        "/usr/lib/firewalld/services/mcp.xml",
        "/etc/ufw/applications.d/mcp",
        "/usr/share/doc/mcp/changelog.gz",
        "/usr/share/doc/mcp/copyright",
    ] {
        assert!(installed.contains(path), "{path}");
    }
    for unit in ["mcp-agent.service", "mcp-serve.service"] {
        assert!(at("/lib/systemd/system").join(unit).is_file(), "{unit}");
        // Nobody asked for it.
        assert!(!installed.iter().any(|path| path.contains(".wants/") && path.ends_with(unit)), "{unit}");
    }
    let user = "chroot ROOT getent passwd mcp-serve".replace("ROOT", &root.display().to_string());
    assert!(must(&user).contains(":mcp serve:/var/lib/mcp-serve:"));

    // Both ends run there, over the loopback interface of a namespace.
    let inside = |cmd: Cmd| {
        let script = "mount -t sysfs none $0/sys && mount -t proc none $0/proc && exec chroot $0 \"$@\"";
        let enter = ["unshare", "--mount", "sh", "-c", script].map(PathBuf::from);
        lab.on(0, cmd.program("/usr/bin/mcp").through(enter.iter().chain([&root])))
    };
    let version = inside(Cmd::new("version", MCP).arg("--version")).run(SOON);
    assert_eq!(version.lines.concat().trim(), concat!("mcp ", env!("CARGO_PKG_VERSION")));
    fs::create_dir(at("/tmp/got")).expect("directory");
    let source = tmp.file("root/tmp/image.bin", 3 << 20, 1);
    let state = |cmd: Cmd, dir: &str| inside(cmd.env("MCP_STATE_DIR", dir));
    let network = Network::loopback();
    let mut recv = state(network.recv("dev", "/tmp/got"), "/var/lib/mcp").spawn();
    state(network.send("/tmp/image.bin", 1), "/var/lib/mcp-serve").spawn().expect(0, SOON);
    recv.expect(0, SOON);
    assert_only_copy(&source, &at("/tmp/got"));
    assert!(at("/var/lib/mcp").is_dir() && at("/var/lib/mcp-serve").is_dir());

    // An upgrade keeps what the administrator changed.
    let edited = at("/etc/ufw/applications.d/mcp");
    let text = fs::read_to_string(&edited).expect("profile").replace("7417,7418/udp", "7417/udp");
    fs::write(&edited, &text).expect("edit");
    fs::copy(next_version(&deb, &tmp), at("/tmp/next.deb")).expect("copy");
    dpkg("--force-confdef --force-confold -i /tmp/next.deb");
    assert!(dpkg("-s mcp").contains("Version: 99.0-1"));
    assert_eq!(fs::read_to_string(&edited).expect("profile"), text);
    assert!(at("/var/lib/mcp").is_dir());

    // Removal leaves settings and state, and a purge does not.
    dpkg("--remove mcp");
    assert!(!at("/usr/bin/mcp").exists() && edited.is_file() && at("/var/lib/mcp").is_dir());
    dpkg("--purge mcp");
    let left: Vec<_> = paths(&root).difference(&before).cloned().collect();
    assert!(left.iter().all(|path| USERS.contains(&path.as_str())), "{left:?}");
}

#[test]
fn rpm_accepts_the_package() {
    if !have(&["rpmbuild", "rpm"]) {
        return;
    }
    let tmp = TempDir::new();
    let package = package("rpm", &tmp);
    let package = package.display();
    let files = must(&format!("rpm -qpl '{package}'"));
    for path in [
        "/usr/bin/mcp",
        "/usr/lib/systemd/system/mcp-serve.service",
        "/usr/share/man/man1/mcp.1.gz",
        "/usr/share/zsh/site-functions/_mcp",
        "/usr/lib/sysusers.d/mcp.conf",
    ] {
        assert!(files.lines().any(|line| line == path), "{path}: {files}");
    }
    assert_eq!(must(&format!("rpm -qpc '{package}'")), "/etc/ufw/applications.d/mcp");
    assert_eq!(must(&format!("rpm -qp --qf '%{{VERSION}}' '{package}'")), env!("CARGO_PKG_VERSION"));
    // A database of its own, which has none of what a system provides.
    must(&format!("rpm --dbpath '{}' --nodeps --test -i '{package}'", tmp.dir("db").display()));
}

#[test]
fn an_rpm_comes_and_goes() {
    if !have(&["rpmbuild", "rpm", "useradd"]) {
        return;
    }
    if !is_root() {
        return skip("a root of its own needs root");
    }
    let tmp = TempDir::new();
    let (package, layer) = (package("rpm", &tmp), tmp.dir("layer"));
    // A layer over this system, since the scripts of the package need programs. What they write is thrown away with the mount.
    let script = "set -eu; rpm=$1 layer=$2
        mount -t tmpfs none $layer; mkdir $layer/upper $layer/work $layer/root
        mount -t overlay none -o lowerdir=/,upperdir=$layer/upper,workdir=$layer/work $layer/root
        written() { (cd $layer/upper; find usr etc -type f -printf \"%p \"); }
        run() { rpm --root $layer/root --dbpath /db --nodeps \"$@\" 2>$layer/log || { cat $layer/log >&2; exit 1; }; }
        run -i $rpm; written; echo; grep ^mcp-serve: $layer/root/etc/passwd; run -e mcp; written";
    let output =
        must(&format!("unshare --mount sh -c '{script}' sh '{}' '{}'", package.display(), layer.display()));
    let [installed, user, erased] = output.lines().collect::<Vec<_>>()[..] else { panic!("{output}") };
    for path in ["usr/bin/mcp", "usr/lib/systemd/system/mcp-agent.service", "etc/ufw/applications.d/mcp"] {
        assert!(installed.split(' ').any(|name| name == path), "{path}: {installed}");
    }
    assert!(user.contains(":mcp serve:/var/lib/mcp-serve:"), "{user}");
    // Users stay.
    let left: Vec<_> = erased.split(' ').filter(|path| path.contains("mcp")).collect();
    assert!(left.is_empty(), "{left:?}");
}
