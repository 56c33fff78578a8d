//! Loads from servers of every kind of badness. Whatever they do, the part file ends with the right bytes, or the load says why not.

use super::super::testing::{Request, Server, good, send};
use super::blocks::list_of;
use super::*;
use crate::agent::net::NetError;
use crate::server::{listen, tls};
use axum::Router;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock};
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;

const PACE: Pace =
    Pace { stall: Duration::from_millis(700), window: Duration::from_millis(300), least: 10_000 };

impl Server {
    /// Serves `bytes` at every path, with ranges, as a good server does.
    async fn of(bytes: Vec<u8>) -> Self {
        let bytes = Arc::new(bytes);
        Self::start(move |request, stream| good(request, stream, Arc::clone(&bytes))).await
    }

    /// Answers every request by this head and body.
    async fn saying(head: &str, body: Vec<u8>) -> Self {
        let (head, body) = (head.to_owned(), Arc::new(body));
        Self::start(move |_, stream| {
            let (head, body) = (head.clone(), Arc::clone(&body));
            async move { send(stream, &head, &body).await }
        })
        .await
    }
}

fn content(seed: u64, len: usize) -> Vec<u8> {
    let mut random = fastrand::Rng::with_seed(seed);
    (0..len).map(|_| random.u8(..)).collect()
}

/// 3 blocks and a bit. Made once: a server that takes long to make it is a slow one.
fn object() -> Vec<u8> {
    static OBJECT: OnceLock<Vec<u8>> = OnceLock::new();
    OBJECT.get_or_init(|| content(1, 3 * BLOCK as usize + 1234)).clone()
}

struct Bed {
    net: Net,
    dir: tempfile::TempDir,
    values: Server,
}

impl Bed {
    async fn new() -> Self {
        let values = Server::of(list_of(&object())).await;
        let net = Net::new(values.url.parse().unwrap(), None, Some("TargetToken secret".parse().unwrap()));
        Self { net: net.unwrap(), dir: tempfile::tempdir().unwrap(), values }
    }

    fn part(&self) -> File {
        let path = self.dir.path().join("part");
        File::options().read(true).write(true).create(true).truncate(false).open(path).unwrap()
    }

    fn kept(&self) -> Vec<u8> {
        std::fs::read(self.dir.path().join("part")).unwrap()
    }

    fn wanted(&self, sources: &[&str]) -> Wanted {
        let bytes = object();
        Wanted {
            size: bytes.len() as u64,
            digests: Digests { blake3: Some(Hash::of(&bytes)), ..Digests::default() },
            sources: sources.iter().map(|url| format!("{url}/object").parse().unwrap()).collect(),
            values: vec![format!("{}/values", self.values.url).parse().unwrap()],
            near: None,
            pace: PACE,
        }
    }

    async fn fetch(&self, wanted: &Wanted) -> Result<Report, FetchError> {
        let load = fetch(&self.net, wanted, self.part(), None, |_| ());
        tokio::time::timeout(Duration::from_secs(30), load).await.expect("it ends")
    }

    /// Loads from `bad`, then from a good server, by blocks and as a whole. Returns the report by blocks.
    async fn after(&self, bad: &Server) -> Report {
        let server = Server::of(object()).await;
        let mut wanted = self.wanted(&[&bad.url, &server.url]);
        let report = self.fetch(&wanted).await.unwrap();
        assert!(self.kept() == object());
        self.part().set_len(0).unwrap();
        wanted.values = Vec::new();
        wanted.digests.sha256 = Some(Hash(<sha2::Sha256 as sha2::Digest>::digest(object()).into()));
        self.fetch(&wanted).await.unwrap();
        assert!(self.kept() == object());
        report
    }
}

fn problem(report: &Report) -> &Problem {
    report.sources[0].problem.as_ref().expect("a problem of the bad source")
}

#[tokio::test]
async fn loads_from_the_first_source_that_works() {
    let bed = Bed::new().await;
    let (a, b) = (Server::of(object()).await, Server::of(object()).await);
    let report = bed.fetch(&bed.wanted(&[&a.url, &b.url])).await.unwrap();
    assert!(bed.kept() == object());
    assert_eq!((report.sources[0].bytes, b.requests().len()), (object().len() as u64, 0));
    assert_eq!(report.details(), Vec::<String>::new());
    // The token goes to the server of the device, and to nobody else.
    assert!(!a.requests()[0].headers.contains_key("authorization"));
    assert_eq!(bed.values.requests()[0].headers["authorization"], "TargetToken secret");
}

