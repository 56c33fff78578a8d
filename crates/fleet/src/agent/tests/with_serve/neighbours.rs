//! Devices that serve others, against a real server: what the second device gets from the first, and what becomes of it when the first
//! lies, goes, has it no longer, or may not.

use super::super::super::api::Api;
use super::super::super::state::Identity;
use super::*;
use crate::neighbour::Neighbour;
use std::sync::atomic::{AtomicU64, Ordering};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;

/// 5 blocks and a bit.
fn content() -> Vec<u8> {
    let mut random = fastrand::Rng::with_seed(7);
    (0..(5 << 20) + 77).map(|_| random.u8(..)).collect()
}

/// A way to the server that counts the bytes that the server sends on it.
struct Counted {
    url: String,
    bytes: Arc<AtomicU64>,
}

impl Counted {
    async fn to(server: std::net::SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("https://{}", listener.local_addr().unwrap());
        let bytes = Arc::new(AtomicU64::new(0));
        let counted = Arc::clone(&bytes);
        tokio::spawn(async move {
            while let Ok((near, _)) = listener.accept().await {
                let far = TcpStream::connect(server).await.unwrap();
                let ((mut from_near, mut to_near), (mut from_far, mut to_far)) =
                    (near.into_split(), far.into_split());
                tokio::spawn(async move {
                    let _ = tokio::io::copy(&mut from_near, &mut to_far).await;
                    let _ = to_far.shutdown().await;
                });
                let counted = Arc::clone(&counted);
                tokio::spawn(async move {
                    let mut buffer = vec![0; 1 << 16];
                    while let Ok(n @ 1..) = from_far.read(&mut buffer).await {
                        counted.fetch_add(n as u64, Ordering::Relaxed);
                        if to_near.write_all(&buffer[..n]).await.is_err() {
                            return;
                        }
                    }
                    let _ = to_near.shutdown().await;
                });
            }
        });
        Self { url, bytes }
    }

    fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }
}

/// Two devices of one fleet, and a task for both, of which the first one's agent runs. Both copy to the same place, since the task says where;
/// so what the first one has put there is removed before the second one starts.
struct Two {
    fleet: Fleet,
    task: i64,
    first: Option<Agent>,
    /// The second one's way to the server.
    way: Counted,
}

impl Two {
    /// Waits until the first device has the object.
    async fn new(neighbours: bool, policy: SharePolicy) -> Self {
        let fleet = Fleet::with(|config| {
            (config.poll, config.neighbours) = (Duration::from_secs(1), neighbours);
        })
        .await;
        std::fs::create_dir(fleet.path("srv")).unwrap();
        let way = Counted::to(fleet.running.address).await;
        let mut line = fleet.line(2).await;
        for name in ["one", "two"] {
            let key = device_key(&fleet.path(&format!("ring-{name}"))).unwrap();
            join(&fleet.path(name), &line, name, &key, false).await.unwrap();
            line.url.clone_from(&way.url);
        }
        let first = Some(agent(&fleet, "one", Some(policy)));
        let task = fleet.add_bytes("big.bin", &content(), 1, Terms::default(), |_| ()).await;
        let two = Self { fleet, task, first, way };
        two.ends("one").await;
        std::fs::remove_file(two.fleet.path("srv/big.bin")).unwrap();
        two
    }

    /// The first device's copy for its neighbours.
    fn copy(&self) -> PathBuf {
        let hash = blake3::hash(&content());
        crate::objects::Objects::file_of(&self.fleet.path("one/offered/objects"), &hash)
    }

