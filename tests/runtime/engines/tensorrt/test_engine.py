"""A TensorRT engine on a GPU that fails whoever breaks its rules: right results, nothing leaked, faults told."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections import deque
from collections.abc import Callable
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from tests.fake_cuda import FakeCuda
from tests.fake_streams import RuleBroken
from tests.fake_tensorrt import FakeTensorRt, fake_plan
from tests.runtime.engines.tensorrt.compiled_kernels import compiled_functions
from vidseg.runtime.clock import SystemClock
from vidseg.runtime.engines import PlacedFrame, takes_frames
from vidseg.runtime.engines.tensorrt.engine import TensorRtEngine, TensorRtOptions
from vidseg.runtime.engines.tensorrt.library import Abilities, Library
from vidseg.runtime.engines.tensorrt.tables import look_of
from vidseg.runtime.errors import DeviceError, EngineError
from vidseg.runtime.frame import Frame, Image
from vidseg.runtime.geometry import Fit, placement_of
from vidseg.runtime.manifest import ClassSpec
from vidseg.runtime.overlay import Overlay, OverlayStyle
from vidseg.runtime.segmenter import segmentation_of

ROOT = Path(__file__).parents[4]
SIZE_WH = (8, 6)
CLASSES = tuple(ClassSpec(name=f"class {number}", color_rgb=(30 * number, 255 - 30 * number, 7)) for number in range(8))


def library_of(cuda: FakeCuda, **faults: Any) -> Library:
    abilities = Abilities(**dict.fromkeys(Abilities.__dataclass_fields__, False))
    logger = SimpleNamespace(errors=deque(["the reason"]))
    return Library(FakeTensorRt(cuda, **faults), "tensorrt", "10.3.0", logger, abilities)


def opened(cuda: FakeCuda, plan: bytes | None = None, **options: Any) -> TensorRtEngine:
    return TensorRtEngine(plan or fake_plan(SIZE_WH), library_of(cuda), cuda, TensorRtOptions(**options))


def pictures(count: int, seed: int = 0, size_wh: tuple[int, int] = SIZE_WH) -> NDArray[np.uint8]:
    return np.random.default_rng(seed).integers(0, 256, (count, size_wh[1], size_wh[0], 3), np.uint8)


@pytest.fixture(params=[False, True], ids=["own memory", "shared memory"])
def cuda(request: pytest.FixtureRequest) -> FakeCuda:
    return FakeCuda(integrated=request.param)


def test_results_are_those_of_their_batch_whatever_is_in_flight(cuda: FakeCuda) -> None:
    with opened(cuda) as engine:
        batches = [pictures(1, seed) for seed in range(7)]
        tickets = [engine.enqueue(batch) for batch in batches]
        for batch, ticket in reversed(list(zip(batches, tickets, strict=True))):
            np.testing.assert_array_equal(ticket.result()["class_map"], batch[..., 0] >> 5)


def test_a_batch_may_be_changed_behind_enqueue_and_results_are_the_callers(cuda: FakeCuda) -> None:
    with opened(cuda) as engine:
        batch = pictures(1)
        wanted = batch[..., 0] >> 5
        ticket = engine.enqueue(batch)
        batch[:] = 0
        found = ticket.result()["class_map"]
        engine.enqueue(pictures(1, 1)).result()
        engine.enqueue(pictures(1, 2)).result()
        np.testing.assert_array_equal(found, wanted)
        assert ticket.result()["class_map"] is found


@settings(max_examples=30, deadline=None)
@given(st.lists(st.tuples(st.integers(1, 4), st.booleans()), max_size=12), st.booleans())
def test_any_order_of_batches_and_waits_is_right(steps: list[tuple[int, bool]], integrated: bool) -> None:
    cuda = FakeCuda(integrated=integrated)
    with opened(cuda, fake_plan(SIZE_WH, 4)) as engine:
        waiting: deque[tuple[NDArray[np.uint8], Any]] = deque()
        for number, (count, wait) in enumerate(steps):
            batch = pictures(min(count, engine.max_batch), number)
            waiting.append((batch, engine.enqueue(batch)))
            if wait:
                batch, ticket = waiting.popleft()
                np.testing.assert_array_equal(ticket.result()["class_map"], batch[..., 0] >> 5)
        for batch, ticket in waiting:
            np.testing.assert_array_equal(ticket.result()["class_map"], batch[..., 0] >> 5)


def test_a_larger_batch_is_offered_where_it_gains(cuda: FakeCuda) -> None:
    with opened(cuda, fake_plan(SIZE_WH, 4)) as engine:  # the fake device counts a batch as one piece of work
        assert engine.max_batch == 4
        assert engine.input_shape_nhwc == (4, 6, 8, 3)
        batch = pictures(4)
        np.testing.assert_array_equal(engine.enqueue(batch).result()["class_map"], batch[..., 0] >> 5)


def test_recorded_graphs_give_the_same_with_one_call_each(cuda: FakeCuda) -> None:
    with opened(cuda, cuda_graphs=True) as engine:
        assert engine.records_graphs
        before = cuda.graph_launches
        for seed in range(4):
            batch = pictures(1, seed)
            np.testing.assert_array_equal(engine.enqueue(batch).result()["class_map"], batch[..., 0] >> 5)
        assert cuda.graph_launches == before + 4


def test_what_cannot_be_recorded_runs_without_graphs(caplog: pytest.LogCaptureFixture) -> None:
    cuda = FakeCuda(records=False)
    with opened(cuda, cuda_graphs=True) as engine:
        batch = pictures(1)
        np.testing.assert_array_equal(engine.enqueue(batch).result()["class_map"], batch[..., 0] >> 5)
    assert "no CUDA graphs" in caplog.text


def test_a_plan_that_refuses_to_be_recorded_runs_without_graphs(
    cuda: FakeCuda, caplog: pytest.LogCaptureFixture
) -> None:
    library = library_of(cuda, refuses_runs=frozenset({2}))  # behind the first run of each slot
    with TensorRtEngine(fake_plan(SIZE_WH), library, cuda, TensorRtOptions(cuda_graphs=True)) as engine:
        batch = pictures(1)
        np.testing.assert_array_equal(engine.enqueue(batch).result()["class_map"], batch[..., 0] >> 5)
        assert not engine.records_graphs
        assert cuda.graph_launches == 0
    assert "no CUDA graphs" in caplog.text


def test_a_plan_that_does_not_run_any_more_behind_a_recording_fails_when_it_is_opened(cuda: FakeCuda) -> None:
    library = library_of(cuda, refuses_runs=frozenset({2, 3}))
    with pytest.raises(EngineError, match="TensorRT failed"):
        TensorRtEngine(fake_plan(SIZE_WH), library, cuda, TensorRtOptions(cuda_graphs=True))
    assert not cuda.is_entered


@pytest.mark.parametrize("launch", range(4))
def test_a_frame_that_the_device_refuses_is_one_error_and_larger_ones_still_find_room(launch: int) -> None:
    cuda = FakeCuda(functions=compiled_functions(), refused_launches=frozenset({launch}))
    with opened(cuda) as engine:
        small, large = placed(pictures(1)[0], "stretch"), placed(pictures(1, 0, (64, 48))[0], "stretch")
        errors = [_error_of(lambda frame=frame: engine.enqueue_frames([frame])) for frame in [small, small, large] * 2]  # type: ignore[misc]
        assert len([error for error in errors if error]) == 1


def test_an_engine_that_nobody_closes_leaves_the_context_at_exit() -> None:
    code = """
