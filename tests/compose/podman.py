"""podman with images, networks and volumes of its own: nothing of the machine's is seen, used or left changed."""

import os
import resource
import subprocess
from collections.abc import Mapping
from pathlib import Path

RUN = Path("/run/sla-compose-test")  # what does not outlive the machine; the paths of sockets must be short
NPROC = 32768  # podman lowers its own limit to this, and gives containers more than it has


class Podman:
    """Its files are under `folder`. With runc: crun refuses a machine on which both versions of cgroups are mounted."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.environment = os.environ | {"DISABLE_HC_SYSTEMD": "true"}  # checks are run by the tests
        for name, text in _settings(folder).items():
            file = folder / name.lower()
            file.write_text(text, encoding="utf-8")
            self.environment[name] = str(file)

    def __call__(self, *arguments: str | Path, stdin: str | None = None) -> str:
        """`podman …`: what it prints. A failed test if it does not end with 0."""
        return run("podman", *arguments, environment=self.environment, stdin=stdin)


def _settings(folder: Path) -> dict[str, str]:
    return {
        "CONTAINERS_CONF": f"""
            [containers]
            default_ulimits = ["nofile={_most(resource.RLIMIT_NOFILE)}", "nproc={_most(resource.RLIMIT_NPROC, NPROC)}"]
            [engine]
            cgroup_manager = "cgroupfs"
            events_logger = "file"
            lock_type = "file"
            runtime = "runc"
            tmp_dir = "{RUN}/tmp"
            [network]
            network_backend = "netavark"
            network_config_dir = "{folder}/networks"
            """,
        "CONTAINERS_STORAGE_CONF": f"""
            [storage]
            driver = "overlay"
            graphroot = "{folder}/storage"
            runroot = "{RUN}/storage"
            """,
    }


def _most(limit: int, most: int = 1048576) -> str:
    """The highest a process may have without CAP_SYS_RESOURCE, as podman wants it."""
    hard = resource.getrlimit(limit)[1]
    value = most if hard == resource.RLIM_INFINITY else min(hard, most)
    return f"{value}:{value}"


def run(
    *command: str | Path,
    folder: Path | None = None,
    environment: Mapping[str, str] | None = None,
    stdin: str | None = None,
) -> str:
    """What a command prints. A failed test if it does not end with 0."""
    done = subprocess.run(
        command, cwd=folder, env=environment, input=stdin, capture_output=True, text=True, timeout=240, check=False
    )
    assert done.returncode == 0, f"{' '.join(map(str, command))}\n{done.stdout}\n{done.stderr}"
    return done.stdout
