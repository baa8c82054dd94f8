"""An int8 .tflite file as C++ source for TensorFlow Lite Micro.

Three files: the bytes as an array; a header with all that a program needs, of which docs/microcontroller.md is an example;
and test vectors, with which a program checks itself on the board.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from search.budget.lowering import registration
from search.data.preprocessing import Pixels, is_shifted
from search.export.keras_source import printable
from search.export.litert import Facts
from search.networks.architecture import identifier

DENSE_STEPS = 2  # by which an output of a network with a dense layer may differ, see `search.export.int8`

_PER_LINE = 16


@dataclass(frozen=True, eq=False)
class Vectors:
    """Images and the outputs that the int8 file gives for them."""

    positions: tuple[int, ...]  # among the validation images
    images: npt.NDArray[np.uint8]  # (n, height, width, channels), pixels from 0 to 255
    outputs: npt.NDArray[np.int8]  # (n, classes)


@dataclass(frozen=True)
class Source:
    """The content of the three files."""

    name: str  # of the files, without ending
    content: bytes  # of the .tflite file
    facts: Facts  # read from it
    pixels: Pixels
    class_names: Sequence[str]
    arena_bytes: int
    vectors: Vectors

    @cached_property
    def symbol(self) -> str:
        """The prefix of every C++ name."""
        symbol = identifier(self.name)
        return f"model_{symbol}" if symbol[0].isdigit() else symbol

    @cached_property
    def table(self) -> npt.NDArray[np.int8]:
        """The int8 value of each pixel value, (channels, 256)."""
        return self.pixels.quantized(self.facts.input.shape[-1], self.facts.input.scale, self.facts.input.zero_point)

    @property
    def tolerance(self) -> int:
        """Steps of its scale by which an output may differ between LiteRT's reference kernels and a microcontroller."""
        return DENSE_STEPS if "FULLY_CONNECTED" in self.facts.operators else 0

    @property
    def methods(self) -> list[str]:
        """Methods of MicroMutableOpResolver that register the operators."""
        return [registration(code) for code in self.facts.operators]


def header_text(source: Source, heading: Sequence[str]) -> str:
    """The .h file: sizes, quantisation, arena, functions that convert a pixel and register the operators.

    Args:
        heading: lines of a comment.
    """
    symbol, name, facts, classes = source.symbol, source.name, source.facts, len(source.class_names)
    _, height, width, channels = facts.input.shape
    guard = f"{symbol.upper()}_H_"
    pixel = f"inline int8_t {symbol}_pixel(uint8_t value, int channel) "
    if is_shifted(source.table):
        pixel += "{ (void)channel; return static_cast<int8_t>(value - 128); }"
    else:
        pixel += f"{{ return {symbol}_pixels[channel][value]; }}"
    registered = " &&\n         ".join(f"resolver.{method}() == 0" for method in source.methods)
    lines = [
        *_comments(heading),
        "//",
        f"// Input: int8[1][{height}][{width}][{channels}], channels last. Each value is made of a pixel 0 to 255 by "
        f"{symbol}_pixel():",
        f"//   {source.pixels.describe_int8(channels, facts.input.scale, facts.input.zero_point)}",
        f"// Output: int8[1][{classes}]. Probability of a class: (int8 - output_zero_point) * output_scale.",
        f"// Operators to register: {', '.join(facts.operators)}; {symbol}_register() does it.",
        "",
        f"#ifndef {guard}",
        f"#define {guard}",
        "",
        "#include <stddef.h>",
        "#include <stdint.h>",
        "",
        f"extern const unsigned char {symbol}[];  // {name}.tflite, aligned to 16 bytes",
        f"constexpr size_t {symbol}_length = {len(source.content)};",
        "",
        "// Bytes of arena to allocate, aligned to 16, for the reference kernels with pointers of 64 bits. A 32-bit",
        "// microcontroller uses less, kernels such as CMSIS-NN's ask for scratch memory besides: read",
        "// arena_used_bytes() after AllocateTensors().",
        f"constexpr size_t {symbol}_arena_bytes = {source.arena_bytes};",
        "",
        f"constexpr int {symbol}_height = {height};",
        f"constexpr int {symbol}_width = {width};",
        f"constexpr int {symbol}_channels = {channels};",
        f"constexpr float {symbol}_input_scale = {_float(facts.input.scale)};",
        f"constexpr int {symbol}_input_zero_point = {facts.input.zero_point};",
        f"constexpr float {symbol}_output_scale = {_float(facts.output.scale)};",
        f"constexpr int {symbol}_output_zero_point = {facts.output.zero_point};",
        "",
        f"constexpr int {symbol}_classes = {classes};",
        f"extern const char* const {symbol}_class_names[{classes}];",
        "",
        *([] if is_shifted(source.table) else [f"extern const int8_t {symbol}_pixels[{channels}][256];"]),
        pixel,
        "",
        f"// Registers the operators with a MicroMutableOpResolver<{symbol}_operators>; false if one has no room there.",
        f"constexpr unsigned int {symbol}_operators = {len(source.methods)};",
        "template <class Resolver>",
        f"inline bool {symbol}_register(Resolver& resolver) {{",
        f"  return {registered};  // 0 is kTfLiteOk",
        "}",
        "",
        f"#endif  // {guard}",
    ]
    return "\n".join(lines) + "\n"


