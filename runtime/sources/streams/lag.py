"""How far a stream's decoder is behind the camera, and what to leave out so that it catches up.

The camera's clock and ours are not the same, so only changes count: the least difference of arrival and time stamp that
was seen is no lag. It may grow slowly, because clocks drift.
"""

from __future__ import annotations

from typing import Literal, TypeAlias

Skip: TypeAlias = Literal["DEFAULT", "NONREF", "NONKEY"]
"""FFmpeg's `skip_frame`: nothing but what is useless, all that no other picture needs, all but key frames."""

MAX_LAG_S = 0.4
"""Above this, pictures are left out that no others need."""

FAR_BEHIND_S = 1.2
"""Above this, all but key frames."""

CAUGHT_UP_S = 0.1

MAX_DRIFT = 200e-6
"""Of a camera's clock against ours: quartz without compensation has 100 parts in a million, twice of it here."""

MAX_CATCH_UP_S = 10.0
"""Key frames alone are decoded in no time: a lag that lasts longer is none; it was measured from a false time stamp."""

MAX_JUMP_S = 60.0
"""Time stamps that jump further, in either direction, have begun anew."""


class LagMeter:
    """Told of each picture, knows what may be left out."""

    def __init__(self) -> None:
        self._least_s: float | None = None
        self._last_s = 0.0
        self._behind_since_s = 0.0
        self.skip: Skip = "DEFAULT"
        self.lag_s = 0.0

    def decoded(self, now_s: float, stamp_s: float) -> Skip:
        """A picture with a time stamp was decoded now; returns what to leave out from here on.

        Args:
            now_s: our monotonic clock.
            stamp_s: the picture's time, by the camera's clock.
        """
        difference_s = now_s - stamp_s
        lasts = self.skip == "NONKEY" and now_s - self._behind_since_s > MAX_CATCH_UP_S
        if self._least_s is None or lasts or abs(difference_s - self._least_s) > MAX_JUMP_S:
            self._least_s, self._last_s = difference_s, now_s
        drifted_s = self._least_s + (now_s - self._last_s) * MAX_DRIFT
        self._least_s, self._last_s = min(difference_s, drifted_s), now_s
        self.lag_s = difference_s - self._least_s
        if self.lag_s > FAR_BEHIND_S:
            self._behind_since_s = self._behind_since_s if self.skip == "NONKEY" else now_s
            self.skip = "NONKEY"
        elif self.lag_s > MAX_LAG_S and self.skip == "DEFAULT":
            self.skip = "NONREF"
        elif self.lag_s < CAUGHT_UP_S:
            self.skip = "DEFAULT"
        return self.skip
