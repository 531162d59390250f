"""Building a plan in a process of its own: `python -m vidseg.runtime.engines.tensorrt.build_child FOLDER`

The builder can use up memory until the system kills its process, and end it in ways that no `except` sees; so it never
runs in ours. Reads `request.json`, `model.onnx` and `timing` of the folder; writes `plan`, `timing` and last
`outcome.json` there, and the share that is done to its standard output, a number a line. When its standard
input ends, whoever started it is gone: it removes the folder and ends.
"""

from __future__ import annotations

import os
import resource
import shutil
import sys
import threading
import traceback
from pathlib import Path
from time import perf_counter
from typing import TextIO

import msgspec

from vidseg.runtime.engines.tensorrt import libcuda
from vidseg.runtime.engines.tensorrt.library import Library, load_library
from vidseg.runtime.engines.tensorrt.network import build_network
from vidseg.runtime.engines.tensorrt.request import BuildRequest, NetworkError
from vidseg.runtime.errors import EngineError

REQUEST, MODEL, TIMING, PLAN, OUTCOME = "request.json", "model.onnx", "timing", "plan", "outcome.json"


class Failure(msgspec.Struct, frozen=True):
    """Why there is no plan; the parts of an `EngineError`."""

    what: str
    got: str
    do: str


class Outcome(msgspec.Struct, frozen=True, kw_only=True):
    """What came of a build.

    Attributes:
        failure: why there is no plan; None where there is one.
        build_s: time the library took.
        peak_memory_bytes: of the process.
        errors: that the library logged all the same: kernels that it could not try, for want of memory say.
    """

    failure: Failure | None
    build_s: float
    peak_memory_bytes: int
    errors: tuple[str, ...]


def build(folder: Path, library: Library, request: BuildRequest, progress: TextIO) -> Outcome:
    """Do what a folder asks for; see above."""
    started = perf_counter()
    failure = None
    try:
        _check_device(library)
        built = build_network(
            library,
            (folder / MODEL).read_bytes(),
            request,
            (folder / TIMING).read_bytes(),
            lambda share: _tell(progress, share),
        )
        (folder / PLAN).write_bytes(built.plan)
        (folder / TIMING).write_bytes(built.timing)
    except NetworkError as error:
        failure = Failure(*error.args)
    return Outcome(
        failure=failure,
        build_s=perf_counter() - started,
        peak_memory_bytes=resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
        errors=tuple(library.take_errors()),
    )


def _check_device(library: Library) -> None:
    """Nothing of TensorRT may be made where the driver does not work: 8.6 ends the process."""
    reason = None if library.abilities.ahead_of_time else libcuda.available()
    if reason is not None:
        raise NetworkError("there is no GPU for TensorRT", reason, "Try `vidseg doctor`.")


def _tell(progress: TextIO, share: float) -> None:
    """Write how much is done. The library calls it, and takes no exceptions."""
    try:
        progress.write(f"{share:.4f}\n")
        progress.flush()
    except OSError:
        os._exit(1)  # nobody is there any more


def _end_with_parent(folder: Path) -> None:
    while sys.stdin.buffer.read(1024):
        pass
    shutil.rmtree(folder, ignore_errors=True)
    os._exit(1)


def main() -> None:
    """Do what the command line says, then leave without the library's destructors, which have crashed."""
    progress = os.fdopen(os.dup(1), "w", encoding="ascii")
    os.dup2(2, 1)  # what the library prints itself
    folder = Path(sys.argv[1])
    threading.Thread(target=_end_with_parent, args=(folder,), daemon=True).start()
    code = 1
    try:
        request = msgspec.json.decode((folder / REQUEST).read_bytes(), type=BuildRequest)
        outcome = build(folder, load_library(request.module), request, progress)
        (folder / OUTCOME).write_bytes(msgspec.json.encode(outcome))
        code = 0
    except EngineError as error:
        print(error, file=sys.stderr)  # noqa: T201 - read by whoever started this
    except Exception:  # noqa: BLE001 - the same
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


if __name__ == "__main__":
    main()
