"""A TCP proxy that can be cut: nothing passes, and nobody is told; or reset, and everybody is told."""

import asyncio
from contextlib import suppress
from urllib.parse import urlsplit


class Proxy:
    """Between a service and the bus. `url` is known once it was started."""

    def __init__(self, target: str) -> None:
        self._target = urlsplit(target)
        self._open = asyncio.Event()
        self._open.set()
        self._writers: set[asyncio.StreamWriter] = set()
        self._server: asyncio.Server | None = None
        self.url = ""

    async def start(self) -> None:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        port = self._server.sockets[0].getsockname()[1]
        self.url = self._target.geturl().replace(f":{self._target.port}", f":{port}")  # with user and password

    def cut(self) -> None:
        """From now on nothing passes; the connections stay."""
        self._open.clear()

    def heal(self) -> None:
        """What was held up goes on."""
        self._open.set()

    def reset(self) -> None:
        """All connections are lost at once."""
        for writer in self._writers:
            writer.transport.abort()

    async def stop(self) -> None:
        self.heal()
        self.reset()
        if self._server is not None:
            self._server.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await self._open.wait()
        try:
            there_reader, there = await asyncio.open_connection(self._target.hostname, self._target.port)
        except OSError:
            writer.transport.abort()
            return
        both = {writer, there}
        self._writers |= both
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._pass(reader, there))
                group.create_task(self._pass(there_reader, writer))
        finally:
            self._writers -= both

    async def _pass(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError):
            while found := await reader.read(65536):
                await self._open.wait()
                writer.write(found)
                await writer.drain()
        writer.transport.abort()
