//! Secrets of a fleet stay where they belong: not in what anything prints, not in a URL, not in the list of processes. A
//! server, its operators, an agent and clients of the device interface run with real processes, and a proxy of the test,
//! which has the server's key, records what is asked over TLS.

mod support;

use mcp_fleet::documents::Enrolment;
use serde_json::Value;
use std::cell::RefCell;
use std::collections::BTreeSet;
use std::fs;
use std::net::TcpListener;
use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use support::fleet::{Fleet, SOON, id, json, wait_for};
use support::mcp::MCP;
use support::process::{Cmd, End};
use support::{StopOnDrop, alone, has_program, skip};

/// Ends TLS with the certificate and key of the server, and records what clients say: a file for each connection. The
/// server hears that the request came by TLS.
const PROXY: &str = r#"
import itertools, socket, ssl, sys, threading
cert, key, listen, server, record = sys.argv[1:]
context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
context.load_cert_chain(cert, key)
numbers = itertools.count()
def pump(source, sink, change):
    try:
        while piece := source.recv(65536):
            sink.sendall(change(piece))
    except OSError:
        pass
    for one in (source, sink):
        try:
            one.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass
def serve(connection, number):
    try:
        client = context.wrap_socket(connection, server_side=True)
    except OSError:
        return
    upstream = socket.create_connection(("127.0.0.1", int(server)))
    file = open(f"{record}/{number}", "wb", buffering=0)
    def note(piece):
        file.write(piece)
        return piece.replace(b" HTTP/1.1\r\n", b" HTTP/1.1\r\nX-Forwarded-Proto: https\r\n")
    threading.Thread(target=pump, args=(upstream, client, lambda piece: piece), daemon=True).start()
    pump(client, upstream, note)
with socket.create_server(("127.0.0.1", int(listen))) as listener:
    print("listening", flush=True)
    while True:
        connection, _ = listener.accept()
        threading.Thread(target=serve, args=(connection, next(numbers)), daemon=True).start()
"#;

fn port() -> u16 {
    TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr()).expect("a port").port()
}

fn text(path: &Path) -> &str {
    path.to_str().expect("UTF-8")
}

/// Notes the command lines of all processes, until it is told to stop.
fn note_processes(stop: &AtomicBool, noted: &Mutex<BTreeSet<String>>) {
    while !stop.load(Ordering::Relaxed) {
        for entry in fs::read_dir("/proc").expect("processes").flatten() {
            let line = fs::read(entry.path().join("cmdline")).unwrap_or_default();
            let line = String::from_utf8_lossy(&line).replace('\0', " ");
            noted.lock().expect("not poisoned").insert(line);
        }
    }
}

/// The secrets that lie in files below `dir`: whole lines that are keys.
fn keys(dir: &Path) -> Vec<String> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        let path = entry.path();
        if path.is_dir() {
            found.extend(keys(&path));
        } else if path.extension().is_some_and(|end| end == "key") || path.ends_with("device") {
            let lines = fs::read_to_string(&path).unwrap_or_default();
            let lines = lines.lines().filter(|line| line.len() >= 32 && !line.starts_with("-----"));
            found.extend(lines.map(str::to_owned));
        }
    }
    found
}

