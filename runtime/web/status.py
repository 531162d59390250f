"""`StatusTeller`: the state of everything as one JSON document, once a second for all who listen."""

from __future__ import annotations

import asyncio
import json
import logging
from collections import deque
from collections.abc import AsyncGenerator, Sequence
from typing import Any

from vidseg.runtime.clock import Clock
from vidseg.runtime.manifest import ClassSpec
from vidseg.runtime.pipeline.status import status_document
from vidseg.runtime.results.regions import shares_of
from vidseg.runtime.web.board import Board, Shown, SourceView
from vidseg.runtime.web.outputs import outputs_of
from vidseg.runtime.web.pictures import Viewers
from vidseg.runtime.web.webrtc import Peers

log = logging.getLogger(__name__)

INTERVAL_S = 1.0

HISTORY = 180
"""Documents of the past that a new listener gets: three minutes."""

READY_WITHIN_NS = 5_000_000_000
"""As long as the newest result of all may be out before the health page says so."""


class StatusTeller:
    """Puts together what the page shows. Used by one thread.

    Args:
        board: of the sources.
        viewers, peers: to count them.
        classes: of the model.
        clock: of the board.
    """

    def __init__(
        self, board: Board, viewers: Viewers, peers: Peers, classes: Sequence[ClassSpec], clock: Clock
    ) -> None:
        self._board = board
        self._viewers = viewers
        self._peers = peers
        self._classes = classes
        self._clock = clock
        self._shares: dict[str, tuple[int, list[float] | None]] = {}
        self._history: deque[str] = deque(maxlen=HISTORY)
        self._told = asyncio.Event()

    def document(self) -> dict[str, Any]:
        """The state at this instant. `statistics` and `overlay` are None before the pipeline is there.

        `shares` of a source are in the order of the classes; None where they are not known.
        """
        controlled = self._board.controlled
        style = None if controlled is None else controlled.overlay()
        views = self._board.views()
        self._keep_only({view.name for view in views})
        return {
            "now_unix_ms": self._clock.wall_ns() // 1_000_000,
            "statistics": None if controlled is None else status_document(controlled.statistics(), final=False),
            "sources": [self._source(view) for view in views],
            "overlay": None if style is None else {"alpha": style.alpha, "hidden": list(style.hidden)},
            "outputs": outputs_of(controlled),
            "viewers": self._viewers.count,
            "webrtc": {"viewers": self._peers.count, "room": self._peers.room},
        }

    def classes(self) -> list[dict[str, Any]]:
        """Names and colours, in the order of their ids."""
        return [{"name": spec.name, "color_rgb": list(spec.color_rgb)} for spec in self._classes]

    def not_ready(self) -> list[str]:
        """Why no results come, or not to where they should, one reason a line, without names; empty where all is well.

        Names are not for everybody who may ask: those of stages and sinks hold addresses of cameras and servers.
        """
        return [*self._of_results(), *self._of_parts()]

    def _of_parts(self) -> list[str]:
        controlled = self._board.controlled
        if controlled is None:
            return []
        statistics = controlled.statistics()
        reasons = []
        if statistics.hanging:
            reasons.append(
                f"{len(statistics.hanging)} {'stage hangs' if len(statistics.hanging) == 1 else 'stages hang'}"
            )
        if statistics.detached:
            reasons.append(f"{len(statistics.detached)} of {len(statistics.ledger.sinks)} sinks: failed")
        return reasons

    def _of_results(self) -> list[str]:
        views = self._board.views()
        newest_ns = max((view.shown.received_ns for view in views), default=0)
        now_ns = self._clock.now_ns()
        if newest_ns and now_ns - newest_ns <= READY_WITHIN_NS:
            return []
        states: dict[str, int] = {}
        for view in views:
            states[view.state] = states.get(view.state, 0) + 1
        reasons = [f"{count} of {len(views)} sources: {state}" for state, count in sorted(states.items())]
        last = f"no result for {(now_ns - newest_ns) / 1e9:.0f} s" if newest_ns else "no result yet"
        return [last, *(reasons or ["no source"])]

    async def tell(self) -> None:
        """Make a document each second, for ever."""
        while True:
            try:
                self._history.append(json.dumps(self.document(), separators=(",", ":")))
                self._told.set()
                self._told = asyncio.Event()
            except Exception as error:  # noqa: BLE001 - one document; the next may be good again
                log.error("the page has no status: %s: %s", type(error).__name__, error)
            await asyncio.sleep(INTERVAL_S)

    async def events(self) -> AsyncGenerator[bytes, None]:
        """Server-sent events (WHATWG HTML, 9.2): `classes`, `past` for each document of the past, `now` each second.

        A slow listener misses some.
        """
        yield _event("classes", json.dumps(self.classes(), separators=(",", ":")))
        yield b"".join(_event("past", text) for text in list(self._history)[:-1])
        if self._history:
            yield _event("now", self._history[-1])
        while True:
            await self._told.wait()
            yield _event("now", self._history[-1])

    def _keep_only(self, names: set[str]) -> None:
        """Forget what was made of sources that were removed."""
        self._shares = {name: found for name, found in self._shares.items() if name in names}
        self._viewers.encoder.keep_only(names)

    def _source(self, view: SourceView) -> dict[str, Any]:
        segmentation = view.shown.segmentation
        image = None if segmentation is None else segmentation.frame.image
        offset_ns = self._clock.wall_ns() - self._clock.now_ns()
        is_live = view.state == "live"
        return {
            "id": view.id,
            "name": view.name,
            "generation": view.generation,
            "state": view.state,
            "since_unix_ms": None if view.since_ns is None else (offset_ns + view.since_ns) // 1_000_000,
            "size_wh": None if image is None else [image.shape[1], image.shape[0]],
            "fps": round(view.fps, 2),
            "age_ms": round(segmentation.age_ms, 1) if segmentation is not None and is_live else None,
            "late": segmentation is not None and segmentation.late and is_live,
            "shares": self._shares_of(view.name, view.shown) if is_live else None,
        }

    def _shares_of(self, name: str, shown: Shown) -> list[float] | None:
        if name not in self._shares or self._shares[name][0] != shown.version:
            found = None
            if shown.segmentation is not None and not shown.segmentation.late:
                found = [round(share, 4) for share in shares_of(shown.segmentation, self._classes).values()]
            self._shares[name] = (shown.version, found)
        return self._shares[name][1]


def _event(kind: str, text: str) -> bytes:
    return f"event: {kind}\ndata: {text}\n\n".encode()
