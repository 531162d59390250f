"""What holds for every case: an answer in time, or one of our errors, in one line that gives nothing away."""

from __future__ import annotations

import io
import logging
import re
import resource
import signal
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from types import FrameType
from typing import TypeVar
from urllib.parse import quote

from vidseg.runtime.errors import VidsegError

T = TypeVar("T")

MAX_TEXT = 1000
OBEYED = re.compile(r"[\x00-\x1f\x7f-\x9f\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")
"""Characters that a terminal obeys, that break lines, or that turn text around."""

CPU_S = 5.0
"""Of the processor, because a loaded machine is slow, not wrong."""

MAX_GROWTH_MIB = 300


class OverrunError(BaseException):
    """A case that does not end. Nothing that catches errors catches it."""


def tried(call: Callable[[], T], secrets: Iterable[str] = ()) -> T | None:
    """What a call gives; None where it raises one of our errors. Any other exception comes out.

    Args:
        call: to try.
        secrets: what must be in no text that a person may see.
    """
    secrets = list(secrets)
    value = None
    with limited(), heard(secrets):
        try:
            value = call()
        except VidsegError as error:
            check_error(error, secrets)
    return value


def check_error(error: VidsegError, secrets: Iterable[str] = ()) -> None:
    """Fail where an error is not one short line, or it or what it comes from shows a secret."""
    check_line(str(error), secrets)
    link: BaseException | None = error
    while link is not None:
        check_hidden(f"{link} {link!r}", secrets)
        link = link.__cause__ or (None if link.__suppress_context__ else link.__context__)


def check_line(text: str, secrets: Iterable[str] = ()) -> None:
    """Fail where a text is not one short line that a terminal shows as it is, or where it shows a secret."""
    assert text.isprintable(), f"not one plain line: {text[:200]!r}"
    assert len(text) < MAX_TEXT, f"{len(text)} characters: {text[:200]!r}"
    check_hidden(text, secrets)


def check_hidden(text: str, secrets: Iterable[str]) -> None:
    """Fail where a text shows a secret, plain or percent-encoded."""
    lowered = text.lower()
    for secret in secrets:
        for form in (secret, quote(secret, safe="", errors="replace")):
            assert form.lower() not in lowered, f"{secret!r} is shown in {text[:500]!r}"


@contextmanager
def limited() -> Iterator[None]:
    """An end to what uses too much time of the processor, and a failure for what uses too much memory."""

    def overrun(_: int, __: FrameType | None) -> None:
        raise OverrunError(f"still busy after {CPU_S:g} s")

    before = signal.signal(signal.SIGPROF, overrun)
    used_mib = _peak_mib()
    signal.setitimer(signal.ITIMER_PROF, CPU_S)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.signal(signal.SIGPROF, before)
    grown_mib = _peak_mib() - used_mib
    assert grown_mib < MAX_GROWTH_MIB, f"{grown_mib:.0f} MiB more than ever before"


def _peak_mib() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


class _Heard(logging.Handler):
    def __init__(self) -> None:
        super().__init__(logging.DEBUG)
        self.texts: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.texts.append(record.getMessage())
        assert record.exc_info is None, "a traceback in the log"


@contextmanager
def heard(secrets: Iterable[str]) -> Iterator[None]:
    """Fail where a log record is not one line, or where it or what is printed shows a secret."""
    secrets = list(secrets)
    handler, printed = _Heard(), io.StringIO()
    log = logging.getLogger("vidseg")
    level = log.level
    log.addHandler(handler)
    log.setLevel(logging.DEBUG)
    try:
        with redirect_stdout(printed), redirect_stderr(printed):
            yield
    finally:
        log.removeHandler(handler)
        log.setLevel(level)
    for text in handler.texts:
        check_line(text, secrets)
    check_hidden(printed.getvalue(), secrets)
    assert "Traceback" not in printed.getvalue()
