"""A small SegFormer, trained on the rendered street, as ONNX: the transformer of the INT8 proof.

    python -m benchmarks.segformer OUT.onnx [--minutes N]

Trained on one core. Prints the mean IoU on scenes that it has not seen; the file names its classes.
"""

from __future__ import annotations

import argparse
import copy
import itertools
import time
import warnings
from pathlib import Path

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from torch.nn import functional

from examples.train_demo.scenes import TRAINING_SEEDS, UNSEEN_SEEDS, scene_frames
from vidseg.calibration.metrics import ConfusionMatrix, Scores
from vidseg.runtime.frame import UNKNOWN
from vidseg.runtime.sources.street.classes import STREET_CLASSES

INPUT_WH = (256, 192)
BATCH = 8
RATE = 1.5e-3
FRAMES_PER_SEED = 4
_SEEDS_AT_ONCE = 25  # rendered larger than they are kept


class EfficientAttention(nn.Module):
    """Self-attention whose keys and values come from a grid made smaller by a strided convolution."""

    def __init__(self, width: int, heads: int, reduction: int) -> None:
        super().__init__()
        self.heads = heads
        self.query = nn.Linear(width, width)
        self.reduce = nn.Conv2d(width, width, reduction, stride=reduction) if reduction > 1 else None
        self.reduce_norm = nn.LayerNorm(width) if reduction > 1 else None
        self.key = nn.Linear(width, width)
        self.value = nn.Linear(width, width)
        self.project = nn.Linear(width, width)

    def forward(self, tokens: torch.Tensor, grid_hw: tuple[int, int]) -> torch.Tensor:
        """(n, h * w, c) to the same shape."""
        memory = tokens
        if self.reduce is not None and self.reduce_norm is not None:
            memory = self.reduce_norm(tokens_from_grid(self.reduce(grid_from_tokens(tokens, grid_hw))))
        query, key, value = (
            self._split(layer(tensor))
            for layer, tensor in ((self.query, tokens), (self.key, memory), (self.value, memory))
        )
        weights = (query @ key.transpose(-2, -1) * query.shape[-1] ** -0.5).softmax(dim=-1)
        mixed: torch.Tensor = self.project((weights @ value).transpose(1, 2).flatten(2))
        return mixed

    def _split(self, tokens: torch.Tensor) -> torch.Tensor:
        """(n, t, c) to (n, heads, t, c / heads)."""
        return tokens.unflatten(2, (self.heads, -1)).transpose(1, 2)


class MixFeedForward(nn.Module):
    """Two linear layers with a depthwise 3x3 convolution and a GELU between; its padding tells where a token is."""

    def __init__(self, width: int, expansion: int = 4) -> None:
        super().__init__()
        inner = width * expansion
        self.widen = nn.Linear(width, inner)
        self.depthwise = nn.Conv2d(inner, inner, 3, padding=1, groups=inner)
        self.narrow = nn.Linear(inner, width)

    def forward(self, tokens: torch.Tensor, grid_hw: tuple[int, int]) -> torch.Tensor:
        """(n, h * w, c) to the same shape."""
        grid = self.depthwise(grid_from_tokens(self.widen(tokens), grid_hw))
        result: torch.Tensor = self.narrow(functional.gelu(tokens_from_grid(grid)))
        return result


class Block(nn.Module):
    """Attention, then the feed-forward part, each behind a LayerNorm and beside a skip."""

    def __init__(self, width: int, heads: int, reduction: int) -> None:
        super().__init__()
        self.attention_norm = nn.LayerNorm(width)
        self.attention = EfficientAttention(width, heads, reduction)
        self.feed_norm = nn.LayerNorm(width)
        self.feed = MixFeedForward(width)

    def forward(self, tokens: torch.Tensor, grid_hw: tuple[int, int]) -> torch.Tensor:
        """(n, h * w, c) to the same shape."""
        tokens = tokens + self.attention(self.attention_norm(tokens), grid_hw)
        return tokens + self.feed(self.feed_norm(tokens), grid_hw)


