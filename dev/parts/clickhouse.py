"""The ClickHouse engine from PyPI behind a small HTTP front."""

import http.client
import sys

from .base import DEV, Part, PartError, run, say

FRONT = DEV / "clickhouse/front.py"
REQUIREMENTS = DEV / "clickhouse/requirements.txt"


class ClickHouse(Part):
    """One process holds the engine; the SQL is that of the official server."""

    name = "clickhouse"
    manifest = (REQUIREMENTS,)

    def install(self):
        say("clickhouse: fetching with pip (about 200 MB)")
        try:
            run([sys.executable, "-m", "venv", self.packages / "venv"], "making a venv")
        except PartError as error:
            raise PartError(f"{error}\ninstall venv: apt-get install python3-venv") from None
        pip = [self.packages / "venv/bin/pip", "install", "-q", "--no-deps", "-r", REQUIREMENTS]
        run(pip, "fetching the ClickHouse engine with pip")

    def command(self, ports):
        python = self.packages / "venv/bin/python"
        return [python, FRONT, "--port", ports["client"], "--folder", self.folder]

    def answers(self, ports):
        link = http.client.HTTPConnection("127.0.0.1", ports["client"], timeout=5)
        try:
            link.request("POST", "/", b"SELECT 1")
            return link.getresponse().read() == b"1\n"
        except http.client.HTTPException:
            return False
        finally:
            link.close()

    def address(self, ports):
        return f"http://127.0.0.1:{ports['client']}"