#[tokio::test]
async fn objects_of_no_byte_and_of_one_block() {
    let bed = Bed::new().await;
    for bytes in [Vec::new(), vec![7], content(2, BLOCK as usize)] {
        let server = Server::of(bytes.clone()).await;
        let mut wanted = bed.wanted(&[&server.url]);
        (wanted.size, wanted.values) = (bytes.len() as u64, Vec::new());
        wanted.digests.blake3 = Some(Hash::of(&bytes));
        bed.fetch(&wanted).await.unwrap();
        assert!(bed.kept() == bytes);
    }
}

#[tokio::test]
async fn goes_on_at_the_block_after_a_break_and_after_a_restart() {
    let bed = Bed::new().await;
    // Ends each answer after one block and a half.
    let breaking = Server::start(|request: Request, mut stream: TcpStream| async move {
        let bytes = object();
        let (first, last) = request.range().unwrap_or((0, bytes.len() - 1));
        let status = if request.range().is_some() { "206 P" } else { "200 OK" };
        let head = format!(
            "HTTP/1.1 {status}\r\nContent-Range: bytes {first}-{last}/{}\r\nContent-Length: {}\r\n\r\n",
            bytes.len(),
            last + 1 - first
        );
        let _ = stream.write_all(head.as_bytes()).await;
        let end = (first + BLOCK as usize * 3 / 2).min(last + 1);
        let _ = stream.write_all(&bytes[first..end]).await;
    })
    .await;
    let report = bed.fetch(&bed.wanted(&[&breaking.url])).await.unwrap();
    assert!(bed.kept() == object());
    let starts: Vec<_> =
        breaking.requests().iter().map(|request| request.range().map_or(0, |range| range.0)).collect();
    assert_eq!(starts, (0..3).map(|block| block << 20).collect::<Vec<_>>());
    assert_eq!(report.sources[0].bytes, object().len() as u64);

    // A restart: two blocks of the part file are right, one is not, and one is missing.
    let part = bed.part();
    part.write_all_at(&[0; 100], BLOCK + 17).unwrap();
    part.set_len(3 * BLOCK).unwrap();
    let server = Server::of(object()).await;
    let report = bed.fetch(&bed.wanted(&[&server.url])).await.unwrap();
    assert!(bed.kept() == object());
    assert_eq!((report.resumed, report.sources[0].bytes), (2 * BLOCK, BLOCK + 1234));
    let ranges: Vec<_> = server.requests().iter().filter_map(Request::range).collect();
    let (block, end) = (BLOCK as usize, object().len() - 1);
    assert_eq!(ranges, [(block, 2 * block - 1), (3 * block, end)]);
}

#[tokio::test]
async fn takes_blocks_of_an_earlier_version() {
    let bed = Bed::new().await;
    let mut old = object();
    old[BLOCK as usize + 5] ^= 1;
    let path = bed.dir.path().join("old");
    std::fs::write(&path, &old).unwrap();
    let server = Server::of(object()).await;
    let wanted = bed.wanted(&[&server.url]);
    let earlier = File::open(&path).unwrap();
    let report = fetch(&bed.net, &wanted, bed.part(), Some(earlier), |_| ()).await.unwrap();
    assert!(bed.kept() == object());
    assert_eq!((report.reused, report.sources[0].bytes), (2 * BLOCK + 1234, BLOCK));
    assert_eq!(std::fs::read(&path).unwrap(), old, "the earlier version is left alone");
}

#[tokio::test]
async fn a_mirror_with_wrong_bytes_is_named_and_left() {
    let bed = Bed::new().await;
    let mut wrong = object();
    wrong[2 * BLOCK as usize] ^= 1;
    let bad = Server::of(wrong).await;
    let report = bed.after(&bad).await;
    assert_eq!(problem(&report), &Problem::Wrong(2));
    assert_eq!(report.sources.iter().map(|s| s.bytes).collect::<Vec<_>>(), [2 * BLOCK, BLOCK + 1234]);
    assert_eq!(report.details(), [format!("{}/object lied: it gives wrong bytes in block 2", bad.url)]);
}

