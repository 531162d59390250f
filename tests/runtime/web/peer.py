"""Somebody who watches by WebRTC, through aiortc. As a program it says when pictures come, and never ends."""

from __future__ import annotations

import asyncio
import http.client
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from aiortc import RTCConfiguration, RTCPeerConnection, RTCSessionDescription

TIMEOUT_S = 10.0


class Peer:
    """A viewer.

    Args:
        port: of a page on this machine.
        source: the ID of its camera.
    """

    def __init__(self, port: int, source: str = "front") -> None:
        self._port = port
        self._source = source
        self.connection = RTCPeerConnection(RTCConfiguration(iceServers=[]))
        self.connection.addTransceiver("video", direction="recvonly")
        self._tracks: list[Any] = []
        self.connection.on("track", self._tracks.append)

    async def offer(self) -> str:
        await self.connection.setLocalDescription()
        return self.connection.localDescription.sdp

    async def watch(self) -> str:
        """Ask for the video; returns the answer."""
        status, answer = await asyncio.to_thread(post_offer, self._port, await self.offer(), self._source)
        assert status == 200, answer
        await self.connection.setRemoteDescription(RTCSessionDescription(answer, "answer"))
        return answer

    async def picture(self) -> Any:
        """The next one, (H, W, 3) uint8 BGR."""
        frame = await asyncio.wait_for(self._tracks[0].recv(), TIMEOUT_S)
        return frame.to_ndarray(format="bgr24")


@asynccontextmanager
async def peer(port: int, source: str = "front") -> AsyncIterator[Peer]:
    """A viewer who says goodbye."""
    watching = Peer(port, source)
    try:
        yield watching
    finally:
        await watching.connection.close()


def post_offer(port: int, offer: str, source: str = "front", **headers: str) -> tuple[int, str]:
    """Status and text of the answer."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=8)
    try:
        headers = {"Origin": f"http://127.0.0.1:{port}", **headers}
        connection.request("POST", f"/api/sources/{source}/webrtc", offer, headers)
        answer = connection.getresponse()
        return answer.status, answer.read().decode()
    finally:
        connection.close()


async def _watch_for_ever(port: int) -> None:
    watching = Peer(port)
    await watching.watch()
    while True:
        await watching.picture()
        sys.stdout.write("picture\n")
        sys.stdout.flush()


if __name__ == "__main__":
    asyncio.run(_watch_for_ever(int(sys.argv[1])))
