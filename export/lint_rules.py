"""What quantized graphs keep to, each rule with its reason; `vidseg.export.lint` checks them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from vidseg.export.groups import MIN_CHANNELS


@dataclass(frozen=True, slots=True)
class Rule:
    """What quantized graphs keep to.

    Attributes:
        name: for messages.
        level: `error` where an engine refuses the graph or computes something else, `advice` where it only is slower.
        reason: why.
    """

    name: str
    level: Literal["error", "advice"]
    reason: str


INTEGER = Rule(
    "pairs, not operators of integers", "error",
    "TensorRT's parser knows no other quantized operators than QuantizeLinear and DequantizeLinear.",
)  # fmt: skip
DOMAIN = Rule("default domain", "error", "TensorRT's parser knows the standard operators only.")
INT8 = Rule("int8 only", "error", "TensorRT takes no uint8 activations; write zero points as int8.")
EXPLICIT = Rule("explicit zero point", "error", "Without one the type is uint8, which TensorRT refuses.")
ZERO = Rule("zero point 0", "error", "TensorRT quantizes symmetrically.")
SCALE = Rule("scale above 0", "error", "Scales are float32 constants, finite and above 0; TensorRT refuses others.")
SHAPE = Rule("zero point of the scale's shape", "error", "ONNX demands it.")
SCALAR = Rule(
    "activation scale without axes", "error",
    "With one axis, TensorRT-RTX 1.7 takes it for per-channel and computes in float32.",
)  # fmt: skip
OWN = Rule("a scale of its own", "error", "Refitting or fusing one tensor would change the scale of another.")
RANGE = Rule("weights in -127..127", "error", "-128 has no opposite; symmetric kernels do not hold it.")
AXIS = Rule(
    "weights by output channel", "advice",
    "One scale for all channels loses accuracy, with another axis TensorRT-RTX 1.7 convolves in float32; a "
    "grouped ConvTranspose takes one scale.",
)  # fmt: skip
BIAS = Rule("bias in float", "error", "NVIDIA's parser refuses an int32 bias behind a DequantizeLinear.")
FACTORS = Rule(
    "both factors of a product", "advice",
    "With one alone it is computed in float: what was rounded is lost, and no time is saved.",
)  # fmt: skip
INPUTS = Rule(
    "pairs on the inputs of products", "advice",
    "Only convolutions and products compute in INT8; a pair elsewhere costs time and accuracy.",
)  # fmt: skip
ACTIVATION = Rule(
    "nothing between a product and its activation", "advice", "Engines fuse the two only if no pair stands between."
)
SKIP = Rule(
    "only the skip branch of an addition", "advice",
    "The other branch is fused with its convolution and added before rounding.",
)  # fmt: skip
PAD = Rule("pair before Pad", "advice", "Behind it, padding stays a float kernel of its own.")
NORM = Rule("BatchNormalization folded", "advice", "Fold it into the weights before they are quantized.")
NARROW = Rule(
    f"{MIN_CHANNELS} channels or more", "advice", "Fewer fill no vector of an INT8 kernel: measure that it gains."
)
DEPTHWISE = Rule(
    "depthwise in float", "advice", "TensorRT-RTX pads weights and inputs fourfold, TensorRT 8 has no kernel for some."
)
CLASSIFIER = Rule("classifier output in float", "error", "Rounded scores tie, and ties change classes at every border.")
RULES = (
    INTEGER, DOMAIN, INT8, EXPLICIT, ZERO, SCALE, SHAPE, SCALAR, OWN, RANGE, AXIS, BIAS, FACTORS, INPUTS, ACTIVATION,
    SKIP, PAD, NORM, NARROW, DEPTHWISE, CLASSIFIER,
)  # fmt: skip
