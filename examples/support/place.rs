//! A server and devices on this machine, over loopback, each with a directory of its own.

use super::support::{Guard, Result, hash_file, line};
use std::fs::{self, File};
use std::io::{BufRead, BufReader};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// The program, the directory in which the server and each device have theirs, and where the server listens.
pub struct Place {
    mcp: PathBuf,
    dir: PathBuf,
    listen: String,
}

impl Place {
    /// A place in the directory `dir`.
    pub fn new(mcp: PathBuf, dir: &Path) -> Result<Self> {
        let port = TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
        Ok(Self { mcp, dir: dir.to_owned(), listen: format!("127.0.0.1:{port}") })
    }

    /// A command with the state of the server or a device.
    pub fn mcp(&self, words: &[&str], owner: &str) -> Command {
        let mut command = Command::new(&self.mcp);
        command.args(words).env("MCP_STATE_DIR", self.dir.join(owner));
        command
    }

    /// Runs a command that must succeed, and returns what it prints.
    pub fn ask(&self, words: &[&str], owner: &str) -> Result<String> {
        let output = self.mcp(words, owner).stdin(Stdio::null()).output()?;
        if !output.status.success() {
            let why = String::from_utf8_lossy(&output.stderr);
            return Err(format!("mcp {}: {}", words[..2].join(" "), why.trim()).into());
        }
        Ok(String::from_utf8(output.stdout)?)
    }

    /// Starts the server, and returns when it listens.
    pub fn serve(&self, words: &[&str]) -> Result<Guard> {
        let own = ["serve", "--listen", &self.listen, "--poll", "1s", "--interface", "lo"];
        let mut serve = self.mcp(&[&own, words].concat(), "server");
        println!("$ {}", line(&serve));
        let path = self.dir.join("server.log");
        let log = File::options().create(true).append(true).open(&path)?;
        let mut server = Guard(serve.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(log).spawn()?);
        // It prints an enrolment line once it listens.
        let output = server.0.stdout.take().ok_or("the server has no output")?;
        if BufReader::new(output).lines().next().is_none() {
            return Err(format!("the server has ended; see {}", path.display()).into());
        }
        Ok(server)
    }

    /// Makes devices of this number join the fleet; returns their names.
    pub fn join(&self, count: u8) -> Result<Vec<String>> {
        let devices: Vec<String> = (1..=count).map(|n| format!("bench-{n}")).collect();
        for device in &devices {
            let enrolment = self.ask(&["enrol", "new"], "server")?;
            fs::create_dir_all(self.dir.join(device).join("srv"))?;
            self.ask(&["agent", "join", enrolment.trim(), "--id", device], device)?;
        }
        Ok(devices)
    }

    /// Starts the agent of a device, which has a `/srv` of its own.
    pub fn agent(&self, device: &str) -> Result<Guard> {
        let own: &Path = &self.dir.join(device);
        let log = File::create(own.join("agent.log"))?;
        let mut agent = Command::new("unshare");
        agent.args(["--user", "--map-root-user", "--mount", "sh", "-c"]);
        agent
            .arg("mount --bind \"$0\" /srv && exec \"$1\" agent run --interface lo")
            .arg(own.join("srv"))
            .arg(&self.mcp);
        agent.env("MCP_STATE_DIR", own).stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        let started = agent.spawn().map_err(|e| format!("start unshare: {e}; install util-linux"))?;
        Ok(Guard(started))
    }

    /// Adds a copy of `file` to `/srv/images/` of all devices; returns the task's number.
    pub fn copy(&self, file: &Path, words: &[&str]) -> Result<String> {
        let file = file.display().to_string();
        let add = ["task", "add", "copy", &file, "--to", "all", "--at", "/srv/images/"];
        let add = [&add, words].concat();
        println!("$ mcp {}", add.join(" "));
        let task = self.ask(&add, "server")?;
        Ok(task.trim().trim_start_matches("task ").to_owned())
    }

    /// Compares the copies of the devices with `file`.
    pub fn compare(&self, file: &Path, devices: &[String]) -> Result<()> {
        let hash = hash_file(file)?;
        let name = file.file_name().ok_or("the file has no name")?;
        for device in devices {
            if hash_file(&self.dir.join(device).join("srv/images").join(name))? != hash {
                return Err(format!("the copy of {device} differs from the source").into());
            }
            println!("{device}  {hash}  verified");
        }
        Ok(())
    }
}