class Stage(nn.Module):
    """An overlapping patch embedding and the blocks at its stride."""

    def __init__(self, before: int, width: int, stride: int, *, blocks: int, heads: int, reduction: int) -> None:
        super().__init__()
        self.embed = nn.Conv2d(before, width, 2 * stride - 1, stride=stride, padding=stride - 1)
        self.embed_norm = nn.LayerNorm(width)
        self.blocks = nn.ModuleList(Block(width, heads, reduction) for _ in range(blocks))
        self.norm = nn.LayerNorm(width)

    def forward(self, grid: torch.Tensor) -> torch.Tensor:
        """(n, before, h, w) to (n, width, h / stride, w / stride)."""
        embedded = self.embed(grid)
        grid_hw = (int(embedded.shape[2]), int(embedded.shape[3]))
        tokens = self.embed_norm(tokens_from_grid(embedded))
        for block in self.blocks:
            tokens = block(tokens, grid_hw)
        return grid_from_tokens(self.norm(tokens), grid_hw)


class SegFormer(nn.Module):
    """Four stages at strides 4 to 32 and an all-MLP decoder (Xie et al., 2021), narrower and shallower than their B0.

    Takes (n, 3, h, w) float RGB in 0..1, gives logits (n, classes, h / 4, w / 4).
    """

    def __init__(self, classes: int, decoder: int = 64) -> None:
        super().__init__()
        widths, strides = (32, 64, 80, 112), (4, 2, 2, 2)
        blocks, heads, reductions = (1, 1, 2, 1), (1, 2, 2, 4), (8, 4, 2, 1)
        self.stages = nn.ModuleList(
            Stage(before, width, strides[at], blocks=blocks[at], heads=heads[at], reduction=reductions[at])
            for at, (before, width) in enumerate(itertools.pairwise((3, *widths)))
        )
        self.unify = nn.ModuleList(nn.Linear(width, decoder) for width in widths)
        self.fuse = nn.Conv2d(decoder * len(widths), decoder, 1, bias=False)
        self.fuse_norm = nn.BatchNorm2d(decoder)
        self.classifier = nn.Conv2d(decoder, classes, 1)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """Logits at stride 4."""
        grid, unified = image, []
        size: tuple[int, int] | None = None
        for stage, unify in zip(self.stages, self.unify, strict=True):
            grid = stage(grid)
            grid_hw = (int(grid.shape[2]), int(grid.shape[3]))
            level = grid_from_tokens(unify(tokens_from_grid(grid)), grid_hw)
            size = size or grid_hw
            unified.append(level if grid_hw == size else _resized(level, size))
        fused = torch.relu(self.fuse_norm(self.fuse(torch.cat(unified, dim=1))))
        logits: torch.Tensor = self.classifier(fused)
        return logits


def tokens_from_grid(grid: torch.Tensor) -> torch.Tensor:
    """(n, c, h, w) to (n, h * w, c)."""
    return grid.flatten(2).transpose(1, 2)


def grid_from_tokens(tokens: torch.Tensor, grid_hw: tuple[int, int]) -> torch.Tensor:
    """(n, h * w, c) to (n, c, h, w)."""
    return tokens.transpose(1, 2).unflatten(2, grid_hw)


