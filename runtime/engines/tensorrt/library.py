"""TensorRT, whichever release is installed: the only file that imports it.

What a release can do is asked of its classes, never told from its version. The numbers of its enumerations move between
releases, so they are always taken from the module that was loaded.
"""

from __future__ import annotations

import importlib
import importlib.util
import logging
import threading
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from vidseg.runtime.engines.tensorrt.messages import telling
from vidseg.runtime.errors import EngineError
from vidseg.runtime.jetson import board_model

log = logging.getLogger("vidseg.tensorrt")

MODULES = ("tensorrt", "tensorrt_rtx", "tensorrt_rtx_bindings")
"""Names that the library may have, the first that is installed is taken: TensorRT, and TensorRT-RTX as it is packed for
download and for pip."""

ABILITIES: Mapping[str, tuple[tuple[str, str], ...]] = {
    "weakly_typed": (("BuilderFlag", "FP16"), ("BuilderFlag", "INT8")),
    "strongly_typed": (("NetworkDefinitionCreationFlag", "STRONGLY_TYPED"),),
    "ranges": (("ITensor", "dynamic_range"), ("ILayer", "precision"), ("BuilderFlag", "PREFER_PRECISION_CONSTRAINTS")),
    "progress": (("IBuilderConfig", "progress_monitor"), ("IProgressMonitor", "step_complete")),
    "ahead_of_time": (("IBuilderConfig", "set_compute_capability"),),
    "optimization_level": (("IBuilderConfig", "builder_optimization_level"),),
    "version_compatible": (("BuilderFlag", "VERSION_COMPATIBLE"),),
    "hardware_compatible": (("HardwareCompatibilityLevel", "AMPERE_PLUS"),),
}
"""What each ability needs of the module: classes and their attributes."""

_ERRORS_KEPT = 20


@dataclass(frozen=True, slots=True)
class Abilities:
    """What a release offers; see `ABILITIES` for how it is told.

    Attributes:
        weakly_typed: flags of the builder choose the data types: 8.5 to 10.
        strongly_typed: the graph's types are the plan's: 10.0 and later, and all of TensorRT-RTX.
        ranges: a tensor takes its INT8 range from the caller, a layer its data type: up to 10.
        progress: a build can be watched and ended: 10.0 and later.
        ahead_of_time: plans are built for a named compute capability, without a GPU: TensorRT-RTX.
        optimization_level: the builder's effort can be set: 8.6 and later.
        version_compatible: plans for later releases of the same major version: 8.6 and later.
        hardware_compatible: plans for other GPUs, Ampere and later: 8.6 and later.
    """

    weakly_typed: bool
    strongly_typed: bool
    ranges: bool
    progress: bool
    ahead_of_time: bool
    optimization_level: bool
    version_compatible: bool
    hardware_compatible: bool


@dataclass(frozen=True, slots=True, eq=False)
class Library:
    """A loaded TensorRT.

    Attributes:
        module: the library; of any release, so without types.
        name: the module's.
        version: as the library tells it.
        logger: what its classes ask for; one for the whole life of the process.
        abilities: what this release offers.
    """

    module: Any
    name: str
    version: str
    logger: Any
    abilities: Abilities

    @property
    def title(self) -> str:
        """For a person: `TensorRT 10.3.0`."""
        return f"TensorRT{'-RTX' if 'rtx' in self.name else ''} {self.version}"

    def last_error(self) -> str:
        """What the library said of a call that has just failed, in one line; "" for nothing. Its calls only say no."""
        return telling(self.take_errors()[::-1])

    def take_errors(self) -> list[str]:
        """The errors that the library has logged since this was called last, the newest of them, in their order."""
        kept: deque[str] = self.logger.errors
        return [kept.popleft() for _ in range(len(kept))]


def installed() -> bool:
    """True where a TensorRT is installed. Does not import it."""
    return _installed_name() is not None


def installed_files() -> tuple[str, int, int] | None:
    """The module's file, its size and its time in ns, which tell one release from the next. Does not import it."""
    name = _installed_name()
    spec = None if name is None else importlib.util.find_spec(name)
    if spec is None or spec.origin is None:
        return None
    try:
        status = Path(spec.origin).stat()
    except OSError:
        return (spec.origin, 0, 0)
    return (spec.origin, status.st_size, status.st_mtime_ns)


def find_library() -> Library:
    """Load the TensorRT that is installed.

    Raises:
        EngineError: none is, or it cannot be loaded.
    """
    name = _installed_name()
    if name is None:
        raise EngineError("there is no TensorRT here", f"no module {' or '.join(MODULES[:2])}", _advice())
    return load_library(name)


def load_library(name: str) -> Library:
    """Load a TensorRT by the name of its module.

    Raises:
        EngineError: it cannot be loaded.
    """
    try:
        module: Any = importlib.import_module(name)
    except Exception as error:  # a broken installation may raise anything
        raise EngineError(f"the module {name} cannot be loaded", str(error)[:300], _advice()) from error
    return Library(module, name, str(module.__version__), _logger(module), _abilities(module))


def _installed_name() -> str | None:
    for name in MODULES:
        spec = importlib.util.find_spec(name)
        if spec is not None and spec.origin is not None:  # stubs alone make a namespace package, of no file
            return name
    return None


def _abilities(module: Any) -> Abilities:
    def has(place: tuple[str, str]) -> bool:
        return hasattr(getattr(module, place[0], None), place[1])

    return Abilities(**{field.name: all(map(has, ABILITIES[field.name])) for field in fields(Abilities)})


def _advice() -> str:
    if board_model():
        return (
            "Install it with JetPack: sudo apt install python3-libnvinfer; "
            "a virtual environment sees it with --system-site-packages."
        )
    return 'Install it: pip install "vidseg[tensorrt]".'


_LOGGERS: dict[str, Any] = {}
_LOGGERS_LOCK = threading.Lock()


def _logger(module: Any) -> Any:
    """The module's one logger: the library keeps the first that it is given, and must never see it collected."""
    with _LOGGERS_LOCK:
        if module.__name__ not in _LOGGERS:
            _LOGGERS[module.__name__] = _make_logger(module)
        return _LOGGERS[module.__name__]


def _make_logger(module: Any) -> Any:
    class Logger(module.ILogger):  # type: ignore[misc]
        """Passes what the library says on to `logging`, mildly: where a call of it fails, we raise what it said."""

        def __init__(self) -> None:
            module.ILogger.__init__(self)
            self.errors: deque[str] = deque(maxlen=_ERRORS_KEPT)

        def log(self, severity: Any, message: str) -> None:
            """Called by the library, in any of its threads; must not raise."""
            name = severity.name
            if name in {"ERROR", "INTERNAL_ERROR"}:
                self.errors.append(message)
            log.log(logging.INFO if name in {"ERROR", "INTERNAL_ERROR", "WARNING"} else logging.DEBUG, "%s", message)

    return Logger()
