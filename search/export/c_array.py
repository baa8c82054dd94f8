"""An int8 .tflite file as C++ source for TensorFlow Lite Micro: its bytes as an array, and the constants a program needs."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

from search.data.preprocessing import Pixels, is_shifted
from search.export.keras_source import printable
from search.export.litert import Facts
from search.networks.architecture import identifier

_PER_LINE = 16


@dataclass(frozen=True)
class Source:
    """The content of a header and a source file."""

    name: str  # of both files, without ending
    content: bytes  # of the .tflite file
    facts: Facts  # read from it
    pixels: Pixels
    class_names: Sequence[str]
    arena_bytes: int

    @cached_property
    def symbol(self) -> str:
        """The prefix of every C++ name."""
        symbol = identifier(self.name)
        return f"model_{symbol}" if symbol[0].isdigit() else symbol

    @cached_property
    def table(self) -> npt.NDArray[np.int8]:
        """The int8 value of each pixel value, (channels, 256)."""
        return self.pixels.quantized(self.facts.input.shape[-1], self.facts.input.scale, self.facts.input.zero_point)


def header_text(source: Source, heading: Sequence[str]) -> str:
    """The .h file: sizes, quantisation, arena, and a function that converts a pixel; the heading becomes a comment."""
    symbol, name, facts, classes = source.symbol, source.name, source.facts, len(source.class_names)
    _, height, width, channels = facts.input.shape
    guard = f"{symbol.upper()}_H_"
    pixel = f"inline int8_t {symbol}_pixel(uint8_t value, int channel) "
    if is_shifted(source.table):
        pixel += "{ (void)channel; return static_cast<int8_t>(value - 128); }"
    else:
        pixel += f"{{ return {symbol}_pixels[channel][value]; }}"
    lines = [
        *_comments(heading),
        "//",
        f"// Input: int8[1][{height}][{width}][{channels}], channels last. Each value is made of a pixel 0 to 255 by "
        f"{symbol}_pixel():",
        f"//   {source.pixels.describe_int8(channels, facts.input.scale, facts.input.zero_point)}",
        f"// Output: int8[1][{classes}]. Probability of a class: (int8 - output_zero_point) * output_scale.",
        f"// Operators to register: {', '.join(facts.operators)}",
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
        "// Bytes of arena to allocate, predicted with pointers of 64 bits; a 32-bit microcontroller uses less:",
        "// read arena_used_bytes() of the MicroInterpreter after AllocateTensors().",
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
        for row in source.table:
            lines += ["  {", *_rows(row, "{}"), "  },"]
        lines += ["};"]
    return "\n".join(lines) + "\n"


def check(source: Source, header: str, text: str) -> None:
    """Compare the text of both files with the source.

    Raises:
        ValueError: they hold other bytes, or another length, arena, quantisation or table of pixels.
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
    if is_shifted(source.table) != ("value - 128" in header):
        raise ValueError("pixels are prepared in another way")
    if is_shifted(source.table):
        return
    if _numbers(text, rf"int8_t {symbol}_pixels\[\d+\]\[256\]") != source.table.ravel().tolist():
        raise ValueError("the table of pixels holds other values")


def _rows(values: Sequence[int] | npt.NDArray[np.int8], form: str) -> Iterator[str]:
    for start in range(0, len(values), _PER_LINE):
        yield "    " + " ".join(form.format(value) + "," for value in values[start : start + _PER_LINE])


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
