"""A video that is read wrongly gives wrong masks; one that is damaged must say so and never hang."""

from __future__ import annotations

import threading
import wave
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, cast

import av
import numpy as np
import pytest
from av.stream import Disposition
from numpy.typing import NDArray

from tests.media import moving_blocks, opened, read_all, with_display_matrix, write_frames, write_video
from vidseg.runtime.errors import SourceError, SourceLostError, SourceOpenError
from vidseg.runtime.frame import Frame, Image
from vidseg.runtime.sources.video import VideoSource

if TYPE_CHECKING:
    from av.audio.stream import AudioStream
    from av.video.stream import VideoStream

FASTSTART = {"movflags": "faststart"}
COLORS_RGB = np.array(
    [[255, 0, 0], [0, 255, 0], [0, 0, 255], [255, 255, 255], [0, 0, 0], [128, 128, 128], [200, 120, 40], [30, 90, 160]]
)


@pytest.fixture
def silent(capfd: pytest.CaptureFixture[str]) -> Iterator[None]:
    """FFmpeg writes nothing to the terminal, where it would tear the status line apart."""
    yield
    assert capfd.readouterr() == ("", "")


def test_every_frame_comes_once_in_order_with_its_time(tmp_path: Path) -> None:
    pictures = moving_blocks(40)
    source = opened(VideoSource(write_video(tmp_path / "v.mp4", pictures, rate=20)))
    frames, errors = read_all(source)
    assert not errors
    assert [frame.index for frame in frames] == list(range(40))
    assert [frame.stamp_ns for frame in frames] == [index * 50_000_000 for index in range(40)]
    assert {(frame.source, frame.epoch, frame.stamp_clock) for frame in frames} == {(str(tmp_path / "v.mp4"), 0, "pts")}
    assert all(early.captured_ns <= late.captured_ns for early, late in pairwise(frames))
    for frame, picture in zip(frames, pictures, strict=True):
        assert frame.image.shape == picture.shape
        assert not frame.image.flags.writeable
        assert np.abs(frame.image.astype(int) - picture).mean() < 12  # 4:2:0 at block edges
    source.close()
    source.close()
    assert source.read() is None


def test_closing_what_was_never_opened_is_fine(tmp_path: Path) -> None:
    VideoSource(tmp_path / "missing.mp4").close()


def _yuv_of(rgb: NDArray[np.int_], kr: float, kb: float, *, full: bool) -> NDArray[np.float64]:
    """(n, 3) R'G'B' 0..255 to Y'CbCr 0..255, by the formula of ITU-R BT.601 and BT.709."""
    red, green, blue = (rgb / 255).T
    luma = kr * red + (1 - kr - kb) * green + kb * blue
    cb, cr = (blue - luma) / (2 * (1 - kb)), (red - luma) / (2 * (1 - kr))
    if full:
        return np.stack([255 * luma, 128 + 255 * cb, 128 + 255 * cr], 1)
    return np.stack([16 + 219 * luma, 128 + 224 * cb, 128 + 224 * cr], 1)


BT601, BT709 = (0.299, 0.114), (0.2126, 0.0722)


