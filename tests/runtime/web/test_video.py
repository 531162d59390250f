"""A video that browsers do not decode, or that shows the past, is no live picture."""

from __future__ import annotations

import asyncio
from math import ceil

import numpy as np
import pytest
from av import CodecContext
from av.video.codeccontext import VideoCodecContext
from hypothesis import given
from hypothesis import strategies as st

from vidseg.runtime.web.video import MAX_MACROBLOCKS, MAX_WAITING, VideoEncoder, VideoViewer, video_size


@given(st.integers(1, 8000), st.integers(1, 8000))
def test_a_video_is_even_small_enough_for_every_browser_and_not_distorted(width: int, height: int) -> None:
    sent_width, sent_height = video_size((width, height))
    assert sent_width % 2 == sent_height % 2 == 0
    assert ceil(sent_width / 16) * ceil(sent_height / 16) <= MAX_MACROBLOCKS
    scale = max(sent_width / width, sent_height / height)
    assert abs(sent_width - width * scale) <= 3 * max(1, width / height)
    assert abs(sent_height - height * scale) <= 3 * max(1, height / width)
    assert (sent_width + 1) * (sent_height + 1) >= min(width * height, 0.6 * MAX_MACROBLOCKS * 256)


@pytest.mark.parametrize(
    ("size_wh", "sent_wh"),
    [((1280, 720), (1280, 720)), ((1920, 1080), (1280, 720)), ((640, 480), (640, 480)), ((641, 361), (640, 360))],
)
def test_usual_sizes_in_the_profile_that_browsers_have(size_wh: tuple[int, int], sent_wh: tuple[int, int]) -> None:
    assert video_size(size_wh) == sent_wh
    encoder, decoder = VideoEncoder(size_wh), CodecContext.create("h264", "r")
    assert isinstance(decoder, VideoCodecContext)
    picture = np.full((size_wh[1], size_wh[0], 3), (30, 120, 200), np.uint8)
    decoded = [frame for packet in encoder.encode(picture, 0) for frame in decoder.decode(packet)]
    decoded += decoder.decode(None)
    assert [(frame.width, frame.height) for frame in decoded] == [sent_wh]
    assert abs(decoded[0].to_ndarray(format="bgr24").mean(axis=(0, 1)) - (30, 120, 200)).max() < 4
    assert decoder.profile in {"Baseline", "Constrained Baseline"}


def test_who_falls_behind_begins_again_with_a_keyframe() -> None:
    encoder, begun = VideoEncoder((64, 48)), []
    rng = np.random.default_rng(1)
    packets = [
        encoder.encode(rng.integers(0, 255, (48, 64, 3)).astype(np.uint8), index * 100_000_000, keyframe=index == 15)
        for index in range(36)
    ]
    assert [len(packet) for packet in packets] == [1] * 36, "each at once"

    async def watch() -> None:
        viewer = VideoViewer(lambda: begun.append(True))
        viewer.put(packets[0])
        first = asyncio.create_task(viewer.get())
        await asyncio.sleep(0)
        assert begun == [True]
        assert not first.done(), "what came before it began is not kept"
        for packet in packets[1:10]:
            viewer.put(packet)
        await asyncio.sleep(0)
        assert not first.done(), "none of them is a keyframe"
        viewer.put(packets[15])
        assert (await first).pts == packets[15][0].pts
        for packet in packets[1 : MAX_WAITING + 2]:
            viewer.put(packet)
        for packet in packets[16:35]:
            viewer.put(packet)
        viewer.put(packets[35])
        assert (await viewer.get()).is_keyframe
        assert begun == [True]

    assert packets[35][0].is_keyframe, "every two seconds"
    asyncio.run(asyncio.wait_for(watch(), 5))