#[tokio::test]
async fn only_liars() {
    let bed = Bed::new().await;
    let bad = Server::of(content(3, object().len())).await;
    let mut wanted = bed.wanted(&[&bad.url]);
    assert!(matches!(bed.fetch(&wanted).await, Err(FetchError::NoSource(_))));
    assert!(bed.kept().iter().all(|byte| *byte == 0), "nothing wrong is kept");
    wanted.values = Vec::new();
    bed.part().set_len(0).unwrap();
    let Err(FetchError::NoSource(report)) = bed.fetch(&wanted).await else { panic!("it is wrong") };
    assert_eq!((problem(&report), bed.kept().len()), (&Problem::WrongWhole, 0));
    // Values that do not merge to the signed hash are as good as none.
    let lying = Server::of(list_of(&content(3, object().len()))).await;
    wanted.values = vec![lying.url.parse().unwrap()];
    assert!(matches!(bed.fetch(&wanted).await, Err(FetchError::NoSource(_))));
}

#[tokio::test]
async fn whole_answers_to_ranges_are_used() {
    let bed = Bed::new().await;
    let head = format!("200 OK\r\nContent-Length: {}", object().len());
    let server = Server::saying(&head, object()).await;
    bed.part().write_all_at(&object()[..BLOCK as usize], 0).unwrap();
    let report = bed.fetch(&bed.wanted(&[&server.url])).await.unwrap();
    assert!(bed.kept() == object());
    assert_eq!((report.resumed, server.requests().len()), (BLOCK, 1));
}

#[tokio::test]
async fn lying_answers() {
    let bed = Bed::new().await;
    let size = object().len();
    let all = format!("Content-Length: {size}");
    for (head, want) in [
        (format!("206 P\r\nContent-Range: bytes 0-{}/{size}\r\n{all}", size - 1), Problem::Range),
        (format!("206 P\r\n{all}"), Problem::Range),
        (format!("206 P\r\nContent-Range: bytes 5-9/{size}\r\nContent-Length: 5"), Problem::Range),
        (
            format!("206 P\r\nContent-Range: bytes {BLOCK}-{}/{}\r\n{all}", size - 1, size + 1),
            Problem::Size(size as u64 + 1),
        ),
        (format!("200 OK\r\nContent-Length: {}", size - 1), Problem::Size(size as u64 - 1)),
        (format!("200 OK\r\nContent-Encoding: gzip\r\n{all}"), Problem::Coding),
        ("404 Not Found".to_owned(), Problem::Status(404)),
        ("500 Oops".to_owned(), Problem::Status(500)),
        ("204 No Content".to_owned(), Problem::Status(204)),
    ] {
        // The first block is there, so a range is asked for.
        bed.part().set_len(0).unwrap();
        bed.part().write_all_at(&object()[..BLOCK as usize], 0).unwrap();
        let bad = Server::saying(&head, object()).await;
        let server = Server::of(object()).await;
        let report = bed.fetch(&bed.wanted(&[&bad.url, &server.url])).await.unwrap();
        assert!(bed.kept() == object());
        assert_eq!((problem(&report), report.sources[0].bytes), (&want, 0), "{head}");
    }
}

#[tokio::test]
async fn endless_bodies_are_read_no_further_than_signed() {
    let bed = Bed::new().await;
    let sent = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&sent);
    let endless = Server::start(move |_, mut stream: TcpStream| {
        let counted = Arc::clone(&counted);
        async move {
            let _ = stream.write_all(b"HTTP/1.1 200 OK\r\n\r\n").await;
            let mut piece = object();
            while stream.write_all(&piece).await.is_ok() {
                counted.fetch_add(piece.len(), Ordering::Relaxed);
                piece = vec![0; 1 << 16];
            }
        }
    })
    .await;
    bed.fetch(&bed.wanted(&[&endless.url])).await.unwrap();
    assert!(bed.kept() == object());
    tokio::time::sleep(Duration::from_millis(300)).await;
    // What was in flight fits the sockets' buffers.
    assert!(sent.load(Ordering::Relaxed) < object().len() + (16 << 20));
}

