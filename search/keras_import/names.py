"""Keras' names of layers, operations and functions, and their equals here."""

from __future__ import annotations

from typing import get_args

from search.keras_import.graph import Call
from search.networks.layers import BatchNorm, Function, GlobalAveragePool, Layer

KNOWN = (
    "SeparableConv2D, Conv2D, DepthwiseConv2D with a 1x1 Conv2D after it, BatchNormalization, Activation, ReLU, Dropout, "
    "MaxPooling2D, AveragePooling2D, GlobalAveragePooling2D, Flatten, Dense, Softmax, Add, gates"
)
FUNCTIONS: tuple[Function, ...] = get_args(Function)

SHARED_NEVER = ("BatchNormalization", "Dense")  # layers whose weights no architecture can share
WITH_WEIGHTS = ("Conv2D", "SeparableConv2D", "DepthwiseConv2D", *SHARED_NEVER)
SAME = {
    "Convolution2D": "Conv2D",
    "SeparableConvolution2D": "SeparableConv2D",
    "DepthwiseConvolution2D": "DepthwiseConv2D",
    "SyncBatchNormalization": "BatchNormalization",
    "BatchNormalizationV1": "BatchNormalization",
    "MaxPool2D": "MaxPooling2D",
    "AvgPool2D": "AveragePooling2D",
    "GlobalAvgPool2D": "GlobalAveragePooling2D",
    "GlobalMaxPool2D": "GlobalMaxPooling2D",
    "TrueDivide": "Divide",
}
OPERATIONS = {
    "__operators__.getitem": "GetItem",
    "__operators__.add": "Add",
    "math.add": "Add",
    "math.multiply": "Multiply",
    "__operators__.mul": "Multiply",
    "math.truediv": "Divide",
    "__operators__.truediv": "Divide",
    "math.subtract": "Subtract",
    "split": "Split",
    "nn.relu": "Relu",
    "nn.relu6": "Relu6",
    "nn.silu": "Silu",
    "nn.elu": "Elu",
    "nn.tanh": "Tanh",
    "math.tanh": "Tanh",
    "math.sigmoid": "Sigmoid",
    "nn.sigmoid": "Sigmoid",
    "nn.softmax": "Softmax",
}
# Activations, as layers or operations, with their function; "" where the function depends on options.
ACTIVATIONS = dict.fromkeys(("Activation", "ReLU", "ELU", "Softmax", "Gelu"), "") | {
    "Relu": "relu",
    "Relu6": "relu6",
    "Silu": "silu",
    "Swish": "silu",
    "Elu": "elu",
    "Tanh": "tanh",
    "Sigmoid": "sigmoid",
    "HardSilu": "hard_silu",
    "HardSwish": "hard_silu",
    "HardSigmoid": "hard_sigmoid",
    "LeakyReLU": "leaky_relu",
    "LeakyRelu": "leaky_relu",
    "PReLU": "prelu",
    "ThresholdedReLU": "thresholded_relu",
    "Selu": "selu",
    "Softplus": "softplus",
    "Mish": "mish",
}
OTHER_NAMES = {"swish": "silu", "hard_swish": "hard_silu"}
NEAREST_FUNCTION: dict[str, Function] = {
    "selu": "elu",
    "celu": "elu",
    "mish": "silu",
    "hard_sigmoid": "sigmoid",
    "hard_tanh": "tanh",
    "softsign": "tanh",
    "exponential": "elu",
}
NEAREST: dict[str, tuple[str, Layer | None]] = {
    **dict.fromkeys(
        ("LayerNormalization", "GroupNormalization", "RMSNormalization", "UnitNormalization"),
        ("BatchNormalization()", BatchNorm()),
    ),
    "GlobalMaxPooling2D": ("GlobalAveragePooling2D()", GlobalAveragePool()),
    "ActivityRegularization": ("nothing", None),
    "GaussianNoise": ("nothing", None),
}
RECIPE_PIXELS = "images are prepared by the recipe, which divides by 255 and may normalise"
RECIPE_AUGMENT = "images are varied by the recipe, see augment under [recipe]"
PREPARES = {
    **dict.fromkeys(("Rescaling", "Normalization", "Cast", "Resizing", "CenterCrop"), RECIPE_PIXELS),
    **dict.fromkeys(
        (
            *("RandomFlip", "RandomRotation", "RandomZoom", "RandomTranslation", "RandomCrop", "RandomContrast"),
            *("RandomBrightness", "RandomHue", "RandomSaturation", "RandomShear", "RandomHeight", "RandomWidth"),
            *("RandomErasing", "RandomGrayscale", "RandomInvert", "RandomPosterization", "RandomSharpness", "AugMix"),
            *("RandomColorJitter", "RandomColorDegeneration", "RandomGaussianBlur", "RandomElasticTransform"),
            *("RandomPerspective", "Solarization", "AutoContrast", "Equalization", "RandAugment", "MixUp", "CutMix"),
        ),
        RECIPE_AUGMENT,
    ),
}
ARITHMETIC = {"Add": "adds", "Subtract": "subtracts", "Multiply": "multiplies by", "Divide": "divides by"}


def kind_of(call: Call) -> str:
    """Keras' class name; of layers with several names the usual one."""
    if call.kind in ("TFOpLambda", "SlicingOpLambda"):  # Keras 2
        function = call.config.get("function")
        return OPERATIONS.get(function, call.kind) if isinstance(function, str) else call.kind
    return SAME.get(call.kind, call.kind)


def is_preparation(call: Call) -> bool:
    """True if the call prepares images as a recipe does, provided that no layer comes before it."""
    kind = kind_of(call)
    return kind in PREPARES or (kind in ARITHMETIC and len(call.inputs) == 1)


def resized(call: Call) -> tuple[int, int] | None:
    """(height, width) of the images after a preparation; None if it does not change their size."""
    if kind_of(call) not in ("Resizing", "CenterCrop", "RandomCrop"):
        return None
    height, width = (call.config.get(side) for side in ("height", "width"))
    return (height, width) if type(height) is int and type(width) is int and height > 0 and width > 0 else None
