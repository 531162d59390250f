"""A user's function has to get each result, and its error has to reach the pipeline."""

from __future__ import annotations

import numpy as np
import pytest

from tests.media import segmentation_of
from vidseg.runtime.frame import Segmentation
from vidseg.runtime.sinks import Sink
from vidseg.runtime.sinks.callback import CallbackSink
from vidseg.runtime.sinks.null import NullSink

RESULT = segmentation_of(np.zeros((6, 8, 3), np.uint8))


def test_the_function_gets_each_result() -> None:
    results: list[Segmentation] = []
    sink: Sink = CallbackSink(results.append, name="mine")
    sink.write(RESULT, None)
    sink.close()
    assert results == [RESULT]
    assert sink.name == "mine"


def test_what_the_function_raises_comes_out() -> None:
    def refuse(_: Segmentation) -> None:
        raise LookupError("no such topic")

    with pytest.raises(LookupError, match="no such topic"):
        CallbackSink(refuse).write(RESULT, None)


def test_the_null_sink_takes_everything() -> None:
    sink: Sink = NullSink()
    sink.write(RESULT, None)
    sink.close()
    assert not sink.wants_picture