import atexit
from tests.runtime.engines.tensorrt.test_engine import FakeCuda, opened
cuda = FakeCuda()
atexit.register(lambda: print(cuda.is_entered))  # behind those that are registered later
engine = opened(cuda)
print(cuda.is_entered)
"""
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, cwd=ROOT, check=True
    )
    assert done.stdout.split() == ["True", "False"]


@given(st.lists(st.integers(1, 4), min_size=2, max_size=12))
@settings(deadline=None, max_examples=40)
def test_batches_of_changing_sizes_wait_for_each_other_only_where_their_shape_changes(sizes: list[int]) -> None:
    cuda = FakeCuda()
    with opened(cuda, fake_plan(SIZE_WH, 4)) as engine:
        batches = [pictures(size, seed) for seed, size in enumerate(sizes)]
        for ticket, batch in zip([engine.enqueue(batch) for batch in batches], batches, strict=True):
            np.testing.assert_array_equal(ticket.result()["class_map"], batch[..., 0] >> 5)


@pytest.mark.parametrize("fit", ["stretch", "letterbox", "crop"])
def test_frames_are_laid_on_the_input_as_the_cpu_does_and_drawn_over(cuda: FakeCuda, fit: Fit) -> None:
    cuda.functions |= compiled_functions()
    style = OverlayStyle(alpha=0.4, legend=False, hidden=("class 3",))
    with opened(cuda, fake_plan(SIZE_WH, 3), look=look_of(CLASSES, style)) as engine:
        assert takes_frames(engine)
        for sizes in ([(20, 11)], [(5, 9), (30, 40), (8, 6)], [(64, 48), (3, 2)]):  # cameras of all sizes in turns
            frames = [placed(pictures(1, number, size)[0], fit) for number, size in enumerate(sizes)]
            outputs = engine.enqueue_frames(frames).result()
            for number, frame in enumerate(frames):
                fitted = frame.placement.input_from_frame(frame.image)
                np.testing.assert_array_equal(outputs["class_map"][number], fitted[..., 0] >> 5)
                prediction = engine.decode({name: values[number] for name, values in outputs.items()})
                wanted = segmentation_of(frame_of(frame.image), frame.placement, prediction, SystemClock())
                assert wanted.blended is not None
                plain = segmentation_of(
                    frame_of(frame.image), frame.placement, engine.decode({"class_map": outputs["class_map"][number]}),
                    SystemClock(),
                )  # fmt: skip
                np.testing.assert_array_equal(wanted.blended, Overlay(CLASSES, style).draw(plain))
                over = Overlay(CLASSES, style)
                np.testing.assert_array_equal(over.draw(wanted, (), wanted.blended), over.draw(plain))
                other = Overlay(CLASSES, OverlayStyle(alpha=0.9))  # somebody's own draws as it is asked to
                np.testing.assert_array_equal(other.draw(wanted), other.draw(plain))


def test_frames_without_room_on_the_device_are_fitted_on_the_cpu(caplog: pytest.LogCaptureFixture) -> None:
    cuda = FakeCuda(3 << 20, functions=compiled_functions())
    with opened(cuda, look=look_of(CLASSES, OverlayStyle())) as engine:
        for size_wh in ((20, 11), (1200, 900), (20, 11)):
            frame = placed(pictures(1, 0, size_wh)[0], "stretch")
            outputs = engine.enqueue_frames([frame]).result()
            fitted = frame.placement.input_from_frame(frame.image)
            np.testing.assert_array_equal(outputs["class_map"][0], fitted[..., 0] >> 5)
    assert caplog.text.count("fitted on the CPU from now on") == 1


def test_a_run_that_tensorrt_refuses_is_one_error_and_the_next_works(cuda: FakeCuda) -> None:
    library = library_of(cuda, refuses_runs=frozenset({2, 3}))  # behind the first run of each slot
    with TensorRtEngine(fake_plan(SIZE_WH), library, cuda, TensorRtOptions()) as engine:
        for _ in range(2):
            with pytest.raises(EngineError, match="TensorRT failed"):
                engine.enqueue(pictures(1))
        batch = pictures(1)
        np.testing.assert_array_equal(engine.enqueue(batch).result()["class_map"], batch[..., 0] >> 5)


def test_a_fault_of_one_batch_is_told_by_its_ticket_alone() -> None:
    cuda = FakeCuda(faults={8: EngineError("CUDA failed", "once")})
    with opened(cuda) as engine:
        batch = pictures(1)
        tickets = [engine.enqueue(batch) for _ in range(4)]
        failed = [ticket for ticket in tickets if _error_of(ticket.result)]
        assert len(failed) == 1
        assert _error_of(failed[0].result) is _error_of(failed[0].result)


def test_a_lost_device_is_told_to_all_and_the_engine_still_closes() -> None:
    cuda = FakeCuda(faults={7: DeviceError("the GPU has failed")})
    with opened(cuda) as engine:
        tickets = [engine.enqueue(pictures(1)) for _ in range(2)]
        for ticket in tickets:
            with pytest.raises(DeviceError):
                ticket.result()
        with pytest.raises(DeviceError):
            engine.enqueue(pictures(1))


@pytest.mark.parametrize("memory_bytes", [1 << 10, (1 << 20) + 100])
def test_too_little_memory_fails_when_it_is_opened_and_leaves_nothing(memory_bytes: int) -> None:
    cuda = FakeCuda(memory_bytes)
    with pytest.raises(DeviceError):
        opened(cuda)
    with cuda:
        assert cuda.free_memory() == (memory_bytes, memory_bytes)


def test_another_thread_is_refused(cuda: FakeCuda) -> None:
    with opened(cuda) as engine:
        ticket = engine.enqueue(pictures(1))
        errors: list[Exception | None] = []

        def use() -> None:
            errors.extend(map(_error_of, (lambda: engine.enqueue(pictures(1)), ticket.result, engine.close)))

        thread = threading.Thread(target=use)
        thread.start()
        thread.join(10)
        assert [("another thread's" in str(error)) for error in errors] == [True] * 3


@pytest.mark.parametrize(
    ("plan", "message"),
    [
        (b"junk", "TensorRT refuses its plan"),
        (fake_plan(SIZE_WH, image="picture"), "not of a bundle's graph"),
        (fake_plan(SIZE_WH, outputs=["confidence"]), "does not give `class_map`"),
    ],
)
def test_a_plan_that_is_none_of_ours_is_refused(cuda: FakeCuda, plan: bytes, message: str) -> None:
    with pytest.raises(EngineError, match=message):
        opened(cuda, plan)
    with cuda:
        assert cuda.free_memory()[0] == cuda.free_memory()[1]


def test_what_is_in_flight_when_it_is_closed_can_still_be_had(cuda: FakeCuda) -> None:
    batch = pictures(1)
    with opened(cuda) as engine:
        ticket = engine.enqueue(batch)
    np.testing.assert_array_equal(ticket.result()["class_map"], batch[..., 0] >> 5)
    assert engine.input_shape_nhwc == (1, 6, 8, 3)


def test_a_batch_that_does_not_fit_is_refused(cuda: FakeCuda) -> None:
    with opened(cuda) as engine:
        for batch in (pictures(2), pictures(1)[:, :3], pictures(1).astype(np.float32)):
            with pytest.raises(EngineError, match="does not fit"):
                engine.enqueue(batch)  # type: ignore[arg-type]
        with pytest.raises(EngineError, match="1 to 1 frames"):
            engine.enqueue_frames([])
    with pytest.raises(EngineError, match="closed"):
        engine.enqueue(pictures(1))
    engine.close()


def test_the_fake_notices_what_a_device_would_not_forgive() -> None:
    cuda = FakeCuda()
    with pytest.raises(RuleBroken, match="never freed"), cuda:
        cuda.allocate(8)
    cuda = FakeCuda()
    with cuda:
        memory, host = cuda.allocate(8), cuda.pinned((8,), np.uint8)
        first, second = cuda.stream(), cuda.stream()
        cuda.upload(memory.address, host, first)
        with pytest.raises(RuleBroken, match="a race"):
            cuda.download(host, memory.address, second)
        with pytest.raises(RuleBroken, match="not pinned"):
            cuda.upload(memory.address, np.zeros(8, np.uint8), first)
        with pytest.raises(RuleBroken, match="over the end"):
            cuda.upload(memory.address + 4, host, first)
        with pytest.raises(RuleBroken, match="before the device is done"):
            memory.free()
        first.synchronize()
        memory.free()
        with pytest.raises(RuleBroken, match="after it was freed"):
            cuda.upload(memory.address, host, first)
        del host


def test_the_fake_notices_what_cannot_be_recorded() -> None:
    cuda = FakeCuda()
    with cuda:
        stream, event = cuda.stream(), cuda.event()
        memory, held = cuda.allocate(8), [cuda.pinned((8,), np.uint8)]
        calls: tuple[Callable[[], object], ...] = (
            lambda: cuda.allocate(8),
            lambda: cuda.pinned((8,), np.uint8),
            memory.free,
            stream.synchronize,
            event.synchronize,
        )
        for forbidden in calls:
            assert cuda.capture(stream, partial(_run, forbidden)) is None
            assert cuda.capture(stream, partial(_run, partial(_error_of, forbidden))) is None, "it is spoilt"
        graph = cuda.capture(stream, lambda: cuda.upload(memory.address, held[0], stream))
        assert graph is not None
        graph.launch(stream)
        with pytest.raises(RuleBroken, match="while it runs"):
            graph.free()
        stream.synchronize()
        graph.free()
        graph.free()
        with pytest.raises(RuleBroken, match="after it was freed"):
            graph.launch(stream)
        memory.free()
        held.clear()
    cuda = FakeCuda()
    with pytest.raises(RuleBroken, match="left before a graph is gone"), cuda:
        cuda.capture(cuda.stream(), lambda: None)


def placed(image: Image, fit: Fit) -> PlacedFrame:
    return PlacedFrame(image, placement_of((image.shape[1], image.shape[0]), SIZE_WH, fit))


def frame_of(image: Image) -> Frame:
    return Frame("picture", 0, 0, 0, 0, "wall", image)


def _run(call: Callable[[], object]) -> None:
    call()


def _error_of(call: Callable[[], object]) -> Exception | None:
    try:
        call()
    except EngineError as error:
        return error
    return None
