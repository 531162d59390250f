"""`TrialEngine`: serves at once, and finds the fastest candidate on the frames that come."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from statistics import median
from types import TracebackType
from typing import Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from vidseg.runtime.bundle import Bundle
from vidseg.runtime.clock import Clock, SystemClock
from vidseg.runtime.decoding import SCORES, Outputs, Prediction
from vidseg.runtime.engines import Engine, Ticket
from vidseg.runtime.engines.bench import bench
from vidseg.runtime.engines.candidates import (
    Candidate,
    candidates_of,
    gpu_candidates,
    min_agreement,
    sample_agreement,
)
from vidseg.runtime.engines.choice import ChoiceMemory, fastest, is_clearly_faster
from vidseg.runtime.engines.opening import AnyEngineName, GpuUse, open_engine
from vidseg.runtime.errors import DeviceError, EngineError

log = logging.getLogger(__name__)

WantedEngine: TypeAlias = AnyEngineName | Literal["auto"]

SETTLED_AFTER = 30
SETTLED_NS = 1_500_000_000
"""Frames, or time for slow models, before the first trial: the start of a run is not like the rest of it."""

BLOCK = 5
"""Frames in a row for one engine; the first of them does not count, because it finds the other's data in the caches."""

ROUNDS = 5
"""Blocks of each engine in a trial."""

CLEAR_RATIO = 1.5
"""Of times that end a trial after the first block of each."""


def engine_for(
    bundle: Bundle,
    wanted: WantedEngine = "auto",
    memory: ChoiceMemory | None = None,
    *,
    variant: str | None = None,
    trials: bool = True,
    confidence: bool = False,
    gpu: GpuUse | None = None,
) -> Engine:
    """The engine that a user wants, with the variant `float` or a named one; or for `auto` the fastest that is known.

    Where none is remembered, TensorRT's plans are built and compared where there is a GPU for it, which takes minutes,
    once. Elsewhere, and where none of them works, ONNX Runtime serves, and unless `trials` is False finds out on the
    frames that come. A named variant without an engine runs in the first one that it is for.

    Raises:
        BundleError, EngineError, DeviceError: see `open_engine`.
    """
    if variant is not None or wanted in {"onnxruntime", "openvino"}:
        return _named(bundle, wanted, variant).open(bundle, confidence=confidence, gpu=gpu)
    remembered = memory.recall(bundle) if memory else None
    if remembered and wanted in {"auto", remembered.engine}:
        try:
            return remembered.open(bundle, confidence=confidence, gpu=gpu)
        except (EngineError, DeviceError) as error:
            log.warning("%s was chosen before and cannot be loaded now: %s", remembered, error)

    def decided(candidate: Candidate) -> None:
        if memory:
            memory.remember(bundle, candidate)

    engine = _on_gpu(bundle, wanted, decided, confidence=confidence, gpu=gpu or GpuUse())
    if engine is not None:
        return engine
    candidates = [candidate for candidate in candidates_of(bundle) if candidate.engine != "tensorrt"]
    if not candidates:
        raise EngineError(f"{bundle.path}: no engine that is installed here can run it", "", "Try `vidseg doctor`.")
    if not trials:
        return candidates[0].open(bundle, confidence=confidence)
    stands_in = bool(gpu_candidates(bundle))  # for the GPU, which may be free at the next start
    return TrialEngine(bundle, candidates, _forget if stands_in else decided, confidence=confidence)


def _forget(_candidate: Candidate) -> None:
    """For a choice that is not to be remembered."""


def _on_gpu(
    bundle: Bundle,
    wanted: WantedEngine,
    decided: Callable[[Candidate], None],
    *,
    confidence: bool,
    gpu: GpuUse,
) -> Engine | None:
    """The fastest plan that is right, built now where none is kept; None where none works, unless it has to."""
    candidates = gpu_candidates(bundle)
    if not candidates:  # the error says what is missing
        return open_engine(bundle, "tensorrt", "fp16", gpu=gpu) if wanted == "tensorrt" else None
    log.warning("finding the fastest plan for this GPU; where none is kept yet, that takes minutes, once")
    try:
        chosen = fastest(
            bench(
                bundle, candidates, progress=lambda _share: gpu.progress(0.0),
                load=lambda candidate: candidate.open(bundle, confidence=confidence, gpu=gpu),
            )
        )  # fmt: skip
        engine = chosen.open(bundle, confidence=confidence, gpu=gpu)
    except (EngineError, DeviceError) as error:
        if wanted == "tensorrt":
            raise
        log.warning("the GPU is not used: %s", error)
        return None
    decided(chosen)
    return engine


