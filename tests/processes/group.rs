//! The processes of a group: they are started, killed, stopped, continued; their directories are wiped,
//! and their disks are full.

use std::fs::{self, File};
use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::mpsc::channel;
use std::thread;
use std::time::Duration;

use rustix::process::{Pid, Resource, Rlimit, Signal, kill_process, prlimit};
use tempfile::TempDir;

use crate::arena::{Address, Arena};
use crate::client::Client;
use crate::common::{CHILD_DIR, temp_dir};
use crate::history::Run;
use crate::links::Links;
use crate::member::{CALLED, FAULT, FULL, LINKS, NAME, NODE, TIMEOUT};

/// Bounds every wait of a test that fails.
pub(crate) const PATIENCE: Duration = Duration::from_secs(180);
pub(crate) const STEP: Duration = Duration::from_millis(20);

struct Process {
    child: Child,
    is_stopped: bool,
    is_full: bool,
}

/// What a member says of itself.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Status {
    pub(crate) role: String,
    pub(crate) epoch: u32,
    /// Counted from 1; 0: it knows of none.
    pub(crate) leader: usize,
    pub(crate) may_write: bool,
    /// `node:state`.
    pub(crate) members: Vec<String>,
    pub(crate) failure: String,
}

pub(crate) struct Group {
    pub(crate) arena: Arc<Arena>,
    pub(crate) links: Links,
    home: TempDir,
    timeout: Duration,
    fault: Option<&'static str>,
    /// Whether nobody is elected.
    is_called: bool,
    processes: Vec<Option<Process>>,
    runs: u64,
    /// Members of which the disk was full in this run: they may fail.
    may_fail: Vec<bool>,
    /// What a member said that it must not say.
    pub(crate) strange: Vec<String>,
}

impl Group {
    /// All members run.
    pub(crate) fn new(
        members: usize,
        timeout: Duration,
        seed: u64,
        fault: Option<&'static str>,
    ) -> Self {
        let mut group = Self::without_members(members, timeout, seed, fault);
        group.start_all();
        group
    }

    /// All members run. They lead when they are called to.
    pub(crate) fn without_elector(members: usize, timeout: Duration, seed: u64) -> Self {
        let mut group = Self::without_members(members, timeout, seed, None);
        group.is_called = true;
        group.start_all();
        group
    }

    fn start_all(&mut self) {
        self.members().for_each(|member| self.start(member));
    }

    fn without_members(
        members: usize,
        timeout: Duration,
        seed: u64,
        fault: Option<&'static str>,
    ) -> Self {
        let arena = Arc::new(Arena::new(members));
        let links = Links::new(&arena, seed);
        let processes = (0..members).map(|_| None).collect();
        Self {
            arena,
            links,
            home: temp_dir(),
            timeout,
            fault,
            is_called: false,
            processes,
            runs: 0,
            may_fail: vec![false; members],
            strange: Vec::new(),
        }
    }

    pub(crate) fn members(&self) -> std::ops::Range<usize> {
        0..self.processes.len()
    }

    fn dir(&self, member: usize) -> PathBuf {
        self.home.path().join(format!("member-{}", member + 1))
    }

    fn said(&self, member: usize) -> PathBuf {
        self.home.path().join(format!("said-{}", member + 1))
    }

