"""For tests: a slow link. A TCP proxy on the loopback that delivers each byte a fixed time later, in both directions.

Nothing is lost or reordered, and what is under way is not bounded: it is a long link, not a narrow one. Connecting
takes no longer than to the proxy, so one round trip less than over a real link.

    with SlowLink(to_port=54001, delay_s=0.05) as link:
        ...  # connect to 127.0.0.1:link.port; a round trip takes 0.1 s
"""

from __future__ import annotations

import asyncio
import socket
import threading
from types import TracebackType

# Bytes read at once; each chunk is delivered as a whole.
_CHUNK = 256 << 10
# Seconds that the proxy's thread has to end.
_JOIN_S = 10.0

_Pieces = asyncio.Queue[tuple[float, bytes]]


class SlowLink:
    """The proxy, on a thread of its own. ``delay_s`` is that of one direction; it may be changed at any time."""

    def __init__(self, to_port: int, delay_s: float, host: str = "127.0.0.1") -> None:
        """Listen at once; connections are taken from ``__enter__`` on."""
        self.delay_s = delay_s
        self._to = host, to_port
        self._listener = socket.create_server((host, 0))
        self.port: int = self._listener.getsockname()[1]
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._run, name="slow-link", daemon=True)

    def __enter__(self) -> SlowLink:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(_JOIN_S)

    def _run(self) -> None:
        loop = self._loop
        server = loop.run_until_complete(asyncio.start_server(self._connected, sock=self._listener))
        try:
            loop.run_forever()
        finally:
            server.close()
            loop.run_until_complete(self._end())
            loop.close()

    async def _end(self) -> None:
        tasks = asyncio.all_tasks() - {asyncio.current_task()}
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            far_reader, far_writer = await asyncio.open_connection(*self._to)
        except OSError:
            writer.transport.abort()
            return
        try:
            await asyncio.gather(self._carry(reader, far_writer), self._carry(far_reader, writer))
        except asyncio.CancelledError:
            pass  # the end of the proxy
        finally:
            for one in (writer, far_writer):
                one.transport.abort()

    async def _carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        pieces: _Pieces = asyncio.Queue()
        await asyncio.gather(self._take(reader, pieces), self._deliver(pieces, writer))

    async def _take(self, reader: asyncio.StreamReader, pieces: _Pieces) -> None:
        """Read what comes and note when it is to be delivered; no bytes stand for the end."""
        piece = b"-"
        while piece:
            try:
                piece = await reader.read(_CHUNK)
            except OSError:
                piece = b""
            pieces.put_nowait((self._loop.time() + self.delay_s, piece))

    async def _deliver(self, pieces: _Pieces, writer: asyncio.StreamWriter) -> None:
        while True:
            due, piece = await pieces.get()
            await asyncio.sleep(max(0.0, due - self._loop.time()))
            try:
                if not piece:
                    writer.write_eof()
                    return
                writer.write(piece)
                await writer.drain()
            except OSError:
                return
