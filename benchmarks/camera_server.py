"""Cameras for measuring: RTSP over TCP from one process, which sends a clip that was encoded beforehand.

Frame `n` of camera `c` of `N` is due at `start + (n + c / N) / fps`; a connection begins with the next key frame.
Nothing is thrown away for a slow reader. `python -m benchmarks.camera_server CLIP N [CAMERA FRAME]`: the last two name
a camera that sends nothing from that frame on. It prints where it listens and its schedule, and at the end of its
standard input how late it was.
"""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from time import monotonic_ns

import msgspec
import numpy as np

from benchmarks.camera_clip import CLOCK_HZ, Clip, read_clip

DESCRIPTION = (
    "v=0\r\no=- 0 0 IN IP4 127.0.0.1\r\ns=camera\r\nt=0 0\r\nm=video 0 RTP/AVP 96\r\nc=IN IP4 0.0.0.0\r\n"
    f"a=rtpmap:96 H264/{CLOCK_HZ}\r\na=fmtp:96 packetization-mode=1;sprop-parameter-sets={{}}\r\na=control:video\r\n"
)


class Opened(msgspec.Struct, frozen=True):
    """The server's first line: where it listens, and its schedule; frame 0 of camera 0 is due at the start."""

    port: int
    start_ns: int
    cameras: int
    fps: int

    def captured_ns(self, camera: int, number: int) -> int:
        """When a frame was due."""
        return self.start_ns + round((number + camera / self.cameras) * 1e9 / self.fps)


class Lateness(msgspec.Struct, frozen=True):
    """Its last line: how late frames left the server."""

    p99_ms: float
    largest_ms: float


@dataclass(frozen=True, slots=True)
class Frozen:
    """A camera that sends nothing from a frame on, and keeps its connections."""

    camera: int
    frame: int


class CameraServer:
    """Sends the frames of a clip to whoever plays `rtsp://HOST:PORT/CAMERA`."""

    def __init__(self, clip: Clip, cameras: int, frozen: Frozen | None) -> None:
        self._clip = clip
        self._cameras = cameras
        self._frozen = frozen
        self._waiting: defaultdict[int, list[asyncio.StreamWriter]] = defaultdict(list)
        self._watching: defaultdict[int, list[asyncio.StreamWriter]] = defaultdict(list)
        self._late_ms: list[float] = []

    async def serve(self) -> None:
        """Until standard input ends, or the clip."""
        listener = await asyncio.start_server(self._connected, "127.0.0.1", 0)
        port = int(listener.sockets[0].getsockname()[1])
        opened = Opened(port, monotonic_ns() + 100_000_000, self._cameras, self._clip.fps)
        print(msgspec.json.encode(opened).decode(), flush=True)
        ended = asyncio.Event()
        asyncio.get_running_loop().add_reader(sys.stdin.fileno(), ended.set)
        sending = asyncio.create_task(self._send_all(opened))
        await asyncio.wait([sending, asyncio.create_task(ended.wait())], return_when=asyncio.FIRST_COMPLETED)
        late = Lateness(float(np.percentile(self._late_ms, 99)), max(self._late_ms))
        print(msgspec.json.encode(late).decode(), flush=True)
        os._exit(0)  # asyncio has words for every connection that it loses

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answer a reader's requests until it goes."""
        with suppress(asyncio.IncompleteReadError, ConnectionError):
            while True:
                first = await reader.readexactly(4)
                if first[:1] == b"$":  # its reports of what it got
                    await reader.readexactly(int.from_bytes(first[2:], "big"))
                else:
                    self._answer((first + await reader.readuntil(b"\r\n\r\n")).decode(), writer)
        writer.close()

    def _answer(self, request: str, writer: asyncio.StreamWriter) -> None:
        """As of RFC 2326."""
        method, uri, *_ = request.split()
        headers = dict(line.split(": ", 1) for line in request.split("\r\n")[1:] if line)
        answer = [f"CSeq: {headers['CSeq']}", "Session: 1"]
        body = ""
        if method == "OPTIONS":
            answer.append("Public: OPTIONS, DESCRIBE, SETUP, PLAY, GET_PARAMETER")
        elif method == "DESCRIBE":
            body = DESCRIPTION.format(self._clip.parameters)
            answer += [f"Content-Base: {uri}/", "Content-Type: application/sdp", f"Content-Length: {len(body)}"]
        elif method == "SETUP":
            answer.append("Transport: RTP/AVP/TCP;unicast;interleaved=0-1")
        writer.write("\r\n".join(["RTSP/1.0 200 OK", *answer, "", body]).encode())
        if method == "PLAY":
            self._waiting[int(uri.strip("/").rpartition("/")[2])].append(writer)

    async def _send_all(self, opened: Opened) -> None:
        for number, content in enumerate(self._clip.frames):
            for camera in range(self._cameras):
                due_ns = opened.captured_ns(camera, number)
                await asyncio.sleep(max(due_ns - monotonic_ns(), 0) / 1e9)
                self._send(camera, number, content)
                self._late_ms.append((monotonic_ns() - due_ns) / 1e6)

    def _send(self, camera: int, number: int, content: bytes) -> None:
        if self._frozen is not None and camera == self._frozen.camera and number >= self._frozen.frame:
            return
        if number % self._clip.fps == 0:
            self._watching[camera] += self._waiting.pop(camera, [])
        self._watching[camera] = [writer for writer in self._watching[camera] if not writer.is_closing()]
        for writer in self._watching[camera]:
            writer.write(content)


@contextmanager
def camera_server(clip: Path, cameras: int, frozen: Frozen | None = None) -> Iterator[Opened]:
    """Run it in a process of its own; says at the end how late it was."""
    arguments = [] if frozen is None else [str(frozen.camera), str(frozen.frame)]
    with subprocess.Popen(
        [sys.executable, "-m", "benchmarks.camera_server", str(clip), str(cameras), *arguments],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE,
    ) as process:  # fmt: skip
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            yield msgspec.json.decode(process.stdout.readline(), type=Opened)
            process.stdin.close()
            late = msgspec.json.decode(process.stdout.readline(), type=Lateness)
            print(f"    frames left the server {late.p99_ms:.1f} ms late (p99), {late.largest_ms:.0f} at most")
        finally:
            process.kill()


def main() -> None:
    """Serve."""
    clip, cameras, *frozen = sys.argv[1:]
    with suppress(PermissionError):  # cameras are other machines: readers do not slow them
        os.sched_setscheduler(0, os.SCHED_RR, os.sched_param(1))
    which = Frozen(int(frozen[0]), int(frozen[1])) if frozen else None
    asyncio.run(CameraServer(read_clip(Path(clip)), int(cameras), which).serve())


if __name__ == "__main__":
    main()
