"""The demo network: plain 3x3 convolutions, logits at an eighth of the input's size."""

from __future__ import annotations

import itertools

import torch
from torch import nn


class Residual(nn.Module):
    """Two convolutions beside a skip."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.first_norm = nn.BatchNorm2d(channels)
        self.second = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.second_norm = nn.BatchNorm2d(channels)

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """(n, c, h, w) to the same shape."""
        inner = torch.relu(self.first_norm(self.first(features)))
        return torch.relu(features + self.second_norm(self.second(inner)))


class DemoNet(nn.Module):
    """Three strided convolutions, three residual blocks at stride 8, a 3x3 classifier; about 250,000 weights.

    Takes (n, 3, h, w) float RGB in 0..1, gives logits (n, classes, h / 8, w / 8).
    """

    def __init__(self, classes: int, width: int = 64) -> None:
        super().__init__()
        channels = (3, 16, 32, width)
        stem: list[nn.Module] = []
        for before, after in itertools.pairwise(channels):
            stem += [nn.Conv2d(before, after, 3, stride=2, padding=1, bias=False), nn.BatchNorm2d(after), nn.ReLU()]
        self.stem = nn.Sequential(*stem)
        self.body = nn.Sequential(*(Residual(width) for _ in range(3)))
        self.classifier = nn.Conv2d(width, classes, 3, padding=1)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """Logits at stride 8."""
        logits: torch.Tensor = self.classifier(self.body(self.stem(image)))
        return logits
