"""The deployment of docker-compose.yml as it runs: from a copy of what git knows, by podman-compose."""

import json
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.request import Request, urlopen

import yaml

from tests.compose.podman import Podman, run
from tests.support.bus import SLA, environment, free_port, open_all_hours

ROOT = Path(__file__).parents[2]
COMPOSE = Path(sys.executable).with_name("podman-compose")
NOT_RUN = "grafana"  # there is nothing here to make a stand-in of
PATIENCE = 90.0  # seconds; Prometheus looks every 15


class Stack:
    """Services are meant by their names in the file; all that have a port get a free one of this machine."""

    def __init__(self, podman: Podman, folder: Path) -> None:
        self.podman, self.folder = podman, folder
        file = yaml.safe_load((folder / "docker-compose.yml").read_text(encoding="utf-8"))
        self.services: dict[str, Any] = {name: each for name, each in file["services"].items() if name != NOT_RUN}
        self.ports = {name: free_port() for name, each in self.services.items() if "ports" in each}
        self._settings = {f"{name.upper()}_PORT": str(port) for name, port in self.ports.items()}
        self._settings["POLICY_DIR"] = open_all_hours(folder / ".policy")

    def compose(self, *arguments: str, stdin: str | None = None) -> str:
        """`podman-compose …`"""
        return run(
            COMPOSE, *arguments, folder=self.folder, environment=self.podman.environment | self._settings, stdin=stdin
        )

    def inspect(self, service: str) -> dict[str, Any]:
        (found,) = json.loads(self.podman("container", "inspect", container(service)))
        return dict(found)

    def pid(self, service: str) -> int:
        """Of its first process, on this machine; 0 while there is none."""
        return int(self.inspect(service)["State"]["Pid"])

    def log(self, service: str) -> str:
        return run("sh", "-c", f"podman logs {container(service)} 2>&1", environment=self.podman.environment)

    def unwell(self) -> set[str]:
        """Services whose health check fails, and those that are not through with what they do once."""
        return {name for name in self.services if not self._is_well(name)}

    def _is_well(self, service: str) -> bool:
        state = self.inspect(service)["State"]
        if self.services[service]["restart"] == "on-failure":
            return state["Status"] == "exited" and state["ExitCode"] == 0
        check = ["podman", "healthcheck", "run", container(service)]
        return (
            state["Running"] and not subprocess.run(check, env=self.podman.environment, capture_output=True).returncode
        )

    def soon(self, what: str, found: Callable[[], Any]) -> Any:
        """The first true value; a failed test with what the services say if there is none in time."""
        give_up = time.monotonic() + PATIENCE
        while not (value := found()):
            if time.monotonic() > give_up:
                said = "\n".join(f"== {name}\n{self.log(name)[-1500:]}" for name in self.services)
                raise AssertionError(f"not within {PATIENCE:g} s: {what}; not well: {self.unwell()}\n{said}")
            time.sleep(0.5)
        return value

    def asked(self, service: str, path: str, token: str | None = None) -> Any:
        """The JSON at an address of a service that has a port; None while it does not answer, or refuses."""
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        try:
            with urlopen(
                Request(f"http://127.0.0.1:{self.ports[service]}{path}", headers=headers), timeout=5
            ) as answer:
                return json.load(answer)
        except OSError:
            return None

    def settings(self, user: str) -> dict[str, str]:
        """For `sla` on this machine, as a user of NATS."""
        password = str(self.folder / "secrets" / f"nats_{user}")
        url = f"nats://127.0.0.1:{self.ports['nats']}"
        return environment(SLA_NATS_URL=url, SLA_NATS_USER=user, SLA_NATS_PASSWORD_FILE=password)

    def publish(self, *arguments: str) -> None:
        """`sla publish …`, as the publisher."""
        run(SLA, "publish", *arguments, environment=self.settings("publisher"))

    @contextmanager
    def breaches(self) -> Iterator[Callable[[], dict[str, Any]]]:
        """The breaches on NATS so far by ticket, as `sla watch` shows them to an operator while it goes on."""
        heard = self.folder / ".breaches"
        with heard.open("w") as out:
            command = [SLA, "watch", "--all", "--only", "breached", "-o", "json"]
            watching = subprocess.Popen(command, env=self.settings("operator"), stdout=out)
        try:
            yield lambda: {each["subject"]: each for each in map(json.loads, heard.read_text().splitlines())}
        finally:
            watching.terminate()
            watching.wait(10)


def container(service: str) -> str:
    """Its name, as podman-compose gives it."""
    return f"sla_{service}_1"


def fresh_clone(folder: Path) -> Path:
    """What git knows or would add, in an empty folder: nothing else that lies about here is used."""
    shutil.rmtree(folder, ignore_errors=True)
    listed = run("git", "ls-files", "-z", "--cached", "--others", "--exclude-standard", folder=ROOT)
    for name in filter(None, listed.split("\0")):
        if (ROOT / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, folder / name)
    return folder


def refusal(podman: Podman, image: str) -> str | None:
    """Why no container like ours can be run here; None if one can."""
    limits = ("--network=podman", "--read-only", "--user=10001", "--memory=64m", "--pids-limit=10", "--cpus=1")
    try:
        podman("run", "--rm", "--cap-drop=all", *limits, image, "true")
    except AssertionError as error:
        return str(error).splitlines()[-1]
    return None
