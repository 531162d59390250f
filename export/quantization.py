"""The INT8 part of an export: from the fused float graph and the user's frames to variants, table and report."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from vidseg.calibration.candidates import CandidateFrames, read_candidates
from vidseg.calibration.frame_store import FrameStore
from vidseg.calibration.frames import CalibrationFrames, choose_frames
from vidseg.calibration.gate import Budget, compare
from vidseg.calibration.selection import SelectionOptions
from vidseg.calibration.table import CalibrationTable, table_json
from vidseg.export.calibrating import calibrate, ticks_of
from vidseg.export.cut import PROBABILITIES, Cut
from vidseg.export.graph import Graph
from vidseg.export.groups import MIN_CHANNELS, FusionGroup, find_groups
from vidseg.export.head import Head
from vidseg.export.int8 import Quantizer, Stage, candidates_among
from vidseg.export.model import LoadedModel, source_of
from vidseg.export.plan import Plan
from vidseg.export.quantized_model import FloatModel, QuantizedModel, TargetResult
from vidseg.export.references import LabelledVerification, float_references, labelled_verification
from vidseg.export.rtx import RtxOptions, build_rtx, check_compiler
from vidseg.export.runner import FeatureExtractor, GraphRunner, watched_tensors
from vidseg.export.search import AccuracyGate
from vidseg.export.table_cache import TableCache
from vidseg.export.variants import quantized_variants
from vidseg.runtime.bundle import sha256_of
from vidseg.runtime.engines.candidates import installed_engines
from vidseg.runtime.errors import ConfigurationError, EngineError, ModelError, UsageError
from vidseg.runtime.frame import ClassMap, Image
from vidseg.runtime.geometry import placement_of
from vidseg.runtime.manifest import InputSpec, VariantSpec
from vidseg.runtime.segmenter import Segmenter

MIN_CANDIDATES = 200
"""Different frames to choose from, if there are so many; more where more are calibrated on."""

VERIFICATION = 48
WORST_FRAMES = 4
MIN_FRAMES = 8

TABLE = "calibration.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class QuantizationRequest:
    """What to calibrate on, and what may be lost.

    Attributes:
        frames_uri: video or folder of frames of the real scene.
        frames: how many to calibrate on.
        images, labels, mapping, ignore: labelled pictures to verify with, as in `vidseg evaluate`; without them frames
            of `frames_uri` are held out.
        budget: what may be lost.
        plan: which groups to quantize, recorded by an export before; None to find out.
        dla: quantize for NVIDIA's DLA too, whose graph and ranges are files of their own.
        compute_capabilities: to compile for with TensorRT-RTX, 86 for 8.6, so that its plans can be audited.
        cache: folder for finished calibration tables, so that an interrupted export goes on; None for none.
    """

    frames_uri: str
    frames: int = 100
    images: Path | None = None
    labels: Path | None = None
    mapping: Path | None = None
    ignore: int = 255
    budget: Budget = field(default_factory=Budget)
    plan: Plan | None = None
    dla: bool = False
    compute_capabilities: tuple[int, ...] = ()
    cache: Path | None = None

    def __post_init__(self) -> None:
        if not 1 <= self.frames <= 10_000:
            raise UsageError("calibration takes 1 to 10000 frames", str(self.frames))
        if (self.images is None) != (self.labels is None) or (self.mapping is not None and self.images is None):
            raise UsageError(
                "labelled pictures need both folders", "one of them", "Give --verify-images and --verify-labels."
            )
        if self.dla and self.plan is not None and self.plan.dla is None:
            do = "Export with --dla and without --plan, and take that plan."
            raise UsageError("the plan names no layers for DLA", "one that was recorded without --dla", do)
        if self.compute_capabilities:
            RtxOptions(compute_capabilities=self.compute_capabilities)  # refuses those that there are not

    def check(self, class_names: Sequence[str]) -> LabelledVerification | None:
        """Check what can be checked before any work, and give the labelled pictures; None where there are none.

        Args:
            class_names: of the model's classes.

        Raises:
            DatasetError: pictures or labels are unreadable, do not fit together, or there is no labelled pixel.
            ConfigurationError: the mapping does not fit, or a compiler is asked for that is not installed.
        """
        if self.compute_capabilities:
            check_compiler()
        return labelled_verification(self.images, self.labels, self.mapping, self.ignore, class_names)


@dataclass(frozen=True, slots=True, eq=False)
class Quantization:
    """What the INT8 part gave.

    Attributes:
        model: the quantized graphs and how they were found.
        frames: facts about the frames, for the report.
        gate: what candidates had to pass.
        variants: for the manifest, with the members that they name.
        members: content by path.
        plan: to do the same again.
        compiled: what TensorRT-RTX made of it, a document a compute capability, or why it refuses it; empty where
            nobody asked.
        pictures: verification frames by number, (H, W, 3) uint8 BGR: those where a target differs most.
    """

    model: QuantizedModel
    frames: dict[str, Any]
    gate: AccuracyGate
    variants: tuple[VariantSpec, ...]
    members: dict[str, bytes]
    plan: Plan
    compiled: dict[str, Any] = field(default_factory=dict)
    pictures: dict[int, Image] = field(default_factory=dict)

    @property
    def best(self) -> TargetResult | None:
        """The fastest one that ships; None where float stays."""
        shipping = [target for target in self.model.targets if target.ships]
        return min(shipping, key=lambda target: target.fastest_ms("int8"), default=None)

    @property
    def shown(self) -> TargetResult | None:
        """What pictures are made of: the best, else one that was quantized at least; None where nothing was."""
        return self.best or next((target for target in self.model.targets if target.groups), None)

    @property
    def verdict(self) -> str:
        """`int8`, `mixed` or `float`, of the fastest."""
        if self.best is None:
            return "float"
        return "int8" if set(self.best.groups) >= set(self.model.candidates) else "mixed"


def float_model_of(model: LoadedModel, head: Head, cut: Cut | None, content: bytes) -> FloatModel:
    """The fused graph with where its classes are decided: before its last upsampling, if that can be cut."""
    return FloatModel(
        name=model.name,
        content=content,
        scores=cut.tensor if cut else head.output,
        axis=1 if (cut.layout if cut else head.layout) == "NCHW" else 3,
        probabilities=cut.spec.scores == "probabilities" if cut else _are_probabilities(content, head),
        upsampling=cut.spec if cut else None,
        size_wh=model.size_wh,
    )


@dataclass(frozen=True, slots=True, eq=False)
class BundleQuantizer:
    """Calibrates, quantizes and verifies a model for a bundle.

    Attributes:
        request: see `QuantizationRequest`.
        model: the fused float graph.
        spec: its input.
        class_names: of the model's classes.
        labelled: pictures to verify with; None where frames of the request's source are held out for that.
        stage: progress.
        log: called with a line about frames that are not as one may expect.
    """

    request: QuantizationRequest
    model: FloatModel
    spec: InputSpec
    class_names: Sequence[str]
    labelled: LabelledVerification | None
    stage: Stage
    log: Callable[[str], None]

    def quantize(self, samples: Sequence[tuple[Image, ClassMap]]) -> Quantization:
        """Do all of it.

        Args:
            samples: of the bundle, to be reproduced on devices.

        Raises:
            ConfigurationError, DatasetError, SourceError: the frames or labels are missing, unreadable or too few.
            EngineError: no engine here runs the model.
        """
        request, labelled = self.request, self.labelled
        graph = Graph(self.model.content)
        groups = candidates_among(find_groups(graph))
        if not groups:
            raise ConfigurationError(
                f"{self.model.name}: there is nothing to quantize",
                f"no convolution of {MIN_CHANNELS} channels",
                "Export it without --calib.",
            )
        if request.plan is not None:
            request.plan.check(self.model.name, [group.name for group in groups], installed_engines())
        with FrameStore(self._fitted) as store:
            found = self._read(store)
            cache = TableCache(request.cache, sha256_of(graph.serialized()), self.log)
            runner = self._runner(store, cache)
            frames = self._choose(found, runner, graph, groups, labelled)
            table = self._table(runner, graph, groups, frames, cache)
            gate = self._gate(runner, frames, labelled)
            quantizer = Quantizer(self.model, runner, table, gate, request.plan, self.stage, request.dla)
            quantized = quantizer.quantize(frames.calibration)
            facts = _facts(frames, labelled)
            shown = [target.comparison for target in quantized.targets if target.groups]
            worst = {number for comparison in shown for number in comparison.worst_frames(WORST_FRAMES)}
            pictures = {number: gate.references[number].image for number in sorted(worst)}
        variants, members = quantized_variants(self.model, quantized, samples)
        plan = Plan(
            calibration_engine=runner.engine,
            accurate=quantized.accurate,
            targets={target.engine: target.groups for target in quantized.targets if target.ships},
            tensorrt=quantized.master.groups if quantized.master else (),
            dla=(quantized.dla.groups if quantized.dla else ()) if request.dla else None,
        )
        members[TABLE] = table_json(table)
        compiled = self._compiled(quantized)
        return Quantization(quantized, facts, gate, variants, members, plan, compiled, pictures)

    def _compiled(self, quantized: QuantizedModel) -> dict[str, Any]:
        """Plans for GPUs that are not here: measured and thrown away."""
        capabilities = self.request.compute_capabilities
        if not capabilities:
            return {}
        if quantized.master is None:
            return {"refused": f"There is no INT8 graph to compile: {quantized.no_master}."}
        self.stage("compiling with TensorRT-RTX", 0)
        options = RtxOptions(name=self.model.name, compute_capabilities=capabilities)
        try:
            return build_rtx(quantized.master.half or quantized.master.content, options).document()
        except (ModelError, EngineError) as error:
            return {"refused": str(error)}

    def _fitted(self, image: Image) -> Image:
        placement = placement_of((image.shape[1], image.shape[0]), self.spec.size_wh, self.spec.fit)
        return placement.input_from_frame(image)

    def _read(self, store: FrameStore) -> CandidateFrames:
        uri = self.request.frames_uri
        tick = self.stage(f"reading {uri}", 0)
        most = max(MIN_CANDIDATES, 2 * self.request.frames)
        found = read_candidates(uri, store, max_candidates=most, log=self.log, progress=lambda _read: tick())
        if found.counts.unreadable:
            self.log(f"{uri}: {found.counts}")
        return found

    def _runner(self, store: FrameStore, cache: TableCache) -> GraphRunner:
        if self.request.plan is not None:
            return GraphRunner(self.model.name, self.request.plan.calibration_engine)
        before = [engine for engine in installed_engines() if cache.holds(engine)]
        if before:  # results differ in their last bits between engines: go on in the same
            return GraphRunner(self.model.name, before[0])
        if not len(store):
            return GraphRunner(self.model.name, "onnxruntime")
        return GraphRunner.fastest(self.model.name, self.model.content, store[0])

    def _choose(
        self,
        candidates: CandidateFrames,
        runner: GraphRunner,
        graph: Graph,
        groups: Sequence[FusionGroup],
        labelled: LabelledVerification | None,
    ) -> CalibrationFrames:
        options = SelectionOptions(
            calibration=self.request.frames,
            verification=0 if labelled else VERIFICATION,
            min_calibration=1 if labelled else MIN_FRAMES,
        )
        tick = self.stage("features of frames", len(candidates.store))
        with FeatureExtractor(runner, graph, groups, len(self.class_names)) as features:
            excluded = labelled.thumbnails if labelled else None
            frames = choose_frames(candidates, features, options, excluded=excluded, progress=lambda _done: tick())
        to_verify = f"{len(labelled.folder)} labelled pictures" if labelled else f"{len(frames.verification)} others"
        self.log(f"calibrating on {len(frames.calibration)} frames, verifying with {to_verify}")
        if frames.excluded:
            self.log(
                f"{candidates.source}: {frames.excluded} frames are nearly labelled pictures. They are left "
                "out, but those beside them may flatter the result: better calibrate on another recording"
            )
        return frames

    def _table(
        self,
        runner: GraphRunner,
        graph: Graph,
        groups: Sequence[FusionGroup],
        frames: CalibrationFrames,
        cache: TableCache,
    ) -> CalibrationTable:
        """A finished table of the same graph, frames and engine, or a new one."""
        table = cache.read(runner.engine, frames.calibration_sha256, watched_tensors(groups))
        if table is not None:
            self.stage("calibration of an export before", 0)
            return table
        tick = self.stage("calibrating", ticks_of(len(frames.calibration)))
        table = calibrate(runner, graph, groups, frames, tick)
        cache.write(runner.engine, table)
        return table

    def _gate(
        self, runner: GraphRunner, frames: CalibrationFrames, labelled: LabelledVerification | None
    ) -> AccuracyGate:
        model, spec = self.model, self.spec
        pictures = labelled.folder if labelled else frames.verification
        tick = self.stage("float on verification frames", 2 * len(pictures))
        references = float_references(runner, model, spec.fit, pictures, tick)
        options = labelled.options if labelled else None
        with model.opener(model.content, runner.engine, None, "fp32")() as engine:
            float_result = compare(Segmenter(engine, spec.fit), references, options, tick)
        names = labelled.names if labelled else tuple(self.class_names)
        return AccuracyGate(references, float_result, options, self.request.budget, names, spec.fit)


def _are_probabilities(content: bytes, head: Head) -> bool:
    graph = Graph(content).model.graph  # fusing may have taken a softmax at the end out
    return source_of(graph, head.output, ("Transpose", "Identity", "Resize")).op_type in PROBABILITIES


def _facts(frames: CalibrationFrames, labelled: LabelledVerification | None) -> dict[str, Any]:
    return {
        "source": frames.source if "://" in frames.source else Path(frames.source).name,
        "counts": str(frames.counts),
        "calibration": list(frames.calibration_numbers),
        "calibration_sha256": frames.calibration_sha256,
        "verification": f"{len(labelled.folder)} labelled pictures" if labelled else list(frames.verification_numbers),
        "verification_sha256": None if labelled else frames.verification_sha256,
        "gap": None if labelled else frames.gap,
    }
