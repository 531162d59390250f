"""`Peers`: who watches by WebRTC, through aiortc."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from functools import cache, partial
from importlib import import_module
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from vidseg.runtime.web.address import is_ip
from vidseg.runtime.web.board import Board
from vidseg.runtime.web.pictures import Encoder
from vidseg.runtime.web.video import Video, VideoViewer, can_encode

if TYPE_CHECKING:
    from aiortc import RTCPeerConnection

log = logging.getLogger(__name__)

MAX_PEERS = 8
MAX_VIDEOS = 4
"""Sources that are encoded at a time: each takes a share of a core."""

CONNECT_TIMEOUT_S = 10.0
"""From the answer to the first word of the other side."""

CHECK_INTERVAL_S = 2.0
SILENT_CHECKS = 4
"""So often in a row pictures went out and no receiver report (RFC 3550, 6.4) came, until a viewer is taken for gone.
Browsers send one each second; one that is closed may say nothing, and the consent of RFC 7675 lasts half a minute."""

ANSWER_TIMEOUT_S = 3.0
CLOSE_TIMEOUT_S = 1.0

CODECS = frozenset({"video/H264", "video/rtx"})

_NEEDED = ("a=ice-ufrag:", "a=ice-pwd:", "a=fingerprint:", "a=rtcp-mux")
_NOT_TAKEN = ("a=candidate:", "a=end-of-candidates", "a=remote-candidates:")


class OfferError(Exception):
    """An offer that is not answered."""


class TooManyError(Exception):
    """No more can watch."""


class Peers:
    """Sends the pictures to browsers. Each source is encoded once for all. Used by one thread, where its loop runs.

    Nothing leaves this machine but what goes to those who ask: there is no STUN server, the one candidate (RFC 8445) is
    the address at which the offer came in, and addresses that an offer names are not written to; the other side is
    whoever knows the answer's password.

    Args:
        board: where the pictures come from.
        encoder: draws what is to be seen.
        connect_timeout_s, check_interval_s: see the constants.
    """

    def __init__(
        self,
        board: Board,
        encoder: Encoder,
        connect_timeout_s: float = CONNECT_TIMEOUT_S,
        check_interval_s: float = CHECK_INTERVAL_S,
    ) -> None:
        self._board = board
        self._encoder = encoder
        self.connect_timeout_s = connect_timeout_s
        self.check_interval_s = check_interval_s
        self._videos: dict[str, Video] = {}
        self._encoders: dict[str, asyncio.Task[None]] = {}
        self._peers: set[asyncio.Task[None]] = set()
        self._is_possible = find_spec("aiortc") is not None and can_encode()
        self._is_closed = False
        self._encoded = 0

    @property
    def count(self) -> int:
        """How many watch, those included that are about to."""
        return len(self._peers)

    @property
    def room(self) -> int:
        """How many more can; 0 where aiortc or an encoder is missing."""
        return MAX_PEERS - self.count if self._is_possible and not self._is_closed else 0

    @property
    def encoded(self) -> int:
        """Pictures that were encoded."""
        return self._encoded + sum(video.encoded for video in self._videos.values())

    async def answer(self, offer: str, name: str, host: str) -> str:
        """Take one more who watches a source.

        Args:
            offer: SDP (RFC 8866) of one video that the other side receives.
            name: of the source.
            host: IP address of this machine at which the offer came in.

        Returns:
            The answer, SDP.

        Raises:
            TooManyError: there is no room.
            OfferError: it is not understood, or asks for something else.
        """
        if not self.room or (name not in self._videos and len(self._videos) >= MAX_VIDEOS):
            raise TooManyError
        answered: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        peer = asyncio.create_task(self._serve(checked_offer(offer), name, host, answered))
        self._peers.add(peer)
        peer.add_done_callback(self._peers.discard)
        peer.add_done_callback(lambda _: _fail(answered, OfferError("the page ends")))
        try:
            return await asyncio.wait_for(answered, ANSWER_TIMEOUT_S)
        except asyncio.TimeoutError:
            peer.cancel()
            raise OfferError("the offer took too long") from None

    async def close(self) -> None:
        """Send all away, within a second. Idempotent."""
        self._is_closed = True
        tasks = [*self._peers, *self._encoders.values()]
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks, timeout=CLOSE_TIMEOUT_S)

    async def _serve(self, offer: str, name: str, host: str, answered: asyncio.Future[str]) -> None:
        """One who watches, from the offer to the end."""
        try:
            await asyncio.to_thread(import_module, "aiortc")  # half a second, the first time
            with self._watched(name) as viewer:
                peer, connected, ended = _new_peer(viewer)
                self._encoders[name].add_done_callback(lambda _: ended.set())
                try:
                    answered.set_result(await _negotiate(peer, offer, host))
                    await self._attend(peer, connected, ended)
                finally:
                    await peer.close()
        except OfferError as error:
            _fail(answered, error)
        except Exception as error:  # noqa: BLE001 - aiortc raises anything for what it does not understand
            log.debug("an offer was not answered: %s: %s", type(error).__name__, error)
            _fail(answered, OfferError("the offer is not understood"))

    async def _attend(self, peer: RTCPeerConnection, connected: asyncio.Event, ended: asyncio.Event) -> None:
        """Wait until the other side is gone, whether or not it says so."""
        if not await _has_come(connected, self.connect_timeout_s):
            return
        hearing = _Hearing()
        while hearing.silent_checks < SILENT_CHECKS and not await _has_come(ended, self.check_interval_s):
            hearing.check((await peer.getSenders()[0].getStats()).values())

    @contextmanager
    def _watched(self, name: str) -> Iterator[VideoViewer]:
        """A viewer of a source's video, which is encoded as long as there is one."""
        video = self._videos.get(name)
        if video is None:
            video = self._videos[name] = Video(name, self._board, self._encoder)
            self._encoders[name] = asyncio.create_task(_encode(video))
        try:
            with video.watched() as viewer:
                yield viewer
        finally:
            if not video.has_viewers:
                self._encoded += video.encoded
                del self._videos[name]
                self._encoders.pop(name).cancel()


