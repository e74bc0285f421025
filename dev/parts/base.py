"""What every part has in common: a folder, ports, one process, a log.

In comes what a part needs to run (a command, a readiness check); out goes a running
process that later calls find again by its id and start time. Never ends a process
that it did not start, and never waits without a limit.
"""

import hashlib
import json
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

DEV = Path(__file__).resolve().parent.parent

# A first start on a busy machine with two cores; a healthy one takes a few seconds.
READY_SECONDS = 120
# Kafka and PostgreSQL flush on the way down; after this they are killed.
STOP_SECONDS = 40
# Below Linux's range of ephemeral ports (32768 and up): while a part is down, no
# outgoing connection can take its port, and a client that retries cannot connect to
# itself.
PORTS = range(20_000, 32_000)
LOG_TAIL_LINES = 25


class PartError(Exception):
    """A part cannot do what was asked; the text says what to do about it."""


def say(text):
    """Progress goes to standard error: standard output carries results."""
    print(text, file=sys.stderr, flush=True)


def need(command, install):
    """The path of a command, or an error that names how to get it."""
    path = shutil.which(command)
    if path is None:
        raise PartError(f"`{command}` is missing; {install}")
    return path


def run(command, what, **options):
    """Runs a command to its end; its output is shown only when it fails."""
    done = subprocess.run(
        [str(word) for word in command],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
        **options,
    )
    if done.returncode != 0:
        raise PartError(f"{what} failed (exit {done.returncode}):\n{done.stdout.strip()}")
    return done.stdout


def maven_copy(pom, target, goal="copy-dependencies"):
    """Copies (or unpacks) what a pom depends on, from Maven Central, into a folder."""
    need("mvn", "install Maven: apt-get install maven")
    plugin = "org.apache.maven.plugins:maven-dependency-plugin:3.8.1"
    run(
        ["mvn", "-q", "-B", "-f", pom, f"{plugin}:{goal}", f"-DoutputDirectory={target}"],
        f"fetching {target.name} with Maven",
    )


def start_ticks(pid):
    """When a process started, in clock ticks since boot; None when it is gone.

    Together with the id this names one process: ids are used again, start times not.
    An ended process that nobody has waited for yet counts as gone.
    """
    fields = process_fields(pid)
    return None if fields is None or fields[0] in "ZX" else int(fields[19])


def process_fields(pid):
    """What the kernel says of a process, from its state letter on, or None."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return None
    # The command name before may hold spaces and parentheses; the fields do not.
    return stat.rpartition(")")[2].split()


def children(pid):
    """The ids of all descendants of a process."""
    try:
        words = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    except OSError:
        return []
    direct = [int(word) for word in words]
    return direct + [below for child in direct for below in children(child)]


def free_port():
    """A loopback port that nothing listens on."""
    for port in random.sample(PORTS, 200):
        if port_is_free(port):
            return port
    raise PartError(f"no free port found between {PORTS.start} and {PORTS.stop}")


def port_is_free(port):
    """Whether a server could listen on this loopback port now."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


