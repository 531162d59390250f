"""Plans that were built, kept for the next start.

A plan is code for one GPU and one TensorRT, so nothing of it reaches TensorRT before what stands beside it fits this
machine, field by field, and its checksum is right: TensorRT itself does not notice a flipped byte. Any trouble with the
folder costs a build, never the run.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import logging
import os
import stat
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

import msgspec

from vidseg.runtime.bundle import sha256_of
from vidseg.runtime.cache import private_folder
from vidseg.runtime.engines.tensorrt.refusal import read_refusal, refusal_of
from vidseg.runtime.engines.tensorrt.settings import BuildSettings
from vidseg.runtime.engines.tensorrt.sidecar import PlanFacts, Sidecar, mismatch, read_sidecar
from vidseg.runtime.errors import ConfigurationError, EngineError

log = logging.getLogger(__name__)

LIMIT_BYTES = 4 << 30
"""Of all files together; the plans that were not used for longest go first."""

COSTLY_S = 10.0
"""What fails sooner may as well be tried at every start."""

_MAX_SIDECAR_BYTES = 1 << 16
_MAX_TIMING_BYTES = 256 << 20
_SHA256_BYTES = 32
_LOCK = "lock"
_PART = ".part-"
_SMALL = ".small-"
"""Of files that are written without the lock, and so are nobody's leftovers."""

_POLL_S = 0.05


@dataclass(frozen=True, slots=True)
class PlanKey:
    """What a plan is built of, and for which GPU: its place in the cache.

    Attributes:
        onnx_sha256: of the graph.
        settings: how it is built.
        device_uuid: of the GPU.
        extra: what else the plan depends on, as plain values.
    """

    onnx_sha256: str
    settings: BuildSettings
    device_uuid: str
    extra: Mapping[str, object] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """A hash of all of it, 64 hexadecimal digits; without the GPU's number where other GPUs may take the plan."""
        device = "" if self.settings.hardware_compatible else self.device_uuid
        return sha256_of(json.dumps([self.recipe, device]).encode())

    @property
    def recipe(self) -> str:
        """The same for every GPU: what a plan was built of."""
        parts = [self.onnx_sha256, self.settings.document(), dict(self.extra)]
        return sha256_of(json.dumps(parts, sort_keys=True).encode())