#[tokio::test]
async fn one_byte_a_second_and_silence() {
    let bed = Bed::new().await;
    let drip = Server::start(|_, mut stream: TcpStream| async move {
        let _ = stream
            .write_all(format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", object().len()).as_bytes())
            .await;
        for byte in object() {
            if stream.write_all(&[byte]).await.is_err() {
                return;
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    })
    .await;
    assert_eq!(problem(&bed.after(&drip).await), &Problem::Slow(10_000));
    bed.part().set_len(0).unwrap();
    let silent = Server::start(|_, stream: TcpStream| async move {
        tokio::time::sleep(Duration::from_secs(60)).await;
        drop(stream);
    })
    .await;
    assert!(matches!(problem(&bed.after(&silent).await), Problem::Net(_)));
}

#[tokio::test]
async fn redirects_are_followed_without_the_token_and_not_in_circles() {
    let bed = Bed::new().await;
    let circle = Server::saying("302 Found\r\nLocation: /again", Vec::new()).await;
    let report = bed.after(&circle).await;
    assert!(!problem(&report).is_lie());
    assert_eq!(report.sources[0].problem, Some(Problem::Net(super::super::net::NetError::Redirects)));
    bed.part().set_len(0).unwrap();
    for target in ["file:///etc/passwd", "ftp://127.0.0.1/x", "//"] {
        let bad = Server::saying(&format!("302 Found\r\nLocation: {target}"), Vec::new()).await;
        let report = bed.after(&bad).await;
        assert_eq!(report.sources[0].problem, Some(Problem::Net(super::super::net::NetError::Redirects)));
        bed.part().set_len(0).unwrap();
    }

    // The device's own server sends it elsewhere: the token stays behind.
    let elsewhere = Server::of(object()).await;
    let own = Server::saying(&format!("307 T\r\nLocation: {}/there", elsewhere.url), Vec::new()).await;
    let net = Net::new(own.url.parse().unwrap(), None, Some("TargetToken secret".parse().unwrap())).unwrap();
    fetch(&net, &bed.wanted(&[&own.url]), bed.part(), None, |_| ()).await.unwrap();
    assert!(bed.kept() == object());
    assert!(own.requests()[0].headers.contains_key("authorization"));
    assert_eq!(elsewhere.requests()[0].path, "/there");
    assert!(elsewhere.requests().iter().all(|request| !request.headers.contains_key("authorization")));
}

#[tokio::test]
async fn retry_after_is_obeyed() {
    let bed = Bed::new().await;
    let turns = Arc::new(Mutex::new(vec![Instant::now()]));
    let (log, bytes) = (Arc::clone(&turns), Arc::new(object()));
    let busy = Server::start(move |request, stream| {
        let (log, bytes) = (Arc::clone(&log), Arc::clone(&bytes));
        async move {
            let first = {
                let mut log = log.lock().unwrap();
                log.push(Instant::now());
                log.len() == 2
            };
            match first {
                true => send(stream, "503 Busy\r\nRetry-After: 2\r\nContent-Length: 0", b"").await,
                false => good(request, stream, bytes).await,
            }
        }
    })
    .await;
    let report = bed.fetch(&bed.wanted(&[&busy.url])).await.unwrap();
    assert_eq!(problem(&report), &Problem::Later(Duration::from_secs(2)));
    let turns = turns.lock().unwrap();
    let pause = turns[2] - turns[1];
    assert!(pause >= Duration::from_millis(1500), "{pause:?}");
}

#[tokio::test]
async fn a_server_without_tls_or_with_another_key_is_passed_over() {
    let bed = Bed::new().await;
    // Speaks no TLS at all.
    let plain = Server::of(object()).await;
    let https = plain.url.replace("http:", "https:");
    let server = Server::of(object()).await;
    let report = bed.fetch(&bed.wanted(&[&https, &server.url])).await.unwrap();
    assert!(bed.kept() == object());
    assert!(matches!(problem(&report), Problem::Net(_)), "{report:?}");
    // The right bytes, from one whose certificate nobody vouches for.
    let router = Router::new().fallback(async || object());
    let tls = tls::server_tls(bed.dir.path(), &["127.0.0.1".to_owned()], None).unwrap();
    let listener = listen::bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let stranger = format!("https://{}", listener.local_addr().unwrap());
    let (_stop, stopped) = tokio::sync::watch::channel(false);
    let acceptor = Some(tokio_rustls::TlsAcceptor::from(tls.config));
    tokio::spawn(listen::serve(listener, acceptor, router, listen::Bounds::default(), stopped));
    bed.part().set_len(0).unwrap();
    let before = server.requests().len();
    let report = bed.fetch(&bed.wanted(&[&stranger, &server.url])).await.unwrap();
    assert!(bed.kept() == object() && server.requests().len() > before);
    assert!(matches!(problem(&report), Problem::Net(NetError::Tls(_))), "{report:?}");
    assert_eq!(report.sources[0].bytes, 0);
    assert!(report.details()[0].contains("TLS failed"), "{:?}", report.details());
}
