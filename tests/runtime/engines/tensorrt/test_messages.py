"""TensorRT's messages name places in its source, and the one that tells most is seldom the last."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vidseg.runtime.engines.tensorrt.messages import readable, telling, tells_of_memory

REFUSED = "ITensor::f: Error Code 4: API Usage Error (t: first input has type UInt8. In check at /_src/a.cpp:4)"
ASSERTION = (
    "2: [builder.cpp::buildSerializedNetwork::751] Error Code 2: Internal Error (Assertion engine != nullptr failed. )"
)


@pytest.mark.parametrize(
    ("message", "line"),
    [
        (
            f"Invalid Node - t\n{REFUSED}\n[checkMacros.cpp::c::250] Error Code 1: Cuda Runtime (x)",
            "t: first input has type UInt8",
        ),
        (
            "10: [optimizer.cpp::computeCosts::38] Error Code 10: Internal Error (Could not find any kernel for x.)",
            "Could not find any kernel for x",
        ),
        (
            "[virtualMemoryBuffer.cpp::resizePhysical::140] Error Code 2: OutOfMemory (Requested size was 5 bytes.)",
            "OutOfMemory (Requested size was 5 bytes.)",
        ),
        (
            "IRuntime::f: Error Code 1: Cuda Runtime (In ScopedCudaStream at /_src/a.cpp:25 (cudaError 35: too old))",
            "Cuda Runtime (cudaError 35: too old)",
        ),
        ("Please rebuild.", "Please rebuild"),
        ("", ""),
    ],
)
def test_a_message_is_one_line_without_its_places(message: str, line: str) -> None:
    assert readable(message) == line


def test_the_first_message_that_says_something_is_told() -> None:
    assert telling([ASSERTION, "Error Code 2: OutOfMemory (x)"]) == "OutOfMemory (x)"
    assert "engine != nullptr" in telling([ASSERTION])
    assert telling([]) == ""
    assert tells_of_memory([ASSERTION, "Tactic Device request: Insufficient memory"])
    assert not tells_of_memory([ASSERTION])


@given(st.lists(st.text(max_size=400)))
def test_any_text_gives_one_short_line(errors: list[str]) -> None:
    line = telling(errors)
    assert len(line) <= 300
    assert "\n" not in line
