"""A network camera that freezes, breaks off or sends nonsense may cost its own frames for a while, and nothing else."""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from time import monotonic

import numpy as np
import pytest

from tests.media import moving_blocks
from tests.processes import children_running
from tests.stream_server import StreamServer, transport_stream
from vidseg.runtime.clock import SystemClock
from vidseg.runtime.errors import FrameError, SourceLostError, SourceOpenError, SourceRefusedError, UsageError
from vidseg.runtime.frame import Frame
from vidseg.runtime.secret_uri import SecretUri, secret_uri
from vidseg.runtime.sources.streams.messages import Ended, Request
from vidseg.runtime.sources.streams.options import StreamOptions
from vidseg.runtime.sources.streams.process import DecoderProcess
from vidseg.runtime.sources.streams.source import StreamSource

ROOT = Path(__file__).parents[4]
ODD = (sys.executable, "-m", "tests.runtime.sources.streams.odd_child")
STOP = threading.Event()
pytestmark = pytest.mark.timeout(60)


@pytest.fixture(autouse=True)
def nothing_is_left(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Each test ends with the descriptors and children that it began with."""
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    before = _descriptors()
    yield
    assert _descriptors() == before
    assert children_running("ffmpeg_child") == []


def _descriptors() -> set[str]:
    names = [path for path in Path("/proc/self/fd").iterdir() if path.exists()]
    links = {f"{path.name} {os.path.realpath(path)}" for path in names}
    return {link for link in links if "socket" in link or "memfd" in link}


def read_to_the_end(source: StreamSource) -> tuple[list[Frame], list[FrameError], SourceLostError]:
    frames: list[Frame] = []
    bad: list[FrameError] = []
    try:
        while True:
            _read_one(source, frames, bad)
    except SourceLostError as error:
        return frames, bad, error


def _read_one(source: StreamSource, frames: list[Frame], bad: list[FrameError]) -> None:
    try:
        frame = source.read()
    except FrameError as error:
        bad.append(error)
    else:
        assert frame is not None
        frames.append(frame)


def opened(server: StreamServer, options: str = "") -> StreamSource:
    source = StreamSource.from_uri(server.uri + options)
    source.open(SystemClock(), STOP)
    return source


@pytest.mark.parametrize("http", [None, "200 OK"])
def test_pictures_come_in_order_and_are_right_and_the_end_is_a_loss(tmp_path: Path, http: str | None) -> None:
    with StreamServer([transport_stream(tmp_path)], http=http, lasts_s=1) as server:
        source = opened(server)
        frames, bad, error = read_to_the_end(source)
        source.close()
    assert (bad, "no more frames come" in str(error)) == ([], True)
    indices = [frame.index for frame in frames]
    assert indices == sorted(set(indices))
    assert indices[-1] >= 25, "it is decoded to the end, whatever found no free place"
    pictures = moving_blocks(50)
    for frame in frames:
        assert frame.source == server.uri
        assert (frame.epoch, frame.stamp_clock, frame.image.flags.writeable) == (0, "pts", False)
        assert frame.stamp_ns == pytest.approx(frame.index * 40e6, abs=1e6)
        assert np.abs(frame.image.astype(int) - pictures[frame.index]).mean() < 12


def test_each_opening_is_an_epoch_that_begins_anew(tmp_path: Path) -> None:
    with StreamServer([transport_stream(tmp_path, 5)]) as server:
        source = opened(server)
        for epoch in range(2):
            frame = source.read()
            assert frame is not None
            assert (frame.epoch, frame.index) == (epoch, 0)
            if epoch == 0:
                source.open(SystemClock(), STOP)
        source.close()


def test_a_stream_that_freezes_is_lost_in_time(tmp_path: Path) -> None:
    with StreamServer([transport_stream(tmp_path)], "hold") as server:
        source = opened(server, "#stall_s=0.5")
        started = monotonic()
        *_, error = read_to_the_end(source)
        assert monotonic() - started < 5
        assert "has frozen" in str(error)
        assert "nothing for 0.5 s" in str(error)
        source.close()


def test_a_server_that_never_answers_is_given_up_in_time() -> None:
    with StreamServer([b""], "hold") as server:
        started = monotonic()
        with pytest.raises(SourceOpenError, match=r"no frame comes: got nothing in 0\.5 s"):
            opened(server, "#open_s=0.5")
        assert monotonic() - started < 5


def test_a_stop_ends_the_wait_for_a_stream_at_once(tmp_path: Path) -> None:
    stop = threading.Event()
    with StreamServer([transport_stream(tmp_path, 5)], "hold") as server:
        source = StreamSource.from_uri(f"{server.uri}#stall_s=60")
        source.open(SystemClock(), stop)
        timer = threading.Timer(0.2, stop.set)
        timer.start()
        started = monotonic()
        while source.read() is not None:
            pass
        assert monotonic() - started < 2
        timer.join()
        source.close()


def test_damaged_bytes_cost_some_frames_and_not_the_stream(tmp_path: Path) -> None:
    content = bytearray(transport_stream(tmp_path, 100))
    random = np.random.default_rng(3)
    middle = slice(len(content) // 3, len(content) // 2)
    content[middle] = random.integers(0, 256, middle.stop - middle.start, np.uint8).tobytes()
    with StreamServer([bytes(content)], lasts_s=2) as server:
        source = opened(server)
        frames, _, error = read_to_the_end(source)
        source.close()
    assert "has ended" in str(error)
    assert max(frame.stamp_ns for frame in frames) > 3e9, "what comes behind the damage is used"


def test_a_stream_may_change_its_size(tmp_path: Path) -> None:
    small, large = transport_stream(tmp_path), transport_stream(tmp_path, 50, (160, 120))
    with StreamServer([small + large], lasts_s=2) as server:
        source = opened(server)
        frames, *_ = read_to_the_end(source)
        source.close()
    assert {frame.image.shape for frame in frames} == {(64, 96, 3), (120, 160, 3)}


@pytest.mark.parametrize("status", ["404 Not Found", "401 Unauthorized", "403 Forbidden"])
def test_a_server_that_says_no_is_told_from_one_that_is_away(status: str) -> None:
    with StreamServer([b""], http=status) as server, pytest.raises(SourceRefusedError, match=status[:3]):
        opened(server)


def test_what_is_no_video_is_an_error() -> None:
    with StreamServer([b"It works!" * 1000], http="200 OK") as server, pytest.raises(SourceOpenError):
        opened(server)


def test_nobody_who_listens_is_an_error_at_once() -> None:
    with StreamServer([b""]) as server:
        uri = server.uri
    with pytest.raises(SourceOpenError, match="Connection refused"):
        StreamSource.from_uri(uri).open(SystemClock(), STOP)


def test_a_host_that_is_not_known_is_told() -> None:
    with pytest.raises(SourceOpenError, match="nobody knows its host"):
        StreamSource.from_uri("rtsp://user:secret@no-such-host.invalid/x").open(SystemClock(), STOP)


def test_a_stream_of_nothing_but_damage_is_opened_anew(tmp_path: Path) -> None:
    """As a camera may send whose encoder is stuck: waiting does not mend it."""
    good = transport_stream(tmp_path, 30)
    with StreamServer([good + _damaged(good) * 40], lasts_s=10) as server:
        source = opened(server, "#stall_s=1")
        *_, error = read_to_the_end(source)
        source.close()
    assert "the stream is damaged" in str(error)


def _damaged(stream: bytes) -> bytes:
    """With other bytes in the middle of each packet but the tables."""
    packets = [bytearray(stream[first : first + 188]) for first in range(0, len(stream), 188)]
    for packet in packets:
        if packet[1] & 0x1F or packet[2] >= 0x20:  # not the tables
            packet[60:180] = bytes((byte * 7 + 13) % 256 for byte in packet[60:180])
    return b"".join(map(bytes, packets))


def test_a_decoder_that_is_killed_is_a_lost_stream(tmp_path: Path) -> None:
    with StreamServer([transport_stream(tmp_path)], "hold") as server:
        source = opened(server, "#stall_s=30")
        (child,) = children_running("ffmpeg_child")
        os.kill(child, signal.SIGKILL)
        started = monotonic()
        *_, error = read_to_the_end(source)
        assert monotonic() - started < 5
        assert "ended with code -9" in str(error)
        source.close()


def test_a_decoder_stays_small(tmp_path: Path) -> None:
    with StreamServer([transport_stream(tmp_path, 30, (1920, 1080))], "hold") as server:
        source = opened(server, "#stall_s=2")
        (child,) = children_running("ffmpeg_child")
        frames, *_ = read_to_the_end(source)
        status = Path(f"/proc/{child}/status").read_text()
        source.close()
    kib = {line.split(":")[0]: int(line.split()[1]) for line in status.splitlines() if line.endswith("kB")}
    assert frames
    assert kib["VmHWM"] - kib["RssFile"] < 80 << 10, "its own; FFmpeg's libraries, up to 40 MiB, are there once for all"


@pytest.mark.parametrize(
    ("do", "said"),
    [
        ("hang", "nothing in 1 s"),
        ("crash", "ended with code -11"),
        ("raise", "RuntimeError: cannot open"),
        ("nonsense", "makes no sense"),
        ("picture first", "a picture without memory"),
        ("no memory", "memory without a descriptor"),
        ("too little memory", "smaller than what is to be in it"),
        ("memory that may shrink", "smaller than what is to be in it"),
        ("no such place", "no place 7"),
        ("ready again", "makes no sense"),
        ("tells", "no route to"),
    ],
)
def test_whatever_a_decoder_does_there_is_one_error_without_the_password(do: str, said: str) -> None:
    def start(address: SecretUri, _options: StreamOptions) -> DecoderProcess:
        return DecoderProcess(ODD, Request(uri=address.uri, options={"do": do}), address.clean)

    source = StreamSource(secret_uri("rtsp://user:secret@host/x"), StreamOptions(open_s=1), start)
    with pytest.raises(SourceOpenError) as caught:
        source.open(SystemClock(), STOP)
    assert said in str(caught.value)
    assert "secret" not in str(caught.value)
    source.close()


def test_a_decoder_that_never_gets_ready_is_not_waited_for_without_end() -> None:
    process = DecoderProcess(ODD, Request(uri="", options={"do": "hang at once"}), str)
    ended = process.await_ready(0.5, STOP)
    process.close()
    assert ended == Ended("lost", "its decoder does not start in 0.5 s")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_signals_to_all_of_a_service_leave_it_to_us_when_a_decoder_ends(tmp_path: Path, number: int) -> None:
    """Else `systemctl stop` would end a run with a source that is lost."""
    with StreamServer([transport_stream(tmp_path)], lasts_s=2) as server:
        source = opened(server)
        (child,) = children_running("ffmpeg_child")
        os.kill(child, number)
        frames, *_ = read_to_the_end(source)
        source.close()
    assert len(frames) == 50


def test_a_reader_that_was_late_gets_new_pictures(tmp_path: Path) -> None:
    """What has waited is left out, and counted by the indices: a robot wants to see what is, not what was."""
    with StreamServer([transport_stream(tmp_path)], lasts_s=2) as server:
        source = opened(server)
        assert source.read() is not None
        monotonic_s = monotonic()
        threading.Event().wait(0.7)  # a reader that is held up
        frame = source.read()
        source.close()
    assert frame is not None
    assert frame.captured_ns / 1e9 > monotonic_s + 0.7 - 0.25
    assert frame.index > 5


@pytest.mark.parametrize(
    "uri",
    ["rtsp://u:secret@h/x#transport=carrier", "rtsp://u:secret@h/x#stall_s=0", "rtsp://u:secret@h/x#stall_s=..",
     "rtsp://u:secret@h/x#colour=red", "gopher://u:secret@h/x", "rtsp://"],
)  # fmt: skip
def test_an_address_that_is_not_understood_is_refused_without_its_password(uri: str) -> None:
    with pytest.raises(UsageError) as caught:
        StreamSource.from_uri(uri)
    assert "secret" not in str(caught.value)


def test_a_fragment_that_is_not_for_us_belongs_to_the_address() -> None:
    assert StreamSource.from_uri("rtsp://user:a#b=c@host/x").name == "rtsp://host/x"
    assert StreamSource.from_uri("rtsp://host/x#transport=udp").name == "rtsp://host/x"