def small_scene_frames(first_seed: int, seeds: int) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Images (n, 192, 256, 3) uint8 BGR and labels (n, 192, 256) uint8 of rendered streets, 4 frames each."""
    images, labels = [], []
    for seed in range(first_seed, first_seed + seeds, _SEEDS_AT_ONCE):
        count = min(_SEEDS_AT_ONCE, first_seed + seeds - seed)
        for image, label in zip(*scene_frames(seed, count, FRAMES_PER_SEED), strict=True):
            images.append(cv2.resize(image, INPUT_WH, interpolation=cv2.INTER_LINEAR))
            labels.append(cv2.resize(label, INPUT_WH, interpolation=cv2.INTER_NEAREST))
    return np.stack(images).astype(np.uint8), np.stack(labels).astype(np.uint8)


def train(network: nn.Module, images: NDArray[np.uint8], labels: NDArray[np.uint8], minutes: float) -> None:
    """AdamW with a warm-up and a cosine over wall time, flips, cross entropy at full size."""
    optimizer = torch.optim.AdamW(network.parameters(), lr=RATE, weight_decay=0.01)
    pixels = np.bincount(labels[labels != UNKNOWN].ravel(), minlength=len(STREET_CLASSES))
    weight = torch.tensor((pixels.sum() / (pixels + 1)) ** 0.25, dtype=torch.float32)
    rng = np.random.default_rng(0)
    started, step = time.monotonic(), 0
    network.train()
    while (share := (time.monotonic() - started) / (60 * minutes)) < 1:
        for group in optimizer.param_groups:
            group["lr"] = max(RATE * min(share / 0.05, 1) * 0.5 * (1 + np.cos(np.pi * share)), 1e-6)
        chosen, flip = rng.integers(0, len(images), BATCH), -1 if rng.random() < 0.5 else 1
        target = torch.from_numpy(labels[chosen][..., ::flip].astype(np.int64))
        logits = _resized(network(network_input(images[chosen][:, :, ::flip])), target.shape[1:])
        loss = functional.cross_entropy(logits, target, weight=weight / weight.mean(), ignore_index=UNKNOWN)
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimizer.step()
        if step % 100 == 0:
            print(f"{share:5.1%}  step {step}  loss {loss.item():.4f}", flush=True)
        step += 1


def network_input(images: NDArray[np.uint8]) -> torch.Tensor:
    """(n, h, w, 3) uint8 BGR to (n, 3, h, w) float RGB in 0..1."""
    rgb = torch.from_numpy(np.ascontiguousarray(images[..., ::-1]))
    return rgb.permute(0, 3, 1, 2).float().contiguous() / 255


@torch.no_grad()
def measure(network: nn.Module, images: NDArray[np.uint8], labels: NDArray[np.uint8]) -> Scores:
    """Scores at full size over all frames."""
    network.eval()
    matrix = ConfusionMatrix(len(STREET_CLASSES))
    for image, label in zip(images, labels, strict=True):
        logits = _resized(network(network_input(image[None])), label.shape)
        matrix.add(label, logits[0].argmax(0).numpy().astype(np.uint8))
    return matrix.scores()


def export(network: nn.Module, path: Path) -> None:
    """Write ONNX of opset 17: float RGB / 255 in, logits at stride 4 out, class names in the metadata."""
    import onnx

    example = torch.zeros(1, 3, INPUT_WH[1], INPUT_WH[0])
    with warnings.catch_warnings():  # sizes become constants, and that exporter is the old one: both are wanted
        warnings.simplefilter("ignore")
        torch.onnx.export(
            copy.deepcopy(network).eval(), (example,), path, opset_version=17, input_names=["input"],
            output_names=["logits"], dynamo=False,
        )  # fmt: skip
    model = onnx.load(path)
    onnx.helper.set_model_props(model, {"classes": ",".join(spec.name for spec in STREET_CLASSES)})
    onnx.save(model, path)


def _resized(grid: torch.Tensor, size_hw: tuple[int, ...]) -> torch.Tensor:
    return functional.interpolate(grid, size=tuple(size_hw), mode="bilinear", align_corners=False)


def main() -> None:
    """Parse the command line, train, measure, export."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path, help="the ONNX file to write")
    parser.add_argument("--seeds", type=int, default=700, help="streets to train on, 4 frames each")
    parser.add_argument("--minutes", type=float, default=12, help="how long to train")
    options = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    network = SegFormer(len(STREET_CLASSES))
    print(f"{sum(weight.numel() for weight in network.parameters())} weights", flush=True)
    train(network, *small_scene_frames(TRAINING_SEEDS, options.seeds), options.minutes)
    export(network, options.out)
    images, labels = small_scene_frames(UNSEEN_SEEDS, 60)
    scores = measure(network, images, labels)
    for spec, score in zip(STREET_CLASSES, scores.iou, strict=True):
        print(f"{spec.name:10} {score:.4f}")
    print(f"mIoU on {len(images)} unseen frames: {scores.mean_iou:.4f}")


if __name__ == "__main__":
    main()