def source_text(source: Source) -> str:
    """The .cc file: the bytes, the class names, and the table of pixels where it is no plain shift."""
    symbol = source.symbol
    lines = [f'#include "{source.name}.h"', ""]
    lines += [f"alignas(16) const unsigned char {symbol}[] = {{", *_rows(source.content, "0x{:02x}"), "};", ""]
    lines += [f"const char* const {symbol}_class_names[{len(source.class_names)}] = {{"]
    lines += [*(f"    {_string(class_name)}," for class_name in source.class_names), "};"]
    if not is_shifted(source.table):
        lines += ["", f"const int8_t {symbol}_pixels[{len(source.table)}][256] = {{"]
        lines += [*_arrays(source.table), "};"]
    return "\n".join(lines) + "\n"


def vectors_text(source: Source) -> str:
    """The _test.h file: images, and the outputs that a program must compute for them."""
    symbol, vectors = source.symbol, source.vectors
    guard, count, size = f"{symbol.upper()}_TEST_H_", len(vectors.images), vectors.images[0].size
    lines = [
        f"// Test vectors of {source.name}: validation images {', '.join(map(str, vectors.positions))}, and the outputs of",
        "// LiteRT's reference kernels for them. To be included in one source file of a test program; the images take "
        f"{count * size:,} bytes of flash.",
        "",
        f"#ifndef {guard}",
        f"#define {guard}",
        "",
        "#include <stdint.h>",
        "",
        f"constexpr int {symbol}_test_count = {count};",
        f"constexpr int {symbol}_test_tolerance = {source.tolerance};  // steps by which an output may differ",
        "",
        "// Pixels from 0 to 255: rows from top to bottom, pixels from left to right, channels last.",
        f"constexpr uint8_t {symbol}_test_pixels[{count}][{size}] = {{",
        *_arrays(vectors.images.reshape(count, size)),
        "};",
        "",
        f"constexpr int8_t {symbol}_test_outputs[{count}][{len(source.class_names)}] = {{",
        *_arrays(vectors.outputs),
        "};",
        "",
        f"#endif  // {guard}",
    ]
    return "\n".join(lines) + "\n"


def check(source: Source, header: str, text: str, test_text: str) -> None:
    """Compare the text of the files with the source.

    Raises:
        ValueError: they hold other bytes, or another length, arena, quantisation, table of pixels or test vectors.
    """
    symbol, facts = source.symbol, source.facts
    if bytes(_numbers(text, rf"alignas\(16\) const unsigned char {symbol}\[\]")) != source.content:
        raise ValueError("the array holds other bytes than the .tflite")
    constants: dict[str, float] = {"length": len(source.content), "arena_bytes": source.arena_bytes}
    for kind, tensor in (("input", facts.input), ("output", facts.output)):
        constants |= {f"{kind}_scale": tensor.scale, f"{kind}_zero_point": tensor.zero_point}
    for constant, value in constants.items():
        stored = re.search(rf"{symbol}_{constant} = (.+?)f?;", header)
        if stored is None or np.float32(stored[1]) != np.float32(value):
            raise ValueError(f"{constant} is {stored and stored[1]}, not {value}")
    for part, values in (("pixels", source.vectors.images), ("outputs", source.vectors.outputs)):
        if _numbers(test_text, rf"int8_t {symbol}_test_{part}\[\d+\]\[\d+\]") != values.ravel().tolist():
            raise ValueError(f"the test vectors hold other {part}")
    if is_shifted(source.table) != ("value - 128" in header):
        raise ValueError("pixels are prepared in another way")
    if is_shifted(source.table):
        return
    if _numbers(text, rf"int8_t {symbol}_pixels\[\d+\]\[256\]") != source.table.ravel().tolist():
        raise ValueError("the table of pixels holds other values")


def _rows(values: Sequence[int] | npt.NDArray[Any], form: str) -> Iterator[str]:
    for start in range(0, len(values), _PER_LINE):
        yield "    " + " ".join(form.format(value) + "," for value in values[start : start + _PER_LINE])


def _arrays(rows: npt.NDArray[Any]) -> Iterator[str]:
    """Arrays within an array, of a matrix (n, m)."""
    for row in rows:
        yield from ("  {", *_rows(row, "{}"), "  },")


def _numbers(text: str, declaration: str) -> list[int]:
    """The numbers between the braces of an array; none if there is no such array."""
    array = re.search(declaration + r" = \{(.*?)\n\};", text, re.DOTALL)
    if array is None:
        return []
    return [int(number, 0) for number in re.findall(r"-?\b(?:0x[0-9a-f]+|\d+)\b", array[1])]


def _float(value: float) -> str:
    """The shortest literal of a float."""
    text = str(np.float32(value))
    return f"{text}f" if "." in text or "e" in text else f"{text}.0f"


def _string(text: str) -> str:
    """A string literal of UTF-8 bytes.

    All that is not plain ASCII, and "?", which begins a trigraph, becomes three octal digits, which end by themselves.
    """
    encoded = text.encode(errors="replace")
    plain = "".join(chr(byte) if 32 <= byte < 127 and chr(byte) not in '"\\?' else f"\\{byte:03o}" for byte in encoded)
    return f'"{plain}"'


def _comments(lines: Sequence[str]) -> Iterator[str]:
    """Lines as comments; without a backslash (or its trigraph) at the end, which would continue the comment."""
    for line in lines:
        text = printable(line).replace("\\", "/").rstrip("/ ")
        yield f"// {text}".rstrip()