    /// Waits until the server names the first device to the second one.
    async fn named(&self) -> Neighbour {
        let identity: Identity =
            StateDir::open(&self.fleet.path("two")).unwrap().read("identity.json").unwrap().unwrap();
        let api = Api::new(&identity).unwrap();
        for _ in 0..600 {
            let near = api.neighbours(Hash::of(&content())).await.unwrap();
            if let Some(neighbour) = near.into_iter().next() {
                return neighbour;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        panic!("nobody is named");
    }

    /// Waits until a device has completed the task, and returns what it said of it.
    async fn ends(&self, device: &str) -> Vec<String> {
        for _ in 0..1200 {
            let view: TaskView = self.fleet.remote.get(&format!("/tasks/{}", self.task)).await.unwrap();
            let action = view.actions.unwrap().into_iter().find(|action| action.device == device).unwrap();
            if action.state == ActionState::Finished {
                return self.fleet.running.store().history(action.id, 100).await.unwrap();
            }
            assert_ne!(action.state, ActionState::Failed, "{}", action.message);
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        panic!("{device} does not end");
    }

    /// Runs the second device until it has completed the task. Returns what it said, and the bytes that the server sent it.
    async fn second(&self) -> (String, u64) {
        let before = self.way.bytes();
        let agent = agent(&self.fleet, "two", None);
        let said = self.ends("two").await.join("\n");
        let sent = self.way.bytes() - before;
        agent.stop().await;
        assert!(std::fs::read(self.fleet.path("srv/big.bin")).unwrap() == content());
        (said, sent)
    }

    async fn end(self) {
        if let Some(first) = self.first {
            first.stop().await;
        }
        self.fleet.running.shut_down().await;
    }
}

fn policy() -> SharePolicy {
    let listen = "127.0.0.1:0".parse().unwrap();
    SharePolicy { listen, rate: 1 << 30, space: 1 << 30, keep: Duration::from_secs(HOUR) }
}

/// Runs the agent of a device.
fn agent(fleet: &Fleet, name: &str, share: Option<SharePolicy>) -> Agent {
    let (stop, stopped) = oneshot::channel();
    let destinations = vec![fleet.path("srv")];
    let mut settings = Settings { destinations, share, multicast: false, ..Settings::default() };
    settings.handlers.directory = fleet.path("handlers.d");
    let dir = fleet.path(name);
    let done = tokio::spawn(async move {
        run(&dir, None, settings, async { drop(stopped.await) }).await.map_err(|error| error.to_string())
    });
    Agent { stop, done }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_second_device_loads_from_the_first_and_nobody_without_a_token() {
    let two = Two::new(true, policy()).await;
    let neighbour = two.named().await;
    let (said, sent) = two.second().await;
    assert!(said.contains(&format!("{} bytes from neighbours", content().len())), "{said}");
    assert!(sent < 1 << 20, "{sent} bytes of the server");

    // Whoever has no token, or that of another object, learns nothing.
    let client = reqwest::Client::builder()
        .tls_backend_preconfigured(crate::pin::client_config(neighbour.pin).unwrap())
        .build()
        .unwrap();
    let object = Hash::of(&content());
    let get = async |path: &str, token: Option<&str>| {
        let request = client.get(format!("https://{}{path}", neighbour.address));
        let request = match token {
            Some(token) => request.header("Authorization", format!("NeighbourToken {token}")),
            None => request,
        };
        request.header("Range", "bytes=0-9").send().await.unwrap().status().as_u16()
    };
    let (path, token) = (format!("/mcp/v1/objects/{object}"), neighbour.token.to_string());
    assert_eq!(get(&path, Some(&token)).await, 206);
    assert_eq!(get(&path, None).await, 401);
    assert_eq!(get(&path, Some(&Hash([0; 32]).to_string())).await, 401);
    let other = format!("/mcp/v1/objects/{}", Hash([7; 32]));
    assert_eq!((get(&other, Some(&token)).await, get(&other, None).await), (401, 401));
    for path in ["/mcp/v1/objects/..%2f..%2fidentity.json", "/mcp/v1/objects/", "/", "/identity.json"] {
        let status = get(path, Some(&token)).await;
        assert!(status == 401 || status == 404, "{path}: {status}");
    }
    two.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_neighbour_that_lies_is_dropped_and_told() {
    let two = Two::new(true, policy()).await;
    two.named().await;
    let mut bytes = content();
    bytes[3 << 20] ^= 1;
    std::fs::write(two.copy(), bytes).unwrap();
    let (said, sent) = two.second().await;
    assert!(said.contains("lied: it gives wrong bytes in block 3"), "{said}");
    // The blocks before it are kept.
    assert!(said.contains(&format!("{} bytes from neighbours", 3 << 20)), "{said}");
    assert!((2 << 20..3 << 20).contains(&sent), "{sent}");
    two.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_neighbour_has_no_longer_comes_from_the_server() {
    let two = Two::new(true, policy()).await;
    let neighbour = two.named().await;
    std::fs::remove_file(two.copy()).unwrap();
    let (said, sent) = two.second().await;
    assert!(!said.contains("from neighbours") && sent > 5 << 20, "{said}: {sent}");
    let refused = format!("{} answers with status 404", neighbour.address);
    let named = said.replace(&format!("/mcp/v1/objects/{}", Hash::of(&content())), "");
    // The server may have heard of it meanwhile, and then named nobody.
    assert!(!said.contains("https://") || named.contains(&refused), "{said}");
    two.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_neighbour_that_goes_in_the_middle_costs_only_what_is_left() {
    let slow = SharePolicy { rate: 1 << 20, ..policy() };
    let mut two = Two::new(true, slow).await;
    two.named().await;
    let before = two.way.bytes();
    let second = agent(&two.fleet, "two", None);
    let (bytes, third) = (content(), (2 << 20) + 1000);
    let part = || {
        let files = std::fs::read_dir(two.fleet.path("srv")).unwrap().flatten();
        files.map(|file| std::fs::read(file.path()).unwrap()).any(|part| part.get(third) == bytes.get(third))
    };
    assert_ne!(bytes[third], 0);
    while !part() {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    two.first.take().unwrap().stop().await;
    let said = two.ends("two").await.join("\n");
    let sent = two.way.bytes() - before;
    second.stop().await;
    assert!(std::fs::read(two.fleet.path("srv/big.bin")).unwrap() == content());
    assert!(said.contains("bytes from neighbours"), "{said}");
    assert!(sent < 4 << 20, "{sent} bytes of the server");
    two.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slow_neighbour_is_left_for_the_server() {
    let two = Two::new(true, SharePolicy { rate: 100_000, ..policy() }).await;
    let neighbour = two.named().await;
    let (said, sent) = two.second().await;
    assert!(said.contains(&neighbour.address.to_string()), "{said}");
    assert!(said.contains("is slower than 200000 bytes per second"), "{said}");
    assert!(sent > 4 << 20, "{sent} bytes of the server");
    two.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_does_not_allow_it_names_nobody_and_nothing_is_kept() {
    let two = Two::new(false, policy()).await;
    let (said, sent) = two.second().await;
    assert!(!said.contains("from neighbours") && sent > 5 << 20, "{said}: {sent}");
    assert!(!two.copy().exists());
    two.end().await;
}
