"""An int8 .tflite file as C++ source for TensorFlow Lite Micro: its bytes as an array, and what a program must know."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

import numpy as np
import numpy.typing as npt

from search.data.preprocessing import Pixels, is_shifted
from search.export.litert import Facts
from search.networks.architecture import identifier

_PER_LINE = 16


def header(
    name: str, content: bytes, facts: Facts, pixels: Pixels, class_names: Sequence[str], heading: Sequence[str]
) -> str:
    """The .h: sizes, quantisation, how pixels are prepared; `name` is that of the files, without their ending."""
    word, table = _word(name), _table(facts, pixels)
    _, height, width, channels = facts.input.shape
    guard = f"{word.upper()}_H_"
    pixel = f"inline int8_t {word}_pixel(uint8_t value, int channel) "
    if is_shifted(table):
        pixel += "{ (void)channel; return static_cast<int8_t>(value - 128); }"
    else:
        pixel += f"{{ return {word}_pixels[channel][value]; }}"
    lines = [
        *_comments(heading),
        "//",
        f"// Input: int8[1][{height}][{width}][{channels}], channels last. Each value is made of a pixel 0 to 255 by "
        f"{word}_pixel():",
        f"//   {pixels.describe_int8(channels, facts.input.scale, facts.input.zero_point)}",
        f"// Output: int8[1][{len(class_names)}]. Probability of a class: (int8 - output_zero_point) * output_scale.",
        f"// Operators to register: {', '.join(facts.operators)}",
        "",
        f"#ifndef {guard}",
        f"#define {guard}",
        "",
        "#include <stddef.h>",
        "#include <stdint.h>",
        "",
        f"extern const unsigned char {word}[];  // {name}.tflite, aligned to 16 bytes",
        f"constexpr size_t {word}_length = {len(content)};",
        "",
        f"constexpr int {word}_height = {height};",
        f"constexpr int {word}_width = {width};",
        f"constexpr int {word}_channels = {channels};",
        f"constexpr float {word}_input_scale = {_float(facts.input.scale)};",
        f"constexpr int {word}_input_zero_point = {facts.input.zero_point};",
        f"constexpr float {word}_output_scale = {_float(facts.output.scale)};",
        f"constexpr int {word}_output_zero_point = {facts.output.zero_point};",
        "",
        f"constexpr int {word}_classes = {len(class_names)};",
        f"extern const char* const {word}_class_names[{len(class_names)}];",
        "",
        *([] if is_shifted(table) else [f"extern const int8_t {word}_pixels[{channels}][256];"]),
        pixel,
        "",
        f"#endif  // {guard}",
    ]
    return "\n".join(lines) + "\n"


def source(name: str, content: bytes, facts: Facts, pixels: Pixels, class_names: Sequence[str]) -> str:
    """The .cc."""
    word, table = _word(name), _table(facts, pixels)
    lines = [f'#include "{name}.h"', ""]
    lines += [f"alignas(16) const unsigned char {word}[] = {{", *_rows(content, "0x{:02x}"), "};", ""]
    lines += [f"const char* const {word}_class_names[{len(class_names)}] = {{"]
    lines += [*(f"    {_string(class_name)}," for class_name in class_names), "};"]
    if not is_shifted(table):
        lines += ["", f"const int8_t {word}_pixels[{len(table)}][256] = {{"]
        lines += [line for row in table for line in ("  {", *_rows(row, "{}"), "  },")] + ["};"]
    return "\n".join(lines) + "\n"


def check(name: str, header_text: str, source_text: str, content: bytes, facts: Facts, pixels: Pixels) -> None:
    """Read both files back.

    Raises:
        ValueError: they hold other bytes, another length, another quantisation or another table of pixels.
    """
    word = _word(name)
    if bytes(_numbers(source_text, rf"alignas\(16\) const unsigned char {word}\[\]")) != content:
        raise ValueError("the array holds other bytes than the .tflite")
    wanted: dict[str, float] = {"length": len(content)}
    for which, tensor in (("input", facts.input), ("output", facts.output)):
        wanted |= {f"{which}_scale": tensor.scale, f"{which}_zero_point": tensor.zero_point}
    for constant, value in wanted.items():
        told = re.search(rf"{word}_{constant} = (.+?)f?;", header_text)
        if told is None or np.float32(told[1]) != np.float32(value):
            raise ValueError(f"{constant} is {told and told[1]}, not {value}")
    table = _table(facts, pixels)
    if is_shifted(table) != ("value - 128" in header_text):
        raise ValueError("pixels are prepared in another way")
    if not is_shifted(table) and _numbers(source_text, rf"int8_t {word}_pixels\[\d+\]\[256\]") != table.ravel().tolist():
        raise ValueError("the table of pixels holds other values")


def _word(name: str) -> str:
    """What the names in the source begin with."""
    word = identifier(name)
    return f"model_{word}" if word[0].isdigit() else word


def _table(facts: Facts, pixels: Pixels) -> npt.NDArray[np.int8]:
    return pixels.quantized(facts.input.shape[-1], facts.input.scale, facts.input.zero_point)


def _rows(values: Sequence[int] | npt.NDArray[np.int8], form: str) -> Iterator[str]:
    for start in range(0, len(values), _PER_LINE):
        yield "    " + " ".join(form.format(value) + "," for value in values[start : start + _PER_LINE])


def _numbers(text: str, declaration: str) -> list[int]:
    """The numbers between the braces of an array."""
    found = re.search(declaration + r" = \{(.*?)\n\};", text, re.DOTALL)
    return [int(number, 0) for number in re.findall(r"-?\b(?:0x[0-9a-f]+|\d+)\b", found[1])] if found else []


def _float(value: float) -> str:
    """The shortest text from which a compiler makes the same float."""
    text = str(np.float32(value))
    return f"{text}f" if "." in text or "e" in text else f"{text}.0f"


def _string(text: str) -> str:
    """A string literal: three octal digits for all that is not plain, as they end by themselves."""
    plain = "".join(chr(byte) if 32 <= byte < 127 and chr(byte) not in '"\\?' else f"\\{byte:03o}" for byte in text.encode())
    return f'"{plain}"'


def _comments(lines: Sequence[str]) -> Iterator[str]:
    """Comments that end where their line does: a backslash would draw the next one in."""
    for line in lines:
        yield f"// {''.join(letter if letter.isprintable() else ' ' for letter in line)}".replace("\\", "/").rstrip("/ ")
