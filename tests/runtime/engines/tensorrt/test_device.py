"""A machine without a GPU gets one line, not a crash inside TensorRT. What a device is asked: test_libcuda.py."""

from __future__ import annotations

import re

import pytest

from vidseg.runtime.engines.tensorrt import libcuda
from vidseg.runtime.engines.tensorrt.device import device_facts
from vidseg.runtime.errors import DeviceError


@pytest.mark.skipif(libcuda.available() is None, reason="this machine has a GPU")
def test_without_a_gpu_the_error_says_so_and_what_to_do() -> None:
    with pytest.raises(DeviceError, match=r"there is no GPU for TensorRT: got .*driver.*vidseg doctor"):
        device_facts()


@pytest.mark.gpu
@pytest.mark.skipif(libcuda.available() is not None, reason=f"no GPU: {libcuda.available()}")
def test_a_gpu_is_described() -> None:
    facts = device_facts()
    assert facts.uuid.startswith("GPU-")
    assert facts.compute_capability >= (5, 0)
    assert re.fullmatch(r"[0-9.]+, CUDA [0-9]+\.[0-9]", facts.driver)
    assert 0 < libcuda.free_memory() <= facts.memory_bytes
