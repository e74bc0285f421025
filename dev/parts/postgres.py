"""PostgreSQL: the system's own server, else the binaries from Maven Central."""

import os
import pwd
import shutil
import socket
import struct
import tarfile
import time
from pathlib import Path

from .base import DEV, Part, PartError, maven_copy, need, process_fields, run, say, start_ticks

# The superuser of the tests, and the database it starts in.
USER = "odometer"
DATABASE = "odometer"
# How long an ended server may wait to be collected before its lock file is removed.
COLLECT_SECONDS = 5
POM = DEV / "postgres/pom.xml"


class Postgres(Part):
    """One server on loopback that trusts its user; fsync stays on."""

    name = "postgres"
    manifest = (POM,)

    def __init__(self, root):
        super().__init__(root)
        self.data = self.folder / "data"

    def install(self):
        if system_server():
            return
        say("postgres: no server on this system (apt-get install postgresql); fetching with Maven")
        maven_copy(POM, self.packages, "copy-dependencies")
        unpack(self.packages)

    def server(self):
        """The folder of `postgres` and `initdb`."""
        folder = system_server() or self.packages / "bin"
        if not (folder / "initdb").exists():
            # The system's server went away since the installation.
            (self.packages / ".installed").unlink(missing_ok=True)
            raise PartError("postgres: `initdb` is missing; run `dev/services up` again")
        return folder

    def prepare(self, ports):
        if (self.data / "PG_VERSION").exists():
            forget_ended(self.data / "postmaster.pid")
            return
        shutil.rmtree(self.data, ignore_errors=True)
        self.data.mkdir(mode=0o700)
        user = server_user()
        if user:
            os.chown(self.data, user.pw_uid, user.pw_gid)
        options = ["-U", USER, "--auth=trust", "--no-locale", "-E", "UTF8", "--data-checksums"]
        initdb = [self.server() / "initdb", "-D", self.data, *options]
        run([*self.drop(), *initdb], "initdb", cwd="/")
        single = [self.server() / "postgres", "--single", "-D", self.data, "postgres"]
        run([*self.drop(), *single], "creating the database", cwd="/",
            input=f"CREATE DATABASE {DATABASE};\n")

    def command(self, ports):
        # No socket file: its path may be too long, and clients come through loopback.
        settings = {
            "listen_addresses": "127.0.0.1",
            "port": ports["client"],
            "unix_socket_directories": "",
            # Tests run in parallel, and each has a pool.
            "max_connections": 300,
        }
        flags = [word for key, value in settings.items() for word in ("-c", f"{key}={value}")]
        return [*self.drop(), self.server() / "postgres", "-D", self.data, *flags]

    def drop(self):
        """What to put before a command, because the server refuses to run as root."""
        user = server_user()
        if user is None:
            return []
        ids = [f"--reuid={user.pw_uid}", f"--regid={user.pw_gid}", "--clear-groups"]
        drop = [need("setpriv", "install it: apt-get install util-linux"), *ids]
        if not reachable(self.data, user):
            # A clone below a closed home directory: the server may pass through it.
            drop += ["--inh-caps=+dac_override", "--ambient-caps=+dac_override"]
        return drop

    def answers(self, ports):
        return accepts_queries(ports["client"])

    def address(self, ports):
        return f"postgres://{USER}@127.0.0.1:{ports['client']}/{DATABASE}"


def system_server():
    """The folder of the newest installed server, or None."""
    found = sorted(
        Path("/usr/lib/postgresql").glob("*/bin/initdb"),
        key=lambda path: int("0" + "".join(filter(str.isdigit, path.parts[-3]))),
    )
    on_path = shutil.which("initdb")
    if not found and on_path:
        found = [Path(on_path).resolve()]
    return found[-1].parent if found and (found[-1].parent / "postgres").exists() else None


def server_user():
    """The user to run as when we are root, else None."""
    if os.geteuid() != 0:
        return None
    for name in ("postgres", "nobody"):
        try:
            return pwd.getpwnam(name)
        except KeyError:
            continue
    raise PartError("postgres does not run as root, and there is no user `postgres` or `nobody`")


def reachable(path, user):
    """Whether every folder above a path lets this user through."""
    for folder in Path(path).parents:
        mode = folder.stat()
        bit = 0o100 if mode.st_uid == user.pw_uid else 0o010 if mode.st_gid == user.pw_gid else 0o001
        if not mode.st_mode & bit:
            return False
    return True


def forget_ended(lock):
    """Removes the lock file of a server that has ended but was not waited for yet.

    After SIGKILL the id lives on until the first process of the system collects it,
    in some containers for ever, and the server takes that for a running one.
    """
    try:
        pid = int(lock.read_text().split()[0])
    except FileNotFoundError:
        return
    deadline = time.monotonic() + COLLECT_SECONDS
    while process_fields(pid) and start_ticks(pid) is None:
        if time.monotonic() > deadline:
            lock.unlink()
            return
        time.sleep(0.05)


def unpack(folder):
    """Takes the server's archive out of the jar that Maven copied."""
    jar = next(folder.glob("embedded-postgres-binaries-*.jar"))
    shutil.unpack_archive(jar, folder, "zip")
    archive = next(folder.glob("*.txz"))
    with tarfile.open(archive, "r:xz") as tar:
        tar.extractall(folder)
    for leftover in (jar, archive):
        leftover.unlink()


def accepts_queries(port):
    """Whether a session gets as far as "ready for query"."""
    pairs = f"user\0{USER}\0database\0{DATABASE}\0\0".encode()
    with socket.create_connection(("127.0.0.1", port), timeout=2) as link:
        link.settimeout(2)
        # Protocol 3.0; the length counts itself.
        link.sendall(struct.pack(">ii", len(pairs) + 8, 196_608) + pairs)
        reader = link.makefile("rb")
        while True:
            head = reader.read(5)
            if len(head) < 5 or head[:1] == b"E":
                return False
            if head[:1] == b"Z":
                return True
            reader.read(struct.unpack(">i", head[1:])[0] - 4)