class PlanCache:
    """A folder of plans. Several processes may use it at once: one of them builds at a time.

    Args:
        folder: made where it is missing; the user's own, closed to others, no link, else it is not used.
        limit_bytes: of all files together.
        costly_s: a build that fails after this is not tried again for a day.
    """

    def __init__(self, folder: Path, limit_bytes: int = LIMIT_BYTES, costly_s: float = COSTLY_S) -> None:
        self._folder = folder
        self._limit_bytes = limit_bytes
        self._costly_s = costly_s
        self._unkept: dict[str, bytes] = {}
        self._warned: set[str] = set()

    @property
    def folder(self) -> Path:
        """Where they are."""
        return self._folder

    def load(self, key: PlanKey, facts: PlanFacts) -> bytes | None:
        """A plan that fits this machine; None where there is none. The log says why one does not."""
        if not self._is_usable():
            return self._unkept.get(key.name)
        plan, reason = self._read(key, facts)
        if reason:
            log.warning("%s", reason)
        return plan

    def plan(
        self, key: PlanKey, facts: PlanFacts, build: Callable[[], bytes], waiting: Callable[[], None] = lambda: None
    ) -> bytes:
        """A plan from the cache, or built now and kept.

        While another process builds, this waits: two builds at once would disturb each other's timing, and may not find
        room in memory. It ends with the other's plan where that is the same.

        Args:
            key: which plan.
            facts: the machine at hand.
            build: makes the plan; what it raises is passed on.
            waiting: called every now and then while another process builds; what it raises is passed on.
        """
        plan = self.load(key, facts)
        if plan is not None:
            return plan
        with self._locked(waiting) as locked:
            if locked:
                plan, _ = self._read(key, facts)
            if plan is None:
                plan = self._built(key, facts, build, keep=locked)
        return plan

    def _built(self, key: PlanKey, facts: PlanFacts, build: Callable[[], bytes], *, keep: bool) -> bytes:
        refusal = read_refusal(_read_file(self._refusal_path(key), _MAX_SIDECAR_BYTES)) if keep else None
        if refusal is not None and refusal.holds(facts, time.time()):
            raise EngineError(refusal.reason.rstrip("."), "", "It is not tried again today: `vidseg build` does.")
        started = time.perf_counter()
        try:
            plan = build()
        except EngineError as error:
            if keep and time.perf_counter() - started >= self._costly_s:
                self._write_if_possible(self._refusal_path(key), refusal_of(facts, str(error), time.time()))
            raise
        if keep:
            self._keep(key, facts, plan, time.perf_counter() - started)
        else:
            self._unkept[key.name] = plan
        return plan

    def forget(self, key: PlanKey) -> None:
        """Remove a plan, if it is there, and that there is none."""
        self._unkept.pop(key.name, None)
        for path in self._paths(key):
            with suppress(OSError):
                path.unlink()
        self.forget_refusal(key)

    def forget_refusal(self, key: PlanKey) -> None:
        """Try again to build what could not be built before."""
        with suppress(OSError):
            self._refusal_path(key).unlink()

    def timing(self, owner: str) -> bytes:
        """What TensorRT has kept of earlier builds, b"" for nothing. Only for what builds inside of `plan`.

        Args:
            owner: the library's release and the device.
        """
        if not self._is_usable():
            return b""
        content = _read_file(self._timing_path(owner), _MAX_TIMING_BYTES) or b""
        digest, timing = content[:_SHA256_BYTES], content[_SHA256_BYTES:]
        return timing if hashlib.sha256(timing).digest() == digest else b""

    def keep_timing(self, owner: str, content: bytes) -> None:
        """Keep what TensorRT has found out, for the next build. Only for what builds inside of `plan`."""
        try:
            private_folder(self._folder)
            self._write(self._timing_path(owner), hashlib.sha256(content).digest() + content)
        except (ConfigurationError, OSError) as error:
            log.warning("what TensorRT has timed is not kept: %s", error)

    def settings(self, owner: str) -> BuildSettings | None:
        """How plans of an owner are to be built, as was told last; None where nothing was. A damaged file is told."""
        if not self._is_usable():
            return None
        path = self._settings_path(owner)
        content = _read_file(path, _MAX_SIDECAR_BYTES)
        if content is None:
            return None
        digest, document = content[:_SHA256_BYTES], content[_SHA256_BYTES:]
        try:
            if hashlib.sha256(owner.encode() + document).digest() == digest:
                return msgspec.json.decode(document, type=BuildSettings)
        except (msgspec.MsgspecError, RecursionError, ValueError):
            pass  # it was written by another release
        log.warning("%s is damaged: what `vidseg build` was told is not known any more", path)
        return None

    def keep_settings(self, owner: str, settings: BuildSettings | None) -> None:
        """Build an owner's plans like this from now on; None: as if nothing had been told."""
        path = self._settings_path(owner)
        if settings is None:
            with suppress(OSError):
                path.unlink()
            return
        document = msgspec.json.encode(settings)
        self._write_if_possible(path, hashlib.sha256(owner.encode() + document).digest() + document)

    def _is_usable(self) -> bool:
        """True for the user's own folder; the log says once why another one is not used."""
        try:
            private_folder(self._folder)
        except ConfigurationError as error:
            self._warn(f"plans are not kept: {error}")
            return False
        return True

    def _warn(self, text: str) -> None:
        if text not in self._warned:
            self._warned.add(text)
            log.warning("%s", text)

    def _write_if_possible(self, path: Path, content: bytes) -> None:
        try:
            private_folder(self._folder)
            self._write(path, content, f"{_SMALL}{os.getpid()}-{threading.get_ident()}")
        except (ConfigurationError, OSError) as error:
            self._warn(f"what was found out about plans is not kept: {error}")

    def _read(self, key: PlanKey, facts: PlanFacts) -> tuple[bytes | None, str]:
        """The plan, or None and why there is none; "" where none was built yet."""
        plan_path, sidecar_path = self._paths(key)
        try:
            sidecar_path.lstat()
        except OSError:
            return None, self._for_another_gpu(key)
        sidecar = read_sidecar(_read_file(sidecar_path, _MAX_SIDECAR_BYTES))
        if sidecar is None or sidecar.name != key.name:
            return None, f"{sidecar_path} is damaged. Its plan is built again now."
        if reason := mismatch(sidecar, facts, key.settings):
            return None, f"{reason} {sidecar.again}"
        plan = _read_file(plan_path, sidecar.plan_bytes)
        if plan is None or sha256_of(plan) != sidecar.plan_sha256:
            return None, f"{plan_path} is damaged. {sidecar.again}"
        with suppress(OSError):
            os.utime(sidecar_path)  # its last use, for eviction
        return plan, ""

    def _for_another_gpu(self, key: PlanKey) -> str:
        """That the same plan is here for another GPU, which was changed for this one; "" where it is not."""
        for path in self._folder.glob("*.json"):
            sidecar = read_sidecar(_read_file(path, _MAX_SIDECAR_BYTES))
            if sidecar is not None and sidecar.recipe == key.recipe:
                return f"The plan was built for another GPU, {sidecar.gpu}. {sidecar.again}"
        return ""

    def _keep(self, key: PlanKey, facts: PlanFacts, plan: bytes, build_s: float) -> None:
        plan_path, sidecar_path = self._paths(key)
        sidecar = Sidecar(
            **msgspec.structs.asdict(facts),
            name=key.name,
            recipe=key.recipe,
            plan_sha256=sha256_of(plan),
            plan_bytes=len(plan),
            build_s=round(build_s, 1),
        )
        try:
            self._write(plan_path, plan)
            self._write(sidecar_path, msgspec.json.encode(sidecar))
        except OSError as error:
            log.warning("%s: the plan is not kept, the next start builds it again: %s", self._folder, error)
        with suppress(OSError):
            self._evict(key)

    def _write(self, path: Path, content: bytes, part_name: str = "") -> None:
        """Replace a file as a whole; nothing is left of an attempt that fails."""
        part = self._folder / (part_name or f"{_PART}{os.getpid()}")
        try:
            part.unlink(missing_ok=True)
            with os.fdopen(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600), "wb") as stream:
                stream.write(content)
                stream.flush()
                os.fsync(stream.fileno())  # a plan takes minutes, and a robot may lose its power
            part.replace(path)
        finally:
            with suppress(OSError):
                part.unlink(missing_ok=True)

    def _evict(self, kept: PlanKey) -> None:
        """Remove what builders that were killed have left, and the plans that were not used for longest."""
        groups: dict[str, dict[Path, os.stat_result]] = {}
        for path in self._folder.iterdir():
            if path.name.startswith(_PART):
                path.unlink(missing_ok=True)
            elif path.suffix in {".plan", ".json", ".timing", ".refused"}:
                groups.setdefault(path.stem, {})[path] = path.lstat()
        sizes = {name: sum(status.st_size for status in files.values()) for name, files in groups.items()}
        used_ns = {name: max(status.st_mtime_ns for status in files.values()) for name, files in groups.items()}
        too_many = sum(sizes.values()) - self._limit_bytes
        for name in sorted(groups.keys() - {kept.name}, key=used_ns.__getitem__):
            if too_many <= 0:
                return
            too_many -= sizes[name]
            for path in groups[name]:
                path.unlink(missing_ok=True)

    @contextmanager
    def _locked(self, waiting: Callable[[], None] = lambda: None) -> Iterator[bool]:
        """Hold the folder's lock, which the kernel takes back from a process that ends; False where that fails."""
        locked = False
        with ExitStack() as stack:
            try:
                private_folder(self._folder)
                flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
                descriptor = os.open(self._folder / _LOCK, flags, 0o600)
                stack.callback(os.close, descriptor)
                _wait_for_lock(descriptor, waiting)
                locked = True
            except (ConfigurationError, OSError) as error:
                self._warn(f"the plan that is built now is not kept: {error}")
            yield locked

    def _paths(self, key: PlanKey) -> tuple[Path, Path]:
        return self._folder / f"{key.name}.plan", self._folder / f"{key.name}.json"

    def _refusal_path(self, key: PlanKey) -> Path:
        return self._folder / f"{key.name}.refused"

    def _timing_path(self, owner: str) -> Path:
        return self._folder / f"{sha256_of(owner.encode())}.timing"

    def _settings_path(self, owner: str) -> Path:
        return self._folder / f"{sha256_of(owner.encode())}.settings"


@cache
def plan_cache(folder: Path) -> PlanCache:
    """The process's one cache in a folder: what cannot be kept there is at least not built twice."""
    return PlanCache(folder)


def _wait_for_lock(descriptor: int, waiting: Callable[[], None]) -> None:
    """Wait in steps, so that signals are seen, and a run that ends."""
    if _try_lock(descriptor):
        return
    log.warning("another process builds a plan now: waiting for it")
    while not _try_lock(descriptor):
        waiting()
        time.sleep(_POLL_S)


def _try_lock(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _read_file(path: Path, limit: int) -> bytes | None:
    """A regular file of ours; None where it is missing, a link, somebody else's, or larger than the limit."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        with os.fdopen(descriptor, "rb") as stream:
            status = os.fstat(descriptor)
            if not stat.S_ISREG(status.st_mode) or status.st_uid != os.getuid() or status.st_size > limit:
                return None
            return stream.read(limit)
    except OSError:
        return None
