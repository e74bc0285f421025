"""Apache Kafka as one KRaft node, from Maven Central, on the system's Java."""

import base64
import re
import socket
import struct
import subprocess
import uuid

from .base import DEV, Part, PartError, maven_copy, need, run, say

# Kafka 4 brokers need it.
JAVA_MAJOR_MIN = 17
HEAP = "512m"


class Kafka(Part):
    """Broker and controller in one process; topics are made by whoever needs them."""

    name = "kafka"
    port_names = ("client", "controller")
    manifest = (DEV / "kafka/pom.xml",)

    def install(self):
        check_java()
        say("kafka: fetching with Maven (about 80 MB)")
        maven_copy(DEV / "kafka/pom.xml", self.packages)

    @property
    def config(self):
        """The broker's own configuration file, made at each start."""
        return self.folder / "broker.properties"

    @property
    def data(self):
        """Where the broker keeps its partitions."""
        return self.folder / "data"

    def java(self, *words):
        """A Java command with Kafka on its class path."""
        return [check_java(), f"-Xmx{HEAP}", *words[:-1], "-cp", f"{self.packages}/*", *words[-1]]

    def prepare(self, ports):
        own = {
            "listeners": f"PLAINTEXT://127.0.0.1:{ports['client']},"
            f"CONTROLLER://127.0.0.1:{ports['controller']}",
            "advertised.listeners": f"PLAINTEXT://127.0.0.1:{ports['client']},"
            f"CONTROLLER://127.0.0.1:{ports['controller']}",
            "controller.quorum.bootstrap.servers": f"127.0.0.1:{ports['controller']}",
            "log.dirs": self.data,
        }
        fixed = (DEV / "kafka/broker.properties").read_text()
        self.config.write_text(fixed + "".join(f"{key}={value}\n" for key, value in own.items()))
        if (self.data / "meta.properties").exists():
            return
        cluster = base64.urlsafe_b64encode(uuid.uuid4().bytes).decode().rstrip("=")
        tool = ["kafka.tools.StorageTool", "format", "--standalone"]
        # As one word: an id may begin with a hyphen.
        words = [*tool, f"--cluster-id={cluster}", "-c", str(self.config)]
        run(self.java(words), "formatting Kafka's storage")

    def command(self, ports):
        log4j = f"-Dlog4j2.configurationFile={DEV / 'kafka/log4j2.properties'}"
        return self.java(log4j, ["kafka.Kafka", str(self.config)])

    def answers(self, ports):
        return broker_count(ports["client"]) > 0

    def address(self, ports):
        return f"127.0.0.1:{ports['client']}"


def check_java():
    """The path of a Java that is new enough."""
    install = "install a JDK: apt-get install openjdk-17-jdk-headless"
    java = need("java", install)
    text = subprocess.run([java, "-version"], capture_output=True, text=True, check=False).stderr
    found = re.search(r'version "(\d+)', text)
    if found is None or int(found.group(1)) < JAVA_MAJOR_MIN:
        raise PartError(f"Java {JAVA_MAJOR_MIN} or newer is needed; {install}")
    return java


def broker_count(port):
    """How many brokers the cluster knows: a Metadata request, version 1, no topics.

    A broker that listens but has not joined yet names none.
    """
    client = b"dev-services"
    body = struct.pack(">hhih", 3, 1, 1, len(client)) + client + struct.pack(">i", 0)
    with socket.create_connection(("127.0.0.1", port), timeout=2) as link:
        link.settimeout(2)
        link.sendall(struct.pack(">i", len(body)) + body)
        # Length, correlation id, number of brokers.
        head = b""
        while len(head) < 12:
            more = link.recv(12 - len(head))
            if not more:
                return 0
            head += more
    return struct.unpack(">iii", head)[2]
