"""`scene://street`: the rendered street as a source, live or as fast as it is taken."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from urllib.parse import parse_qsl

from vidseg.runtime.clock import Clock
from vidseg.runtime.errors import UsageError
from vidseg.runtime.frame import UNKNOWN, ClassMap, Frame
from vidseg.runtime.sources.street.code import StreetCode, code_height, write_code
from vidseg.runtime.sources.street.render import Street

_FORM = "scene://street?size=640x480&fps=30&seed=0&frames=300&pace=live|max&noise=1|0"


@dataclass(frozen=True, slots=True)
class SceneOptions:
    """What to render.

    Attributes:
        size_wh: of the frames in pixels, 64x48 to 4096x4096.
        fps: frames a second, of the scene's own time and of a live source.
        seed: of everything in the scene.
        frames: how many; None for no end.
        live: paced by the clock; otherwise as fast as frames are taken.
        noise: with sensor noise.
    """

    size_wh: tuple[int, int] = (640, 480)
    fps: float = 30.0
    seed: int = 0
    frames: int | None = None
    live: bool = True
    noise: bool = True

    def __post_init__(self) -> None:
        width, height = self.size_wh
        if not (64 <= width <= 4096 and 48 <= height <= 4096):
            raise UsageError("a scene is 64x48 to 4096x4096", f"{width}x{height}")
        if not 0.001 <= self.fps <= 1000:
            raise UsageError("a scene has 0.001 to 1000 frames a second", f"fps={self.fps:g}")
        if self.seed < 0 or (self.frames is not None and self.frames < 1):
            raise UsageError("a scene's seed is 0 or more, its frames 1 or more", f"{self.seed} and {self.frames}")


class SceneSource:
    """Renders a street with frame number and capture time in the pixels, and exact labels for each frame.

    A live one keeps a fixed schedule: frame i is due i / fps after the first. A reader that comes too late for a frame
    gets the one that is due now; the gap in `Frame.index` shows what was missed.
    """

    def __init__(self, options: SceneOptions | None = None, name: str = "street") -> None:
        self._options = options or SceneOptions()
        self._name = name
        self._street = Street(self._options.seed, self._options.size_wh, noise=self._options.noise)
        self._next = 0
        self._started_ns = 0

    @classmethod
    def from_uri(cls, uri: str) -> SceneSource:
        """Read `scene://street?size=640x480&fps=30&seed=0&frames=300&pace=live|max&noise=1|0`.

        Raises:
            UsageError: another scene, an unknown key, or a value out of range.
        """
        address, _, query = uri.partition("?")
        if address != "scene://street" or len(uri) > 200 or not uri.isprintable():
            raise UsageError(f"{uri[:200]}: there is no such scene", address[:100], f"Use {_FORM}.")
        return cls(_options_from_query(uri, query), name=uri.removeprefix("scene://"))

    @property
    def name(self) -> str:
        """The URI without its scheme."""
        return self._name

    @property
    def live(self) -> bool:
        """True where the clock paces it."""
        return self._options.live

    def open(self, clock: Clock, stop: threading.Event) -> None:
        """Start the schedule."""
        self._clock = clock
        self._stop = stop
        self._started_ns = clock.now_ns()
        self._next = 0

    def read(self) -> Frame | None:
        """The next frame, or the one due now; None after the last, or when stopped."""
        index = self._due_index()
        if index is None or (self._options.frames is not None and index >= self._options.frames):
            return None
        self._next = index + 1
        captured_ns = self._clock.now_ns()
        image, _ = self._street.render(index, index / self._options.fps)
        write_code(image, StreetCode(index, captured_ns // 1000))
        stamp_ns = round(index * 1e9 / self._options.fps)
        return Frame(self._name, 0, index, captured_ns, stamp_ns, "pts", image)

    def close(self) -> None:
        """Nothing to let go of."""

    def labels(self, index: int) -> ClassMap:
        """The exact classes of a frame, (h, w) uint8; 255 where the code lies."""
        _, labels = self._street.render(index, index / self._options.fps)
        labels[-code_height(labels.shape[0]) :] = UNKNOWN
        return labels

    def _due_index(self) -> int | None:
        if not self._options.live:
            return None if self._stop.is_set() else self._next
        interval_ns = 1e9 / self._options.fps
        due_ns = self._started_ns + round(self._next * interval_ns)
        if not self._clock.sleep_until(due_ns, self._stop):
            return None
        newest = int((self._clock.now_ns() - self._started_ns) / interval_ns)
        if self._options.frames is not None and self._next < self._options.frames:
            newest = min(newest, self._options.frames - 1)  # the last one is always given
        return max(self._next, newest)


def _options_from_query(uri: str, query: str) -> SceneOptions:
    values = dict(parse_qsl(query, keep_blank_values=True))
    unknown = sorted(values.keys() - {"size", "fps", "seed", "frames", "pace", "noise"})
    if unknown:
        raise UsageError(f"{uri}: a scene has no {unknown[0]!r}", query, f"Use {_FORM}.")
    pace, noise = values.get("pace", "live"), values.get("noise", "1")
    try:
        if pace not in {"live", "max"} or noise not in {"0", "1"}:
            raise ValueError
        width, height = values.get("size", "640x480").split("x")
        frames = values.get("frames")
        return SceneOptions(
            size_wh=(int(width), int(height)),
            fps=float(values.get("fps", "30")),
            seed=int(values.get("seed", "0")),
            frames=None if frames is None else int(frames),
            live=pace == "live",
            noise=noise == "1",
        )
    except UsageError:
        raise
    except ValueError as error:
        raise UsageError(f"{uri}: a value is not understood", query, f"Use {_FORM}.") from error