class _Hearing:
    """Counts how often in a row pictures went out and nothing came back."""

    def __init__(self) -> None:
        self.silent_checks = 0
        self._sent = 0
        self._heard_at: object = None

    def check(self, stats: Iterable[Any]) -> None:
        """Look at a sender's statistics."""
        by_type = {one.type: one for one in stats}
        sent = by_type["outbound-rtp"].packetsSent
        heard_at = getattr(by_type.get("remote-inbound-rtp"), "timestamp", None)
        is_silent = sent != self._sent and heard_at == self._heard_at
        self.silent_checks = self.silent_checks + 1 if is_silent else 0
        self._sent, self._heard_at = sent, heard_at


async def _has_come(event: asyncio.Event, timeout_s: float) -> bool:
    with suppress(asyncio.TimeoutError):
        await asyncio.wait_for(event.wait(), timeout_s)
    return event.is_set()


def checked_offer(offer: str) -> str:
    """An offer without the addresses in it.

    Raises:
        OfferError: it has something else than one video.
    """
    lines = offer.splitlines()
    media = [line for line in lines if line.startswith("m=")]
    if not lines or lines[0] != "v=0" or len(media) != 1 or not media[0].startswith("m=video "):
        raise OfferError("an offer of one video is needed")
    if not all(any(line.startswith(needed) for line in lines) for needed in _NEEDED):
        raise OfferError("the offer is not complete")
    return "\r\n".join([*(line for line in lines if not line.startswith(_NOT_TAKEN)), ""])


def _new_peer(viewer: VideoViewer) -> tuple[RTCPeerConnection, asyncio.Event, asyncio.Event]:
    """A connection that sends what comes to a viewer, and events that are set when it has come about and has ended."""
    from aiortc import RTCConfiguration, RTCPeerConnection, RTCRtpSender

    peer = RTCPeerConnection(RTCConfiguration(iceServers=[]))
    connected, ended = asyncio.Event(), asyncio.Event()

    def heed() -> None:
        if peer.connectionState == "connected":
            connected.set()
        elif peer.connectionState in {"failed", "closed"}:
            connected.set()
            ended.set()

    peer.on("connectionstatechange", heed)
    transceiver = peer.addTransceiver(_track_class()(viewer), direction="sendonly")
    transceiver.setCodecPreferences(
        [codec for codec in RTCRtpSender.getCapabilities("video").codecs if codec.mimeType in CODECS]
    )
    return peer, connected, ended


async def _negotiate(peer: RTCPeerConnection, offer: str, host: str) -> str:
    from aiortc import RTCSessionDescription

    if not is_ip(host):
        raise OfferError("this address is not served by WebRTC")
    gatherer = peer.getTransceivers()[0].sender.transport.transport.iceGatherer
    # aiortc has no setting for this: by default all addresses of the machine are opened and told.
    connection = gatherer._connection  # noqa: SLF001
    at_host = partial(_at_one_address, connection.get_component_candidates, host)
    connection.get_component_candidates = at_host  # type: ignore[method-assign]
    await peer.setRemoteDescription(RTCSessionDescription(offer, "offer"))
    await peer.setLocalDescription()
    if [candidate.ip for candidate in gatherer.getLocalCandidates()] != [host]:
        raise OfferError("the address cannot be opened")
    return peer.localDescription.sdp


async def _at_one_address(gather: Callable[..., Awaitable[Any]], host: str, component: int, **_: object) -> Any:
    return await gather(component=component, addresses=[host])


@cache
def _track_class() -> Any:
    from aiortc import MediaStreamTrack

    class ViewerTrack(MediaStreamTrack):
        kind = "video"

        def __init__(self, viewer: VideoViewer) -> None:
            super().__init__()
            self._viewer = viewer

        async def recv(self) -> Any:
            return await self._viewer.get()

    return ViewerTrack


async def _encode(video: Video) -> None:
    try:
        await video.encode()
    except Exception as error:  # noqa: BLE001 - its viewers see no new picture, and take MJPEG
        log.error("the page cannot encode video: %s: %s", type(error).__name__, error)


def _fail(answered: asyncio.Future[str], error: OfferError) -> None:
    if not answered.done():
        answered.set_exception(error)