def _stripes(yuv: NDArray[np.float64], size_wh: tuple[int, int]) -> av.VideoFrame:
    """A frame of vertical stripes, as wide each."""
    width, height = size_wh
    stripe = np.arange(width) * len(yuv) // width
    luma = np.tile(yuv[stripe, 0], (height, 1))
    chroma = [np.tile(yuv[stripe[::2], plane], (height // 2, 1)).reshape(-1, width) for plane in (1, 2)]
    return av.VideoFrame.from_ndarray(np.concatenate([luma, *chroma]).round().clip(0, 255).astype(np.uint8), "yuv420p")


def _stripe_colors_rgb(image: Image, count: int) -> NDArray[np.int_]:
    height, width = image.shape[:2]
    centers = (np.arange(count) * 2 + 1) * width // (2 * count)
    return image[height // 2, centers, ::-1].astype(int)


@pytest.mark.parametrize("size_wh", [(256, 64), (1280, 64)])
@pytest.mark.parametrize(
    ("weights", "tag"), [(BT601, 5), (BT601, 6), (BT709, 1)], ids=["BT.470BG", "SMPTE 170M", "BT.709"]
)
@pytest.mark.parametrize("full", [False, True], ids=["limited", "full"])
def test_the_tagged_matrix_and_range_give_the_colors_that_were_filmed(
    tmp_path: Path, size_wh: tuple[int, int], weights: tuple[float, float], tag: int, full: bool
) -> None:
    frame = _stripes(_yuv_of(COLORS_RGB, *weights, full=full), size_wh)
    path = write_frames(
        tmp_path / "v.mp4",
        [frame],
        codec="libx264",
        codec_options={"qp": "0"},
        colorspace=tag,
        color_range=2 if full else 1,
    )
    frames, _ = read_all(opened(VideoSource(path)))
    assert np.abs(_stripe_colors_rgb(frames[0].image, len(COLORS_RGB)) - COLORS_RGB).max() <= 4


@pytest.mark.parametrize(("size_wh", "weights"), [((256, 64), BT601), ((1280, 720), BT709)], ids=["small", "large"])
def test_without_tags_small_videos_are_bt601_and_large_ones_bt709(
    tmp_path: Path, size_wh: tuple[int, int], weights: tuple[float, float]
) -> None:
    frame = _stripes(_yuv_of(COLORS_RGB, *weights, full=False), size_wh)
    path = write_frames(tmp_path / "v.mp4", [frame], codec="libx264", codec_options={"qp": "0"})
    frames, _ = read_all(opened(VideoSource(path)))
    assert np.abs(_stripe_colors_rgb(frames[0].image, len(COLORS_RGB)) - COLORS_RGB).max() <= 4


@pytest.mark.parametrize(
    ("pixel_format", "dtype", "top"), [("gray", np.uint8, 255), ("gray16le", np.uint16, 65535)], ids=["8", "16"]
)
def test_gray_and_16_bit_videos_become_three_equal_channels(
    tmp_path: Path, pixel_format: str, dtype: type[np.generic], top: int
) -> None:
    ramp = np.tile(np.linspace(0, 1, 128), (32, 1))
    frame = av.VideoFrame.from_ndarray((ramp * top).round().astype(dtype), pixel_format)
    frames, _ = read_all(opened(VideoSource(write_frames(tmp_path / "v.mkv", [frame], codec="ffv1"))))
    image = frames[0].image
    assert image.dtype == np.uint8
    assert np.abs(image - (ramp * 255)[:, :, None]).max() <= 2


def test_ten_bit_video_keeps_its_brightness(tmp_path: Path) -> None:
    picture = np.tile(np.linspace(0, 255, 128).astype(np.uint8)[:, None], (32, 1, 3))
    path = write_video(tmp_path / "v.mkv", [picture], codec="ffv1", pixel_format="yuv420p10le")
    frames, _ = read_all(opened(VideoSource(path)))
    assert np.abs(frames[0].image.astype(int) - picture).max() <= 3


@pytest.mark.parametrize(
    "abcd",
    [
        (1, 0, 0, 1),
        (0, 1, -1, 0),
        (-1, 0, 0, -1),
        (0, -1, 1, 0),
        (-1, 0, 0, 1),
        (1, 0, 0, -1),
        (0, 1, 1, 0),
        (0, -1, -1, 0),
    ],
)
def test_a_turned_or_mirrored_video_comes_upright(tmp_path: Path, abcd: tuple[int, int, int, int]) -> None:
    path = write_video(tmp_path / "v.mp4", moving_blocks(1), codec_options={"qp": "0"})
    stored = read_all(opened(VideoSource(path)))[0][0].image
    path.write_bytes(with_display_matrix(path.read_bytes(), abcd))
    upright = read_all(opened(VideoSource(path)))[0][0].image
    a, b, c, d = abcd
    rows, columns = np.mgrid[: stored.shape[0], : stored.shape[1]]
    x, y = a * columns + c * rows, b * columns + d * rows
    expected = np.zeros((np.ptp(y) + 1, np.ptp(x) + 1, 3), np.uint8)
    expected[y - y.min(), x - x.min()] = stored
    assert np.array_equal(upright, expected)


class LeapingClock:
    """Time that jumps to whatever is waited for, and remembers it."""

    def __init__(self) -> None:
        self.time_ns = 7_000_000_000
        self.deadlines_ns: list[int] = []

    def now_ns(self) -> int:
        return self.time_ns

    def wall_ns(self) -> int:
        return self.time_ns

    def sleep_until(self, deadline_ns: int, stop: threading.Event) -> bool:
        self.deadlines_ns.append(deadline_ns)
        self.time_ns = max(self.time_ns, deadline_ns)
        return not stop.is_set()


def test_in_real_time_frames_come_when_their_stamps_are_due(tmp_path: Path) -> None:
    clock = LeapingClock()
    path = write_video(tmp_path / "v.mp4", moving_blocks(5), rate=10)
    frames, _ = read_all(opened(VideoSource(path, realtime=True), clock))
    assert [frame.captured_ns - 7_000_000_000 for frame in frames] == [index * 100_000_000 for index in range(5)]


def test_a_reader_that_was_held_up_sees_no_fast_forward(tmp_path: Path) -> None:
    clock = LeapingClock()
    source = opened(VideoSource(write_video(tmp_path / "v.mp4", moving_blocks(9), rate=10), realtime=True), clock)
    source.read()
    clock.time_ns += 5_000_000_000
    times = [frame.captured_ns for frame in read_all(source)[0]]
    assert np.diff(times).tolist() == [100_000_000] * 7


def test_stop_ends_the_wait_for_the_next_frame(tmp_path: Path) -> None:
    stop = threading.Event()
    source = opened(VideoSource(write_video(tmp_path / "v.mp4", moving_blocks(3), rate=1), realtime=True), stop=stop)
    assert source.read() is not None
    threading.Timer(0.05, stop.set).start()
    assert source.read() is None  # at once: the frame is due in a second, the test's deadline in two minutes


def _missing(path: Path) -> None:
    path.unlink(missing_ok=True)


def _folder(path: Path) -> None:
    path.mkdir()


def _empty(path: Path) -> None:
    path.write_bytes(b"")


def _noise(path: Path) -> None:
    path.write_bytes(np.random.default_rng(0).bytes(50_000))


def _text(path: Path) -> None:
    path.write_text("no video\n" * 500)


def _index_cut_off(path: Path) -> None:
    write_video(path, moving_blocks(20), muxer="mp4")
    content = path.read_bytes()
    path.write_bytes(content[: content.index(b"moov") - 4])


def _no_frames(path: Path) -> None:
    write_video(path, moving_blocks(1), muxer="mp4", muxer_options={"movflags": "frag_keyframe+empty_moov"})
    content = path.read_bytes()
    path.write_bytes(content[: content.index(b"moof") - 4])


def _sound_only(path: Path) -> None:
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(8000)
        file.writeframes(bytes(8000))


def _sound_with_a_cover(path: Path) -> None:
    with av.open(str(path), "w", format="mp4") as container:
        sound = cast("AudioStream", container.add_stream("aac", rate=8000))
        cover = cast("VideoStream", container.add_stream("png", rate=1))
        cover.width, cover.height, cover.pix_fmt = 64, 64, "rgb24"
        cover.disposition = cast("Disposition", Disposition.attached_pic.value)  # PyAV 17 takes the number only
        container.mux(cover.encode(av.VideoFrame.from_ndarray(np.zeros((64, 64, 3), np.uint8), "rgb24")))
        samples = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
        samples.sample_rate = 8000
        container.mux([*sound.encode(samples), *sound.encode(None), *cover.encode(None)])


def _every_frame_damaged(path: Path) -> None:
    write_video(path, moving_blocks(3), muxer="mp4", muxer_options=FASTSTART)
    content = bytearray(path.read_bytes())
    start = content.index(b"mdat") + 4
    content[start:] = bytes(len(content) - start)
    path.write_bytes(content)


@pytest.mark.usefixtures("silent")
@pytest.mark.parametrize(
    ("make", "name", "says"),
    [
        (_missing, "v.mp4", "there is no such file"),
        (_folder, "v.mp4", "a folder"),
        (_empty, "v.mp4", "an empty file"),
        (_noise, "v.mp4", "is no video"),
        (_text, "v.mp4", "is no video"),
        (_text, "readme.txt", "is no video: got text"),
        (_index_cut_off, "v.mp4", "an MP4 file without its index"),
        (_no_frames, "v.mp4", "no frame that can be decoded"),
        (_sound_only, "v.wav", "no video in it: got audio"),
        (_sound_with_a_cover, "v.m4a", "no video in it"),
        (_every_frame_damaged, "v.mp4", "no frame that can be decoded"),
    ],
)
def test_what_gives_no_frame_is_refused_in_one_line(
    tmp_path: Path, make: Callable[[Path], None], name: str, says: str
) -> None:
    path = tmp_path / name
    make(path)
    source = VideoSource(path)
    with pytest.raises(SourceOpenError) as caught:
        opened(source)
    source.close()
    message = str(caught.value)
    assert says in message
    assert str(path) in message
    assert "\n" not in message
    assert caught.value.exit_code == 5


def test_a_name_like_a_url_is_still_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write_video(Path("clip.mp4"), moving_blocks(2)).rename("12:30 100%d.mp4")
    assert len(read_all(opened(VideoSource("12:30 100%d.mp4")))[0]) == 2


@pytest.mark.usefixtures("silent")
@pytest.mark.parametrize(
    ("suffix", "muxer_options"),
    [(".mp4", FASTSTART), (".mp4", {"movflags": "frag_keyframe+empty_moov"}), (".mkv", {}), (".avi", {})],
    ids=["mp4", "fragmented", "mkv", "avi"],
)
def test_a_file_that_breaks_off_gives_its_frames_and_then_says_so(
    tmp_path: Path, suffix: str, muxer_options: dict[str, str]
) -> None:
    path = tmp_path / f"v{suffix}"
    codec = "mpeg4" if suffix == ".avi" else "libx264"
    write_video(path, moving_blocks(90), codec=codec, muxer_options=muxer_options, codec_options={"g": "15"})
    content = path.read_bytes()
    path.write_bytes(content[: len(content) * 6 // 10])
    source = opened(VideoSource(path))
    frames: list[Frame] = []
    with pytest.raises(SourceLostError, match=r"v\.\w+: the file ends early: got \d+ frames, \d\.\d s"):
        read_all(source, frames)
    assert 10 < len(frames) < 60
    assert source.read() is None


@pytest.mark.usefixtures("silent")
def test_a_damaged_frame_is_left_out_and_leaves_a_gap(tmp_path: Path) -> None:
    path = write_video(tmp_path / "v.mp4", moving_blocks(30), muxer_options=FASTSTART, codec_options={"g": "1"})
    with av.open(str(path)) as container:
        packets = [packet for packet in container.demux(video=0) if packet.size]
    content = bytearray(path.read_bytes())
    position = packets[12].pos
    assert position is not None
    content[position + 40 : position + 60] = bytes(20)
    path.write_bytes(content)
    frames, errors = read_all(opened(VideoSource(path)))
    assert len(errors) == 1
    assert len(frames) == 29
    assert set(range(30)) - {frame.index for frame in frames} == {12}
    assert "left out" in str(errors[0])


@pytest.mark.usefixtures("silent")
def test_a_size_change_ends_the_source_with_both_sizes(tmp_path: Path) -> None:
    small = write_video(tmp_path / "small.h264", moving_blocks(7), muxer="h264")
    large = write_video(tmp_path / "large.h264", moving_blocks(7, (128, 64)), muxer="h264")
    path = tmp_path / "both.h264"
    path.write_bytes(small.read_bytes() + large.read_bytes())
    source = opened(VideoSource(path))
    with pytest.raises(SourceLostError, match="change size at frame 7: got 128x64 behind 96x64"):
        read_all(source)


def test_a_stream_without_time_stamps_counts_its_frames(tmp_path: Path) -> None:
    path = write_video(tmp_path / "v.h264", moving_blocks(6), muxer="h264")
    frames, _ = read_all(opened(VideoSource(path)))
    assert [frame.stamp_ns for frame in frames] == [index * 40_000_000 for index in range(6)]


@pytest.mark.parametrize("seed", range(8))
def test_no_damage_crashes_or_hangs(tmp_path: Path, seed: int) -> None:
    rng = np.random.default_rng(seed)
    path = write_video(tmp_path / "v.mp4", moving_blocks(20), muxer_options=FASTSTART)
    content = np.frombuffer(path.read_bytes(), np.uint8).copy()
    for start in rng.integers(0, len(content) - 16, 8):
        content[start : start + 16] = rng.integers(0, 256, 16)
    path.write_bytes(content.tobytes())
    source = VideoSource(path)
    try:
        frames, _ = read_all(opened(source))
        assert len(frames) <= 40
    except SourceError as error:
        assert "\n" not in str(error)  # noqa: PT017 - whether it is refused depends on where it was hit
    finally:
        source.close()


def test_a_matroska_file_that_was_cut_off_says_so(tmp_path: Path) -> None:
    """Its decoder takes the end of the file for the end of the video, even one frame before."""
    path = write_video(tmp_path / "whole.mkv", moving_blocks(40))
    frames, errors = read_all(opened(VideoSource(path)))
    assert (len(frames), errors) == (40, [])
    for missing in (1, 200, 2000):
        cut = tmp_path / f"cut{missing}.mkv"
        cut.write_bytes(path.read_bytes()[:-missing])
        source = opened(VideoSource(cut))
        with pytest.raises(SourceLostError, match="ends early"):
            read_all(source)