#[test]
fn no_secret_is_in_a_log_a_url_or_the_list_of_processes() {
    let _cores = alone();
    if !has_program("python3") {
        return skip("the proxy that records needs python3");
    }
    let Some((fleet, mut server)) = Fleet::start() else { return };
    let said: RefCell<Vec<(String, End)>> = RefCell::default();
    let (stop, noted) = (AtomicBool::new(false), Mutex::new(BTreeSet::new()));
    let mut secrets: Vec<(&str, String)> = Vec::new();
    let record = fleet.tmp.dir("record");
    thread::scope(|scope| {
        let _stop = StopOnDrop(&stop);
        scope.spawn(|| note_processes(&stop, &noted));
        // The lines name this address. From now on it is the proxy's.
        let address: Value =
            serde_json::from_slice(&fs::read(fleet.tmp.join("server/serve/address.json")).expect("read"))
                .expect("JSON");
        let url = address["url"].as_str().expect("a URL").to_owned();
        server.signal("TERM");
        said.borrow_mut().push(("the first server".into(), server.expect(0, SOON)));
        let (plain, tls) = (port(), port());
        let [to, plain, tls] =
            [url.rsplit(':').next().expect("a port"), &plain.to_string(), &tls.to_string()];
        let (listen, listen_plain) = (format!("127.0.0.1:{tls}"), format!("127.0.0.1:{plain}"));
        let words = ["serve", "--listen", &listen, "--listen-plain", &listen_plain, "--poll", "1s"];
        let server =
            Cmd::new("server", MCP).args(words).args(["--trust-proxy", "127.0.0.1", "--no-multicast"]);
        let mut server =
            server.env("MCP_STATE_DIR", fleet.tmp.dir("server")).env("RUST_LOG", "trace").spawn();
        let printed = server.next_line(SOON);
        secrets.push(("the printed token", printed.parse::<Enrolment>().expect("a line").token.to_string()));
        secrets.push(("the printed line", printed.clone()));
        let dir = fleet.tmp.join("server/serve");
        let files = [dir.join("tls.crt"), dir.join("tls.key")];
        let proxy = Cmd::new("proxy", "python3").args(["-c", PROXY, text(&files[0]), text(&files[1])]);
        let mut proxy = proxy.args([to, plain, text(&record)]).spawn();
        proxy.next_line(SOON);

        // An operator, through the proxy.
        let operate = |words: &[&str]| {
            let cmd = fleet.command(words).args(["--url", &url]).env("RUST_LOG", "trace");
            let end = cmd.spawn().expect(0, SOON);
            said.borrow_mut().push((words.join(" "), End { lines: Vec::new(), ..end.clone() }));
            end
        };
        let line = operate(&["enrol", "new"]).lines.concat();
        // The line names the server's own port, and this device has to come through the proxy.
        let mut parsed: Enrolment = line.parse().expect("a line");
        secrets.push(("an enrolment token", parsed.token.to_string()));
        parsed.url.clone_from(&url);
        let line = parsed.line().expect("a line");
        secrets.push(("an enrolment line", line.to_string()));
        let gateway = operate(&["enrol", "new", "--gateway"]).lines.concat();
        secrets.push(("a gateway token", gateway.clone()));
        let own = operate(&["device", "accept", "shop-1", "--token"]).lines.concat();
        let own = own.strip_prefix("shop-1 ").expect("a token").to_owned();
        secrets.push(("a target token", own.clone()));

        // A device that joins by its standard input, and clients with their tokens in files.
        let device = fleet.machine("bench-1");
        fs::write(device.dir.join("line"), line.as_bytes()).expect("write");
        let join = device.mcp(&["join", "--id", "bench-1"]).env("RUST_LOG", "trace");
        let join = join.through(["sh", "-c", "exec \"$@\" <\"$0\"", text(&device.dir.join("line"))]);
        said.borrow_mut().push(("join".into(), join.spawn().expect(0, SOON)));
        let mut agents = vec![device.running(&[]).env("RUST_LOG", "trace").spawn()];
        for (name, token, words) in [("shop-1", &own, &[][..]), ("shop-2", &gateway, &["--gateway-token"])] {
            let client = fleet.machine(name);
            let (file, to) = (client.dir.join("token"), format!("http://127.0.0.1:{plain}"));
            fs::write(&file, token).expect("write");
            let words =
                [&["run", "--server", &to, "--id", name, "--token-file", text(&file)], words].concat();
            agents.push(client.mcp(&words).env("RUST_LOG", "trace").spawn());
        }
        let file = fleet.tmp.file("image.iso", 3_000_000, 1);
        let task = operate(&["task", "add", "copy", text(&file), "--to", "all", "--at", "/srv/"]);
        let task = id(&task).to_string();
        let mut watch = fleet.command(&["task", "show", &task, "--watch"]).args(["--url", &url]).spawn();
        // Clients that have joined no fleet refuse it.
        said.borrow_mut().push(("watch".into(), watch.expect(3, SOON * 2)));
        wait_for("clients", || {
            let list = json(&fleet.operate(&["device", "list", "--json"]));
            list.as_array().expect("devices").len() == 3
        });
        let show = |words: &[&str]| {
            let end =
                fleet.command(words).args(["--url", &url]).env("RUST_LOG", "trace").spawn().expect(0, SOON);
            said.borrow_mut().push((words.join(" "), end));
        };
        for words in
            [&["task", "show", &task][..], &["task", "list"], &["device", "list"], &["enrol", "list"]]
        {
            show(words);
            show(&[words, &["--json"]].concat());
        }
        for words in [&["device", "show", "bench-1", "--json"][..], &["operator", "list", "--json"]] {
            show(words);
        }
        show(&["operator", "audit", "--json"]);
        let status = device.mcp(&["status", "--json"]).spawn().expect(0, SOON);
        said.borrow_mut().push(("status".into(), status));

        let identity: Value =
            serde_json::from_slice(&fs::read(device.state("identity.json")).expect("read")).expect("JSON");
        let token = identity["authorization"].as_str().expect("a token");
        secrets.push(("the device's token", token.rsplit(' ').next().expect("a token").to_owned()));
        secrets.extend(keys(fleet.tmp.path()).into_iter().map(|key| ("a key", key)));
        for mut agent in agents {
            agent.signal("TERM");
            said.borrow_mut().push(("an agent".into(), agent.expect(0, SOON)));
        }
        server.signal("TERM");
        let end = server.expect(0, SOON);
        assert_eq!(end.lines, [printed], "the line that it is to print, and no more");
        said.borrow_mut().push(("the server".into(), End { lines: Vec::new(), ..end }));
    });

    // The first server, and how it was seen, has its line to print too.
    let mut said = said.into_inner();
    said[0].1.lines.clear();
    let keys = secrets.iter().filter(|(what, _)| *what == "a key").count();
    assert!(
        keys >= 5,
        "the operator's, the root's, the lists', that of the certificate and the device's: {keys}"
    );
    assert!(secrets.iter().all(|(_, secret)| secret.len() >= 32), "{secrets:?}");
    let recorded: Vec<String> = fs::read_dir(&record)
        .expect("records")
        .map(|entry| {
            String::from_utf8_lossy(&fs::read(entry.expect("an entry").path()).expect("read")).into_owned()
        })
        .collect();
    let urls: Vec<&str> =
        recorded.iter().flat_map(|all| all.lines()).filter(|l| l.ends_with(" HTTP/1.1")).collect();
    for part in ["/enrol", "/controller/v1/bench-1", "/mcp/v1/manage/tasks", "/list?nonce="] {
        assert!(urls.iter().any(|line| line.contains(part)), "nobody asked for {part}: {urls:#?}");
    }
    let processes = noted.into_inner().expect("not poisoned");
    assert!(processes.iter().any(|line| line.contains("agent run")), "they were looked at");
    for (what, secret) in &secrets {
        for (whose, end) in &said {
            let printed = end.lines.iter().map(String::as_str).chain([&*end.stderr]);
            assert!(
                !printed.into_iter().any(|text| text.contains(secret)),
                "{what} is printed by {whose}: {end:?}"
            );
        }
        assert!(!urls.iter().any(|line| line.contains(secret)), "{what} is in a URL");
        assert!(!processes.iter().any(|line| line.contains(secret)), "{what} is in the list of processes");
    }
    // They were used all the same: who sent them did so where nobody writes it down.
    for used in ["an enrolment token", "the device's token"] {
        let secret = secrets.iter().find(|(what, _)| *what == used).map(|(_, secret)| secret).expect(used);
        assert!(recorded.iter().any(|all| all.contains(secret)), "{used} is in no request");
    }
}

#[test]
fn the_journal_gets_no_enrolment_line() {
    let _cores = alone();
    let Some(fleet) = Fleet::new() else { return };
    // As the service manager says that what is printed goes there.
    let script = "exec 3>&1; JOURNAL_STREAM=$(stat -L -c %d:%i /proc/$$/fd/3) exec \"$0\" \"$@\"";
    let mut server = fleet.serving().through(["sh", "-c", script]).spawn();
    wait_for("server", || fleet.command(&["enrol", "list"]).run(SOON).code == Some(0));
    assert_eq!(fleet.operate(&["enrol", "list"]).lines.len(), 1, "there is no line that nobody knows");
    server.signal("TERM");
    let end = server.expect(0, SOON);
    assert_eq!(end.lines, [""; 0]);
    assert!(end.stderr.contains("'mcp enrol new' prints a line"), "{end:?}");
    // Nor does a line that was printed elsewhere count as one.
    let mut server = fleet.serving().env("JOURNAL_STREAM", "1:2").spawn();
    server.next_line(SOON).parse::<Enrolment>().expect("a line");
}
