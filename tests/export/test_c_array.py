"""The C source holds the bytes of its .tflite and what a program must know of them, and a compiler reads them so."""

from __future__ import annotations

import shutil
import subprocess
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from search.data.preprocessing import Pixels
from search.export.c_array import Source, Vectors, check, header_text, source_text, vectors_text
from search.export.litert import Facts, Tensor
from search.seeds import generator

NORMALISED = Pixels((0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616))
CONTENT = generator(0, "content").integers(0, 256, 5003, dtype=np.uint8).tobytes()
PLAIN = Facts(
    Tensor((1, 8, 6, 3), "int8", float(np.float32(1 / 255)), -128),
    Tensor((1, 4), "int8", 1 / 256, -128),
    ("CONV_2D", "SOFTMAX"),
    frozenset({"int8"}),
)
WIDE = replace(PLAIN, input=replace(PLAIN.input, scale=float(np.float32(0.0175)), zero_point=-7))
CASES = {"plain": (PLAIN, Pixels()), "normalised": (WIDE, NORMALISED)}
NAMES = ('quote " and \\', "Katze, 猫", "??/ trigraph", "line\nbreak\t\x00")
VECTORS = Vectors(
    (3, 17),
    generator(0, "images").integers(0, 256, (2, 8, 6, 3), dtype=np.uint8),
    np.array([[-128, 127, 0, -1], [1, -3, 7, 100]], np.int8),
)
HEADING = ("ends in a backslash \\", "*/ /* ??/", "int main() { return 3; }\nint x;", "\u202eright to left")


def source_of(case: str, name: str = "best_model_int8") -> Source:
    facts, pixels = CASES[case]
    return Source(name, CONTENT, facts, pixels, NAMES, arena_bytes=42_016, vectors=VECTORS)


def written(case: str, name: str = "best_model_int8") -> tuple[str, str, str]:
    """The header, the array and the test vectors."""
    source = source_of(case, name)
    return header_text(source, HEADING), source_text(source), vectors_text(source)


@pytest.mark.parametrize("name", ["best_model_int8", "7-of_9_int8", "x" * 90])
@pytest.mark.parametrize("case", CASES)
def test_written_files_are_read_back(case: str, name: str) -> None:
    check(source_of(case, name), *written(case, name))


@pytest.mark.parametrize(
    ("case", "part", "old", "new", "why"),
    [
        ("plain", 1, "0x1", "0x2", "other bytes"),
        ("plain", 1, "\n};", " 0x00,\n};", "other bytes"),
        ("plain", 1, "alignas(16) ", "", "other bytes"),
        ("plain", 0, "length = 5003", "length = 5004", "length is 5004, not 5003"),
        ("plain", 0, "arena_bytes = 42016", "arena_bytes = 42015", "arena_bytes is 42015, not 42016"),
        ("plain", 0, "input_scale = 0.003921569f", "input_scale = 0.0039f", "input_scale is 0.0039"),
        ("plain", 0, "output_zero_point = -128", "output_zero_point = 0", "output_zero_point is 0"),
        ("plain", 0, "value - 128", "value - 127", "another way"),
        ("normalised", 0, "input_zero_point = -7", "zero_point = -7", "input_zero_point is None"),
        ("normalised", 1, "  {\n    -121,", "  {\n    -120,", "table of pixels"),
        ("plain", 2, "    -128, 127, 0, -1,", "    -128, 127, 0, 1,", "test vectors hold other outputs"),
        (
            "plain",
            2,
            "uint8_t best_model_int8_test_pixels",
            "uint8_t best_model_int8_pixels",
            "test vectors hold other pixels",
        ),
    ],
)
def test_a_change_is_reported(case: str, part: int, old: str, new: str, why: str) -> None:
    texts = list(written(case))
    assert old in texts[part]
    texts[part] = texts[part].replace(old, new, 1)
    with pytest.raises(ValueError, match=why):
        check(source_of(case), *texts)


def test_the_header_says_what_a_program_needs() -> None:
    text = written("plain")[0]
    assert "//   int8 = pixel - 128\n" in text and "register: CONV_2D, SOFTMAX; best_model_int8_register() does it." in text
    assert "int8[1][8][6][3], channels last" in text and "(int8 - output_zero_point) * output_scale" in text
    mean = "int8 = round((pixel / 255 - mean) / std per channel with mean [0.4914, 0.4822, 0.4465]"
    assert mean in written("normalised")[0]


