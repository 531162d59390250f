"""Every error that vidseg raises on purpose, and the exit code that each one ends a command with.

VidsegError                                                  1  fault while running
├── UsageError            (ValueError)                       2  the call itself makes no sense
├── ConfigurationError    (ValueError)                       3  an input that a person can mend
│   ├── BundleError                                          3  a bundle that is damaged or not one
│   ├── ModelError                                           3  a model that cannot be exported
│   └── DatasetError                                         3  images or labels that do not fit
├── EngineError           (RuntimeError)                     4  inference cannot start or go on
├── SourceError           (OSError)                          5  frames stop coming
│   ├── SourceOpenError                                      5  a source that never gave a frame
│   │   └── SourceRefusedError                               5  one that says no: a wrong password, no such stream
│   └── SourceLostError                                      5  a source that gave frames, then none
├── FrameError            (ValueError)                       1  one bad frame; the source goes on
├── SinkError             (OSError)                          1  a result that cannot be delivered
├── StopTimeoutError      (TimeoutError)                     1  a thread that outlived stop()
├── OpeningCancelledError                                    1  an engine that nobody waits for any more
└── DeviceError           (RuntimeError)                     6  a GPU or display that is not there
"""

from __future__ import annotations

MAX_CHARACTERS = 1000
"""Of a message: a path or a value that somebody made long on purpose fills no log."""


class VidsegError(Exception):
    """Base of all. The message is one line: what is wrong, what was got, what to do.

    Args:
        what: the thing and what is wrong with it, without a full stop.
        got: what was found instead, or "".
        do: a sentence that says how to mend it, or "".
    """

    exit_code = 1

    def __init__(self, what: str, got: str = "", do: str = "") -> None:
        line = what + (f": got {got}" if got else "") + "." + (f" {do}" if do else "")
        printable = "".join(character if character.isprintable() else " " for character in line)
        line = " ".join(printable.split())
        super().__init__(line if len(line) <= MAX_CHARACTERS else f"{line[: MAX_CHARACTERS - 1]}…")


class UsageError(VidsegError, ValueError):
    """The arguments of a call or command make no sense together."""

    exit_code = 2


class ConfigurationError(VidsegError, ValueError):
    """An input file, option or value that a person has to mend."""

    exit_code = 3


class BundleError(ConfigurationError):
    """A bundle that is damaged, unsafe, of an unknown format, or no bundle at all."""


class ModelError(ConfigurationError):
    """A model that cannot be exported as it is."""


class DatasetError(ConfigurationError):
    """Images or labels that are missing or do not fit each other."""


class EngineError(VidsegError, RuntimeError):
    """Inference that cannot start or cannot go on."""

    exit_code = 4


class SourceError(VidsegError, OSError):
    """Frames that do not come, or stop coming."""

    exit_code = 5


class SourceOpenError(SourceError):
    """A source that never gave a frame."""


class SourceRefusedError(SourceOpenError):
    """A source that says no, and will say so again: a wrong password, no such stream, not a video."""


class SourceLostError(SourceError):
    """A source that gave frames and then failed."""


class FrameError(VidsegError, ValueError):
    """One frame that cannot be used; the next `read()` goes on."""


class SinkError(VidsegError, OSError):
    """A result that cannot be delivered: a full disk, a closed file."""


class StopTimeoutError(VidsegError, TimeoutError):
    """A thread that was still alive when the time given to `stop()` was over."""


class OpeningCancelledError(VidsegError):
    """An engine that is not opened to the end, because the run ends; no fault of anything."""


class DeviceError(VidsegError, RuntimeError):
    """A device that is not there or has failed: a GPU, a display."""

    exit_code = 6
