"""The process that builds a plan, from outside: starting it, waiting for it, and what its end says."""

from __future__ import annotations

import logging
import os
import selectors
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory, gettempdir
from typing import IO

import msgspec

from vidseg.runtime.decoding import CLASS_MAP
from vidseg.runtime.engines.opening import Progress, nothing_said
from vidseg.runtime.engines.tensorrt import build_child
from vidseg.runtime.engines.tensorrt.request import LESS_MEMORY, BuildRequest
from vidseg.runtime.errors import EngineError

log = logging.getLogger(__name__)

_KEPT_STDERR = 8192
_POLL_S = 0.1
_DOCTOR = "Try `vidseg doctor`."


@dataclass(frozen=True, slots=True)
class BuildOptions:
    """How a build goes.

    Attributes:
        outputs: names of those that the plan gives.
        progress: called every now and then with the share that is done, 0..1, 0 where the library does not tell it.
            What it raises ends the build.
        timeout_s: after which the build is stopped.
    """

    outputs: tuple[str, ...] = (CLASS_MAP,)
    progress: Progress = nothing_said
    timeout_s: float = 3600.0


@dataclass(frozen=True, slots=True, eq=False)
class BuiltPlan:
    """A new plan.

    Attributes:
        plan: for the device that it was built for.
        timing: what the library has timed, for the next build; b"" where it keeps nothing.
        build_s: time the library took.
        peak_memory_bytes: of its process.
        errors: that the library logged all the same.
    """

    plan: bytes
    timing: bytes
    build_s: float
    peak_memory_bytes: int
    errors: tuple[str, ...]


def run_build(name: str, request: BuildRequest, graph: bytes, timing: bytes, options: BuildOptions) -> BuiltPlan:
    """Build a plan, and wait for it. An exception here, as of Ctrl-C, ends the build.

    Args:
        name: of the model, for messages.
        request: what to build.
        graph: the ONNX file.
        timing: what an earlier build has kept, or b"".
        options: how the build goes.

    Raises:
        EngineError: TensorRT refuses it, crashes, runs out of memory or of time.
    """
    files = {
        build_child.REQUEST: msgspec.json.encode(request),
        build_child.MODEL: graph,
        build_child.TIMING: timing,
    }
    try:
        with TemporaryDirectory(prefix="vidseg-build-") as folder:
            return _built(name, Path(folder), files, options)
    except OSError as error:
        size_mib = len(graph) >> 20
        raise EngineError(
            f"{name}: its plan cannot be built in {gettempdir()}",
            f"{error.strerror or error}",
            f"It needs some {3 * size_mib + 10} MiB there; TMPDIR names another folder.",
        ) from error


def _built(name: str, folder: Path, files: Mapping[str, bytes], options: BuildOptions) -> BuiltPlan:
    for file, content in files.items():
        (folder / file).write_bytes(content)
    returncode, said = _run(name, folder, options)
    if returncode != 0:
        got, do = _ending(returncode, said)
        raise EngineError(f"{name}: the build of its plan did not end well", got, do)
    outcome = msgspec.json.decode((folder / build_child.OUTCOME).read_bytes(), type=build_child.Outcome)
    if outcome.failure is not None:
        raise EngineError(f"{name}: {outcome.failure.what}", outcome.failure.got, outcome.failure.do)
    for error in outcome.errors:
        log.info("while building: %s", error)
    return BuiltPlan(
        (folder / build_child.PLAN).read_bytes(),
        (folder / build_child.TIMING).read_bytes(),
        outcome.build_s,
        outcome.peak_memory_bytes,
        outcome.errors,
    )


def _run(name: str, folder: Path, options: BuildOptions) -> tuple[int, str]:
    """Run the child to its end, and return its code and the end of what it printed. It dies with this process."""
    deadline = time.monotonic() + options.timeout_s
    with (folder / "stderr").open("w+b") as stderr:
        process = subprocess.Popen(  # noqa: S603 - our own interpreter and module
            [sys.executable, "-m", build_child.__name__, str(folder)],
            cwd=folder, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=stderr, start_new_session=True,
        )  # fmt: skip
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            in_time = _follow(process.stdout, options.progress, deadline)
            if in_time:
                process.wait(max(deadline - time.monotonic(), 1))
        except subprocess.TimeoutExpired:
            in_time = False
        finally:
            process.kill()
            process.wait()
            process.stdin.close()
            process.stdout.close()
        if not in_time:
            raise EngineError(
                f"{name}: the build of its plan was stopped",
                f"no plan after {options.timeout_s:g} s",
                "Take a lower --optimization-level, or a smaller batch.",
            )
        stderr.seek(0, os.SEEK_END)
        stderr.seek(max(stderr.tell() - _KEPT_STDERR, 0))
        return process.returncode, stderr.read().decode(errors="replace")


def _follow(stdout: IO[bytes], progress: Progress, deadline: float) -> bool:
    """Pass on what the child tells, until it ends; False where that takes too long."""
    rest, done = b"", 0.0
    with selectors.DefaultSelector() as selector:
        selector.register(stdout, selectors.EVENT_READ)
        while time.monotonic() < deadline:
            progress(done)
            if not selector.select(min(_POLL_S, max(deadline - time.monotonic(), 0))):
                continue
            content = os.read(stdout.fileno(), 4096)
            if not content:
                return True
            *lines, rest = (rest + content)[-4096:].split(b"\n")
            done = max([done, *filter(None, map(_share, lines))])  # phases begin again; a bar does not
    return False


def _share(line: bytes) -> float | None:
    with suppress(ValueError):
        share = float(line)
        return share if 0 <= share <= 1 else None
    return None


def _ending(returncode: int, said: str) -> tuple[str, str]:
    """How the child ended, and what to do."""
    lines = [line.strip() for line in said.splitlines() if line.strip()]
    last = lines[-1][:200] if lines else ""
    if returncode == -signal.SIGKILL:
        return "it was killed, as the system does when it is out of memory", LESS_MEMORY
    if "bad_alloc" in said or "MemoryError" in said:
        return "out of memory", LESS_MEMORY
    if returncode < 0:
        return f"it crashed with {signal.Signals(-returncode).name}" + (f", {last}" if last else ""), _DOCTOR
    return f"exit code {returncode}" + (f", {last}" if last else ""), _DOCTOR