    /// Starts a member that does not run.
    pub(crate) fn start(&mut self, member: usize) {
        assert!(self.processes[member].is_none());
        self.runs += 1;
        let mut child = self.command(member).spawn().unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap());
        let (sender, ports) = channel();
        thread::spawn(move || {
            for line in lines.lines().map_while(Result::ok) {
                if let Some(ports) = line.strip_prefix("@ports ") {
                    let _ = sender.send(ports.to_owned());
                }
            }
        });
        let Ok(ports) = ports.recv_timeout(PATIENCE) else {
            let _ = child.kill();
            let said = fs::read_to_string(self.said(member)).unwrap_or_default();
            panic!("member {} did not open: {said}", member + 1);
        };
        let mut ports = ports
            .split(' ')
            .map(|port| SocketAddr::from(([127, 0, 0, 1], port.parse::<u16>().unwrap())));
        let (frames, clients) = (ports.next().unwrap(), ports.next().unwrap());
        let run = Run { member, run: self.runs };
        self.may_fail[member] = false;
        self.processes[member] = Some(Process { child, is_stopped: false, is_full: false });
        self.arena.set_address(member, Some(Address { run, frames, clients }));
    }

    /// The shell has the process ignore SIGXFSZ, as the documentation asks for.
    fn command(&self, member: usize) -> Command {
        let said = File::options().append(true).create(true).open(self.said(member)).unwrap();
        let links: Vec<_> =
            self.links.addresses(member).iter().map(SocketAddr::to_string).collect();
        let mut command = Command::new("sh");
        command
            .args(["-c", "trap '' XFSZ; exec \"$0\" \"$@\""])
            .arg(std::env::current_exe().unwrap())
            .args(["--exact", NAME, "--nocapture", "--test-threads=1"])
            .env(CHILD_DIR, self.dir(member))
            .env(NODE, (member + 1).to_string())
            .env(LINKS, links.join(","))
            .env(TIMEOUT, self.timeout.as_millis().to_string())
            .env(FAULT, self.fault.unwrap_or_default())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(said);
        if self.is_called {
            command.env(CALLED, "1");
        }
        command
    }

    pub(crate) fn is_running(&self, member: usize) -> bool {
        self.processes[member].is_some()
    }

    pub(crate) fn is_stopped(&self, member: usize) -> bool {
        self.processes[member].as_ref().is_some_and(|it| it.is_stopped)
    }

    pub(crate) fn is_full(&self, member: usize) -> bool {
        self.processes[member].as_ref().is_some_and(|it| it.is_full)
    }

    /// SIGKILL.
    pub(crate) fn kill(&mut self, member: usize) {
        self.arena.set_address(member, None);
        if let Some(mut process) = self.processes[member].take() {
            let ended = process.child.try_wait().unwrap();
            if let Some(status) = ended {
                let said = fs::read_to_string(self.said(member)).unwrap_or_default();
                self.strange.push(format!("member {}: {status}: {said}", member + 1));
            }
            let _ = process.child.kill();
            let _ = process.child.wait();
        }
    }

    fn signal(&mut self, member: usize, signal: Signal) -> Option<&mut Process> {
        let process = self.processes[member].as_mut()?;
        let _ = kill_process(Pid::from_child(&process.child), signal);
        Some(process)
    }

    /// SIGSTOP.
    pub(crate) fn stop(&mut self, member: usize) {
        if let Some(process) = self.signal(member, Signal::STOP) {
            process.is_stopped = true;
        }
    }

    /// SIGCONT.
    pub(crate) fn resume(&mut self, member: usize) {
        if let Some(process) = self.signal(member, Signal::CONT) {
            process.is_stopped = false;
        }
    }

    /// No new segment fits, until there is room again.
    pub(crate) fn fill(&mut self, member: usize, is_full: bool) {
        let Some(process) = &mut self.processes[member] else { return };
        let limit = Rlimit { current: is_full.then_some(FULL), maximum: None };
        prlimit(Some(Pid::from_child(&process.child)), Resource::Fsize, limit).unwrap();
        process.is_full = is_full;
        self.may_fail[member] |= is_full;
    }

    /// The disk of a member that does not run is lost.
    pub(crate) fn wipe(&mut self, member: usize) {
        assert!(self.processes[member].is_none());
        fs::remove_dir_all(self.dir(member)).unwrap();
    }

    pub(crate) fn status(&mut self, member: usize) -> Option<Status> {
        if self.is_stopped(member) {
            return None;
        }
        let mut client = Client::impatient(&self.arena, member, Duration::from_secs(2));
        let answered = client.ask("status")?;
        let mut words = answered.ok()?.splitn(6, ' ');
        let status = Status {
            role: words.next()?.to_owned(),
            epoch: words.next()?.parse().ok()?,
            leader: words.next()?.parse().ok()?,
            may_write: words.next()? == "1",
            members: words.next()?.split(',').map(str::to_owned).collect(),
            failure: words.next()?.to_owned(),
        };
        if !status.failure.is_empty() && !self.may_fail[member] {
            self.strange.push(format!("member {} failed: {}", member + 1, status.failure));
            self.may_fail[member] = true; // it is reported once
        }
        Some(status)
    }

    /// The member that leads the greatest epoch and may write.
    pub(crate) fn leader(&mut self) -> Option<usize> {
        let leads = |group: &mut Self, member| {
            let status = group.status(member).filter(|status| status.may_write)?;
            Some((status.epoch, member))
        };
        let found = self.members().filter_map(|member| leads(self, member)).max();
        found.map(|(_, member)| member)
    }

    pub(crate) fn wait_leader(&mut self) -> usize {
        self.until("somebody leads", Self::leader)
    }

    /// Asks a member, if it can be reached.
    pub(crate) fn ask(&self, member: usize, line: &str) -> Option<String> {
        if self.is_stopped(member) {
            return None;
        }
        Client::new(&self.arena, member).ask(line)?.text
    }

    /// Looks until there is something.
    pub(crate) fn until<T>(
        &mut self,
        what: &str,
        mut look: impl FnMut(&mut Self) -> Option<T>,
    ) -> T {
        let end = self.arena.now() + PATIENCE;
        loop {
            if let Some(found) = look(self) {
                return found;
            }
            if self.arena.now() > end {
                let statuses: Vec<_> = self.members().map(|it| self.status(it)).collect();
                let kept = self.keep();
                panic!("not in time: {what}: {statuses:#?}; see {}", kept.display());
            }
            self.arena.wait_acknowledged(u64::MAX >> 1, STEP);
        }
    }

    /// Everything runs and is connected, and there is room. A member that failed for want of room is
    /// opened again.
    pub(crate) fn heal(&mut self) {
        self.links.heal();
        for member in self.members() {
            self.resume(member);
            self.make_room(member);
            if !self.is_running(member) {
                self.start(member);
            }
        }
    }

    /// There is room again. If the member has failed meanwhile it is opened again.
    pub(crate) fn make_room(&mut self, member: usize) {
        if self.is_full(member) {
            self.fill(member, false);
        }
        let has_failed = self.may_fail[member]
            && self.status(member).is_some_and(|status| !status.failure.is_empty());
        if has_failed {
            self.kill(member);
            self.start(member);
        }
    }

    /// Keeps the directories, for who looks for a fault.
    pub(crate) fn keep(&mut self) -> PathBuf {
        self.home.disable_cleanup(true);
        self.home.path().to_owned()
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        for member in self.members() {
            self.kill(member);
        }
    }
}
