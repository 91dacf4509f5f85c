//! What the machine has to offer: file systems of our own, strace, a power switch.

use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use crate::common::*;
use tempfile::TempDir;

/// The output of a tool, if it is there and succeeds.
pub(crate) fn run(program: &str, arguments: &[&str]) -> Result<String, String> {
    let output = Command::new(program).args(arguments).stdin(Stdio::null()).output();
    let output = output.map_err(|error| format!("{program}: {error}"))?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned());
    }
    Err(format!("{program} {arguments:?}: {}", String::from_utf8_lossy(&output.stderr)))
}

/// A mounted file system, unmounted when this is dropped, also by a panic.
#[derive(Debug)]
pub(crate) struct Mount {
    base: TempDir,
    /// The device and the options, where it is not a tmpfs.
    device: Option<(String, String)>,
    kind: &'static str,
    is_mounted: bool,
}

impl Mount {
    /// A tmpfs with these options; `None`, and a word about it, where it cannot be had.
    pub(crate) fn tmpfs(options: &str) -> Option<Self> {
        let mut mount = Self::unmounted("tmpfs");
        let target = mount.target();
        std::fs::create_dir(&target).unwrap();
        let target = target.to_str().unwrap().to_owned();
        offered(run("mount", &["-t", "tmpfs", "-o", options, "logpond", &target]))?;
        mount.is_mounted = true;
        Some(mount)
    }

    /// An ext4 of this many MiB on a loop device; after a panic its image is kept, to be looked at.
    pub(crate) fn ext4(mib: u32, options: &str) -> Option<Self> {
        Self::on_loop("ext4", mib, &["-q", "-F", "-b", "4096", "-m", "0", "-J", "size=4"], options)
    }

    /// An XFS, as [`ext4`](Self::ext4). Its tools make one of less than 300 MiB for tests only.
    pub(crate) fn xfs(mib: u32, options: &str) -> Option<Self> {
        Self::on_loop("xfs", mib, &["-q", "-f", "--unsupported"], options)
    }

    fn on_loop(
        kind: &'static str,
        mib: u32,
        format: &[&'static str],
        options: &str,
    ) -> Option<Self> {
        let mut mount = Self::unmounted(kind);
        std::fs::create_dir(mount.target()).unwrap();
        let image = mount.base.path().join("image");
        let file = std::fs::File::create(&image).unwrap();
        file.set_len(u64::from(mib) << 20).unwrap();
        let image = image.to_str().unwrap();
        offered(run(&format!("mkfs.{kind}"), &[format, &[image]].concat()))?;
        let device = offered(run("losetup", &["--find", "--show", image]))?;
        mount.device = Some((device, options.to_owned()));
        offered(mount.mount())?;
        Some(mount)
    }

    fn unmounted(kind: &'static str) -> Self {
        Self { base: temp_dir(), device: None, kind, is_mounted: false }
    }

    fn target(&self) -> PathBuf {
        self.base.path().join("mnt")
    }

    /// Where it is mounted.
    pub(crate) fn path(&self) -> PathBuf {
        self.target()
    }

    pub(crate) fn device(&self) -> &str {
        self.device.as_ref().map_or("", |(device, _)| device)
    }

    pub(crate) fn mount(&mut self) -> Result<String, String> {
        let (device, options) = self.device.clone().expect("a device");
        let target = self.target();
        let mounted =
            run("mount", &["-t", self.kind, "-o", &options, &device, target.to_str().unwrap()]);
        self.is_mounted = mounted.is_ok();
        mounted
    }

    /// A child that another test has just forked has this process's files open until it begins its
    /// own program, so the file system may be busy for a moment.
    pub(crate) fn unmount(&mut self) {
        let target = self.target();
        let mut tries = 0;
        while let Err(error) = run("umount", &[target.to_str().unwrap()]) {
            tries += 1;
            assert!(error.contains("busy") && tries < 1_000, "{error}");
        }
        self.is_mounted = false;
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        if self.is_mounted {
            // Lazily: a panic may have left files open, and the device must be given back.
            let target = self.target();
            if let Err(error) = run("umount", &["-l", target.to_str().unwrap()]) {
                eprintln!("{error}");
            }
        }
        if self.device.is_some() && std::thread::panicking() {
            self.base.disable_cleanup(true);
            eprintln!("the image is kept in {}", self.base.path().display());
        }
        if let Some((device, _)) = &self.device
            && let Err(error) = run("losetup", &["-d", device])
        {
            eprintln!("{error}");
        }
    }
}

/// What the machine gave, or a word about what it did not.
fn offered<T>(result: Result<T, String>) -> Option<T> {
    result.map_err(|error| eprintln!("skipped: this machine does not offer it: {error}")).ok()
}

/// Cuts the power of an ext4: what was not synced is lost, and every later call fails.
/// `EXT4_IOC_SHUTDOWN` without a flush of its log, from a tool that has `ioctl`. Returns a moment
/// just before, in microseconds: what was acknowledged until then was acknowledged with power.
pub(crate) fn cut_power(mount: &Path) -> Result<u128, String> {
    let script = "use Time::HiRes; open(my $dir, '<', $ARGV[0]) or die $!; \
                  my $how = pack('L', 2); my $now = Time::HiRes::time(); \
                  ioctl($dir, 0x8004587d, $how) or die $!; printf('%.0f', $now * 1e6);";
    let printed = run("perl", &["-e", script, mount.to_str().unwrap()])?;
    printed.parse().map_err(|error| format!("perl said {printed:?}: {error}"))
}

/// Whether strace is there and may trace.
pub(crate) fn has_strace() -> bool {
    let tried = ["-f", "-qq", "-o", "/dev/null", "--seccomp-bpf", "-e", "trace=fsync", "true"];
    offered(run("strace", &tried)).is_some()
}

/// A child under a shell that sets something up before, as `ulimit -n 40`.
pub(crate) fn under_shell(setup: &str, name: &str, dir: &Path) -> Output {
    let child = child(name, dir);
    let mut command = Command::new("sh");
    command.args(["-c", &format!("{setup}; exec \"$@\""), "sh"]).arg(child.get_program());
    command.args(child.get_args()).env(CHILD_DIR, dir);
    command.stdin(Stdio::null()).output().unwrap()
}

/// A child that ended by itself, and without a panic.
pub(crate) fn assert_orderly(output: &Output, context: &str) {
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(!errors.contains("panicked"), "{context}: {errors}");
    assert!(output.status.success(), "{context}: {}: {errors}", output.status);
}