def _named(bundle: Bundle, wanted: WantedEngine, variant: str | None) -> Candidate:
    """The engine and variant that a user names, one of them or both."""
    if wanted != "auto":
        return Candidate(wanted, variant or "float")
    spec = bundle.variant(variant or "float")
    able = [candidate for candidate in candidates_of(bundle) if candidate.variant == spec.name]
    if not able:
        targets = f"it is for {', '.join(spec.targets)}"
        raise EngineError(f"{bundle.path}: no engine here runs the variant {spec.name}", targets)
    return able[0]


@dataclass(slots=True, eq=False)
class _Contender:
    candidate: Candidate
    engine: Engine
    service_ms: list[float] = field(default_factory=list)
    decode_ms: list[float] = field(default_factory=list)

    def cost_ms(self) -> float:
        return median(self.service_ms) + (median(self.decode_ms) if self.decode_ms else 0.0)


class TrialEngine:
    """An engine that tries others beside itself, one after the other, each against the fastest so far.

    In a trial the two take turns on the live frames, in short blocks, so that both are measured under the load of the
    rest of the pipeline. A challenger has to reproduce the bundle's samples and to be faster by more than 5 %. One that
    fails is given up, and the other infers its frame.

    Args:
        bundle: the model.
        candidates: the first one serves from the start.
        decided: called once, with the candidate that is left.
        confidence: predictions have one.
        clock: for the times.

    Raises:
        EngineError: the first candidate cannot be loaded.
    """

    def __init__(
        self,
        bundle: Bundle,
        candidates: Sequence[Candidate],
        decided: Callable[[Candidate], None],
        *,
        confidence: bool = False,
        clock: Clock | None = None,
    ) -> None:
        self._bundle = bundle
        self._decided: Callable[[Candidate], None] | None = decided
        self._confidence = confidence
        self._clock = clock or SystemClock()
        self._waiting = list(candidates[1:])
        self._best = _Contender(candidates[0], candidates[0].open(bundle, confidence=confidence))
        self._challenger: _Contender | None = None
        self._decoders = {self._is_cut(self._best): self._best.engine.decode}
        self._frames = 0
        self._started_ns = 0
        self._free_ns = 0

    @property
    def input_shape_nhwc(self) -> tuple[int, int, int, int]:
        """(1, height, width, 3)."""
        return self._best.engine.input_shape_nhwc

    @property
    def max_batch(self) -> int:
        """As the engine has it that is the fastest so far."""
        return self._best.engine.max_batch

    @property
    def device(self) -> str:
        """As the engine has it that is the fastest so far."""
        return self._best.engine.device

    @property
    def precision(self) -> str:
        """As the engine has it that is the fastest so far."""
        return self._best.engine.precision

    def enqueue(self, batch: NDArray[np.uint8]) -> Ticket:
        """Give a batch to the engine whose turn it is; now and then, load the next one before.

        Raises:
            EngineError: as that of the fastest engine so far.
        """
        if self._decided and self._challenger is None and self._is_settled():
            self._next_trial()
        number = self._frames
        self._frames += 1
        contender = self._best
        if self._challenger and (number // BLOCK) % 2:
            contender = self._challenger
        started_ns = self._clock.now_ns()
        try:
            ticket = contender.engine.enqueue(batch)
        except EngineError as error:
            ticket = self._instead(contender, error, batch)
        return _LateTicket(lambda: self._finish(contender, ticket, batch, started_ns if number % BLOCK else None))

    def decode(self, outputs: Outputs) -> Prediction:
        """By the decoder of the kind of graph that gave the outputs."""
        is_cut = SCORES in outputs
        started_ns = self._clock.now_ns()
        prediction = self._decoders[is_cut](outputs)
        elapsed_ms = (self._clock.now_ns() - started_ns) / 1e6
        for contender in (self._best, self._challenger):
            if contender and self._decided and self._is_cut(contender) == is_cut:
                contender.decode_ms.append(elapsed_ms)
        return prediction

    def close(self) -> None:
        """Close what is open. Idempotent."""
        self._decided = None
        self._best.engine.close()
        if self._challenger:
            self._challenger.engine.close()

    def __enter__(self) -> TrialEngine:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _is_cut(self, contender: _Contender) -> bool:
        return self._bundle.variant(contender.candidate.variant).upsampling is not None

    def _next_trial(self) -> None:
        """Load the next candidate that works; where none is left, the trials are over."""
        while self._waiting:
            candidate = self._waiting.pop(0)
            challenger = self._loaded(candidate)
            if challenger:
                self._challenger = challenger
                self._decoders[self._is_cut(challenger)] = challenger.engine.decode
                for contender in (self._best, challenger):
                    contender.service_ms.clear()
                    contender.decode_ms.clear()
                self._frames = SETTLED_AFTER - SETTLED_AFTER % (2 * BLOCK) + BLOCK  # the challenger's block is next
                return
        decided, self._decided = self._decided, None
        log.info("the fastest here is %s", self._best.candidate)
        if decided:
            decided(self._best.candidate)

    def _loaded(self, candidate: Candidate) -> _Contender | None:
        try:
            engine = candidate.open(self._bundle, confidence=self._confidence)
        except EngineError as error:
            log.info("%s cannot be tried: %s", candidate, error)
            return None
        try:
            agreement = sample_agreement(self._bundle, engine)
        except EngineError as error:
            log.warning("%s does not work here: %s", candidate, error)
            agreement = 0.0
        if agreement >= min_agreement(self._bundle, candidate):
            return _Contender(candidate, engine)
        log.warning("%s is left out: it gives %.3f%% of the samples' pixels", candidate, agreement * 100)
        engine.close()
        return None

    def _finish(
        self, contender: _Contender, ticket: Ticket, batch: NDArray[np.uint8], started_ns: int | None
    ) -> Outputs:
        """Wait for a batch, and count its time where `started_ns` is given."""
        try:
            outputs = ticket.result()
        except EngineError as error:
            outputs = self._instead(contender, error, batch).result()
        now_ns = self._clock.now_ns()
        if started_ns is not None:  # it had the device since it was given, or since the one before it was done
            contender.service_ms.append((now_ns - max(started_ns, self._free_ns)) / 1e6)
        self._free_ns = now_ns
        if self._challenger and self._is_over(self._challenger):
            self._end_trial(self._challenger)
        return outputs

    def _is_settled(self) -> bool:
        now_ns = self._clock.now_ns()
        self._started_ns = self._started_ns or now_ns
        return self._frames >= SETTLED_AFTER or now_ns - self._started_ns >= SETTLED_NS

    def _is_over(self, challenger: _Contender) -> bool:
        counted = min(len(self._best.service_ms), len(challenger.service_ms))
        if counted < BLOCK - 1:
            return False
        low, high = sorted((self._best.cost_ms(), challenger.cost_ms()))
        return high > CLEAR_RATIO * low or counted >= ROUNDS * (BLOCK - 1)

    def _end_trial(self, challenger: _Contender) -> None:
        log.info(
            "%s takes %.1f ms, %s %.1f ms",
            self._best.candidate, self._best.cost_ms(), challenger.candidate, challenger.cost_ms(),
        )  # fmt: skip
        loser = challenger
        if is_clearly_faster(challenger.cost_ms(), self._best.cost_ms()):
            loser, self._best = self._best, challenger
        self._challenger = None
        loser.engine.close()

    def _instead(self, contender: _Contender, error: EngineError, batch: NDArray[np.uint8]) -> Ticket:
        """Give up a challenger that failed, and infer its batch; what serves has to work."""
        if contender is self._best:
            raise error
        log.warning("%s is given up: %s", contender.candidate, error)
        if contender is self._challenger:
            self._challenger = None
            contender.engine.close()
        return self._best.engine.enqueue(batch)


class _LateTicket:
    """A ticket whose result is had by a callable, once."""

    def __init__(self, finish: Callable[[], Outputs]) -> None:
        self._finish = finish
        self._outputs: Outputs | None = None

    def result(self) -> Outputs:
        """The outputs by name."""
        if self._outputs is None:
            self._outputs = self._finish()
        return self._outputs