class Part:
    """One real part. A subclass says how to install, prepare, launch and ask it."""

    name = ""
    # The names of its ports; the first one is what clients use.
    port_names = ("client",)
    # The files that decide what is installed; a change installs again.
    manifest = ()

    def __init__(self, root):
        self.packages = root / "packages" / self.name
        self.folder = root / self.name
        self.log = self.folder / "log"
        self.state_file = self.folder / "state.json"

    # What a subclass gives.

    def install(self):
        """Fetches the part into `self.packages`."""

    def prepare(self, ports):
        """Makes an empty data folder; called before each start, so it must look first."""

    def command(self, ports):
        """The command line of the part's one process."""
        raise NotImplementedError

    def answers(self, ports):
        """Whether the part serves clients. May raise OSError while it does not."""
        raise NotImplementedError

    def address(self, ports):
        """What goes into the environment variable of the tests."""
        raise NotImplementedError

    def start_environment(self):
        """The environment of the part's process."""
        return dict(os.environ)

    # What all share.

    @property
    def variable(self):
        """The environment variable that tells tests where the part is."""
        return f"ODOMETER_TEST_{self.name.upper()}"

    def state(self):
        """Ports and process as of the last start; empty before the first."""
        try:
            return json.loads(self.state_file.read_text())
        except FileNotFoundError:
            return {}

    def keep(self, state):
        """Writes the state so that a crash leaves the old or the new one."""
        fresh = self.state_file.with_suffix(".new")
        fresh.write_text(json.dumps(state, indent=1) + "\n")
        fresh.replace(self.state_file)

    def pid(self):
        """The id of the running process that we started, or None."""
        state = self.state()
        pid = state.get("pid")
        return pid if pid and start_ticks(pid) == state["start_ticks"] else None

    def ensure_installed(self):
        """Installs unless exactly this version is there already."""
        wanted = hashlib.sha256(b"".join(Path(file).read_bytes() for file in self.manifest))
        stamp = self.packages / ".installed"
        if stamp.exists() and stamp.read_text() == wanted.hexdigest():
            return
        shutil.rmtree(self.packages, ignore_errors=True)
        self.packages.mkdir(parents=True)
        self.install()
        stamp.write_text(wanted.hexdigest())

    def launch(self):
        """Starts the process unless it runs; True when this call started it."""
        if self.pid():
            return False
        self.ensure_installed()
        self.folder.mkdir(parents=True, exist_ok=True)
        state = self.state()
        ports = state.get("ports") or {name: free_port() for name in self.port_names}
        for port in ports.values():
            if not port_is_free(port):
                raise PartError(
                    f"{self.name}: port {port} is taken by another process; free it, "
                    f"or give the part a new one with `dev/services down --purge {self.name}`"
                )
        self.keep({"ports": ports})
        self.prepare(ports)
        with open(self.log, "ab") as log:
            child = subprocess.Popen(
                [str(word) for word in self.command(ports)],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=self.folder,
                env=self.start_environment(),
                start_new_session=True,
            )
        ticks = start_ticks(child.pid)
        self.keep({"ports": ports, "pid": child.pid, "start_ticks": ticks})
        return True

    def wait_ready(self):
        """Returns once the part answers; an error shows the end of its log."""
        ports = self.state()["ports"]
        deadline = time.monotonic() + READY_SECONDS
        while time.monotonic() < deadline:
            if not self.pid():
                raise PartError(f"{self.name} ended while starting:\n{self.log_tail()}")
            try:
                if self.answers(ports):
                    return
            except OSError:
                pass
            time.sleep(0.1)
        raise PartError(
            f"{self.name} did not answer within {READY_SECONDS} s:\n{self.log_tail()}"
        )

    def is_ready(self):
        """Whether the part answers at this moment."""
        try:
            return bool(self.pid() and self.answers(self.state()["ports"]))
        except OSError:
            return False

    def log_tail(self):
        """The last lines of the log, with its path."""
        text = self.log.read_text(errors="replace") if self.log.exists() else ""
        return "\n".join([f"{self.log}:", *text.splitlines()[-LOG_TAIL_LINES:]])

    def stop(self):
        """Ends the process in order (SIGTERM), by force after a while."""
        pid = self.pid()
        if pid is None:
            return False
        os.kill(pid, signal.SIGTERM)
        if not self.wait_gone(pid, STOP_SECONDS):
            say(f"{self.name} did not stop within {STOP_SECONDS} s and is killed")
            self.kill()
        return True

    def kill(self):
        """Ends the process and its children at once (SIGKILL), as a crash would."""
        pid = self.pid()
        if pid is None:
            return False
        family = [(one, start_ticks(one)) for one in [pid, *children(pid)]]
        for one, ticks in family:
            if ticks is not None and start_ticks(one) == ticks:
                try:
                    os.kill(one, signal.SIGKILL)
                except ProcessLookupError:
                    continue
        for one, _ in family:
            if not self.wait_gone(one, STOP_SECONDS):
                raise PartError(f"{self.name}: process {one} did not end after SIGKILL")
        return True

    def wait_gone(self, pid, seconds):
        """Waits until a process has ended; False when it has not in that time."""
        deadline = time.monotonic() + seconds
        ticks = start_ticks(pid)
        while ticks is not None and start_ticks(pid) == ticks:
            if time.monotonic() > deadline:
                return False
            time.sleep(0.05)
        return True

    def purge(self):
        """Removes data, ports and log of a part that does not run."""
        shutil.rmtree(self.folder, ignore_errors=True)

    def report(self):
        """State for `status`."""
        state = self.state()
        if not state:
            return {"state": "absent"}
        pid = self.pid()
        word = "stopped" if pid is None else "running" if self.is_ready() else "not answering"
        return {
            "state": word,
            "pid": pid,
            "address": self.address(state["ports"]),
            "ports": state["ports"],
            "folder": str(self.folder),
            "log": str(self.log),
        }