MAIN = """
#include <cstdio>
#include <cstring>
#include "best_model_int8.h"
#include "best_model_int8.h"
#include "best_model_int8_test.h"
#include "best_model_int8_test.h"
struct Resolver {
  const char* names[best_model_int8_operators];
  int AddConv2D() { names[0] = "conv"; return 0; }
  int AddSoftmax() { names[1] = "softmax"; return fails; }
  int fails;
};
int main() {
  unsigned long sum = 0;
  for (size_t i = 0; i < best_model_int8_length; ++i) sum = sum * 31 + best_model_int8[i];
  std::printf("%zu %lu %d\\n", best_model_int8_length, sum, (int)((size_t)best_model_int8 % 16));
  static unsigned char arena[best_model_int8_arena_bytes];
  std::printf("%zu\\n", sizeof(arena));
  std::printf("%d %d %d %d\\n", best_model_int8_height, best_model_int8_width, best_model_int8_channels, best_model_int8_classes);
  std::printf("%.9g %d %.9g %d\\n", best_model_int8_input_scale, best_model_int8_input_zero_point,
              best_model_int8_output_scale, best_model_int8_output_zero_point);
  for (int i = 0; i < best_model_int8_classes; ++i) {
    for (const char* at = best_model_int8_class_names[i]; *at; ++at) std::printf("%02x", (unsigned char)*at);
    std::printf("\\n");
  }
  for (int channel = 0; channel < 3; ++channel)
    for (int value = 0; value < 256; ++value) std::printf("%d ", best_model_int8_pixel((uint8_t)value, channel));
  std::printf("\\n");
  for (int image = 0; image < best_model_int8_test_count; ++image) {
    for (int value : best_model_int8_test_pixels[image]) std::printf("%d ", value);
    for (int value : best_model_int8_test_outputs[image]) std::printf("%d ", value);
  }
  Resolver whole = Resolver(), full = Resolver();
  full.fails = 1;
  bool is_whole = best_model_int8_register(whole), is_full = best_model_int8_register(full);
  std::printf("\\n%d %d %s %s %d\\n", is_whole, is_full, whole.names[0], whole.names[1], best_model_int8_test_tolerance);
  return 0;
}
"""  # noqa: E501


@pytest.mark.skipif(shutil.which("g++") is None, reason="no g++ here")
@pytest.mark.parametrize("case", CASES)
def test_a_compiler_reads_the_same(case: str, tmp_path: Path) -> None:
    facts, pixels = CASES[case]
    for ending, text in zip((".h", ".cc", "_test.h"), written(case), strict=True):
        (tmp_path / f"best_model_int8{ending}").write_text(text, encoding="utf-8")
    (tmp_path / "main.cc").write_text(MAIN, encoding="utf-8")
    flags = ["-std=c++11", "-Wall", "-Wextra", "-Wpedantic", "-Werror", "-trigraphs"]
    files = [str(tmp_path / name) for name in ("main.cc", "best_model_int8.cc")]
    compiled = subprocess.run(
        ["g++", *flags, *files, "-o", str(tmp_path / "program")], capture_output=True, text=True, check=False
    )
    assert compiled.returncode == 0, compiled.stderr
    told = subprocess.run([tmp_path / "program"], capture_output=True, text=True, check=True).stdout.splitlines()
    total = 0
    for byte in CONTENT:
        total = (total * 31 + byte) % 2**64
    assert told[0] == f"{len(CONTENT)} {total} 0"
    assert told.pop(1) == "42016"
    assert told[1] == "8 6 3 4"
    scales = np.array(told[2].split(), np.float32)
    wanted = [facts.input.scale, facts.input.zero_point, facts.output.scale, facts.output.zero_point]
    np.testing.assert_array_equal(scales, np.array(wanted, np.float32))
    assert [bytes.fromhex(name).decode() for name in told[3:7]] == [name.partition("\x00")[0] for name in NAMES]
    table = pixels.quantized(3, facts.input.scale, facts.input.zero_point)
    assert [int(value) for value in told[7].split()] == table.ravel().tolist()
    vectors = [[*image.ravel(), *row] for image, row in zip(VECTORS.images, VECTORS.outputs, strict=True)]
    assert [int(value) for value in told[8].split()] == np.concatenate(vectors).tolist()
    assert told[9] == "1 0 conv softmax 0"
