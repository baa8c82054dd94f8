"""Compiles a program for TensorFlow Lite Micro and runs it in this process, with the runtime of a Python package.

The package `tflite-micro` holds the runtime, but no headers, so tests/support/tflm_headers/ declares the few classes that
the program of docs/microcontroller.md uses and calls back here. Where that package is missing, LiteRT's reference kernels
compute, whose arithmetic is the same but for a rounding in dense layers; the arena is then that of the exporter.
"""

from __future__ import annotations

import ctypes
import shutil
import subprocess
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from search.budget.footprint import arena_to_allocate
from search.export import litert
from search.export.file_costs import read_graph
from tests.docs.markdown import ROOT, blocks

FOLDER = Path(__file__).parent / "tflm_headers"
PAGE = ROOT / "docs" / "microcontroller.md"
HAS_COMPILER = shutil.which("g++") is not None
HAS_TFLM = find_spec("tflite_micro") is not None

_FLAGS = ("-std=c++17", "-Wall", "-Wextra", "-Wpedantic", "-Werror", "-shared", "-fPIC")
_ALLOCATE = ctypes.CFUNCTYPE(
    ctypes.c_size_t, ctypes.c_void_p, ctypes.c_char_p, ctypes.c_size_t, ctypes.POINTER(ctypes.c_size_t)
)
_INVOKE = ctypes.CFUNCTYPE(ctypes.c_bool, ctypes.POINTER(ctypes.c_int8), ctypes.POINTER(ctypes.c_int8))


class _Callbacks(ctypes.Structure):
    _fields_ = (("allocate", _ALLOCATE), ("invoke", _INVOKE))


def program_of_the_page() -> dict[str, str]:
    """The files of the page's program by name; the first line of each block is a comment with it."""
    return {block.text.split("\n", 1)[0].split()[1]: block.text for block in blocks(PAGE, "cpp")}


class Board:
    """A program, compiled for this machine, that runs an exported network.

    Attributes:
        content: the .tflite file that the program holds.
        facts: of that file.
        operators: that the program has registered, once it has begun.
    """

    def __init__(
        self, folder: Path, exported: Path, stem: str, changes: Mapping[str, str] | None = None, *flags: str
    ) -> None:
        """Compile the page's program with an exported network.

        Args:
            folder: an empty folder to compile in.
            exported: the folder of the export.
            stem: of its files, "best_model" or "best_model_raw".
            changes: replacements in all sources, for programs that must fail.
            flags: more of the compiler.
        """
        name = f"{stem}_int8"
        self.content = (exported / f"{name}.tflite").read_bytes()
        self.facts = litert.read(self.content)
        self.operators = list[str]()
        sources = {name: text.replace("best_model_int8", f"{stem}_int8") for name, text in program_of_the_page().items()}
        sources |= {path.name: path.read_text(encoding="utf-8") for path in exported.glob(f"{name}*.[ch]*")}
        for file, text in sources.items():
            for old, new in (changes or {}).items():
                text = text.replace(old, new)
            (folder / file).write_text(text, encoding="utf-8")
        files = [*folder.glob("*.cc"), FOLDER / "board.cc"]
        self._library_path = folder / "program.so"
        compiled = subprocess.run(
            ["g++", *_FLAGS, *flags, f"-I{folder}", f"-I{FOLDER}", *map(str, files), "-o", str(self._library_path)],
            capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert compiled.returncode == 0, compiled.stderr
        self._starts = 0

    def start(self, runtime: str) -> bool:
        """Load a fresh copy of the program and call its begin()."""
        self.load(runtime)
        return bool(self._program.board_begin())

    def load(self, runtime: str) -> None:
        """Load a fresh copy of the program.

        Args:
            runtime: "tflite_micro" or "litert".
        """
        self._starts += 1
        copy = self._library_path.with_name(f"program-{self._starts}.so")  # a loaded file is not loaded a second time
        shutil.copyfile(self._library_path, copy)
        self._program = ctypes.CDLL(str(copy))
        self._interpreter: Any = None
        self._runtime = runtime
        self._callbacks = _Callbacks(_ALLOCATE(self._allocate), _INVOKE(self._invoke))
        ctypes.memmove(
            ctypes.addressof(_Callbacks.in_dll(self._program, "python_runtime")),
            ctypes.addressof(self._callbacks),
            ctypes.sizeof(_Callbacks),
        )
        self._program.board_begin.restype = ctypes.c_bool

    def failed_vectors(self) -> int:
        """The result of the program's check of itself."""
        return int(self._program.board_failed_vectors())

    def classify(self, image: npt.NDArray[np.uint8]) -> tuple[int, float]:
        """(Class, probability) that the program gives for an image."""
        probability = ctypes.c_float()
        index = self._program.board_classify(_pointer(image), ctypes.byref(probability))
        return int(index), probability.value

    def shrink(self, frame: npt.NDArray[np.uint16], shape: tuple[int, ...]) -> npt.NDArray[np.uint8]:
        """The image of this shape that the program makes of a frame of 16-bit colours."""
        pixels = np.zeros(shape, np.uint8)
        self._program.board_shrink(_pointer(frame), *frame.shape, _pointer(pixels))
        return pixels

    def main(self, frames: npt.NDArray[np.uint16]) -> int:
        """Run the program's main(), which begins by itself, on the frames of a camera; its exit status."""
        frames = np.ascontiguousarray(frames)
        ctypes.c_void_p.in_dll(self._program, "board_frames").value = frames.ctypes.data
        ctypes.c_int.in_dll(self._program, "board_frame_count").value = len(frames)
        return int(self._program.main())

    def _allocate(self, model: int, operators: bytes, arena: int, sizes: Any) -> int:
        if ctypes.string_at(model, len(self.content)) != self.content:
            return 0
        self.operators = operators.decode().rstrip(",").split(",")
        if set(self.facts.operators) - set(self.operators):
            return 0
        sizes[0], sizes[1] = (int(np.prod(tensor.shape)) for tensor in (self.facts.input, self.facts.output))
        needed = arena_to_allocate(read_graph(self.content))
        if self._runtime == "litert":
            self._interpreter = litert._interpreter(self.content, reference_kernels=True)
            return needed if needed <= arena else 0
        from tflite_micro.python.tflite_micro import runtime  # type: ignore[import-untyped]

        try:
            self._interpreter = runtime.Interpreter.from_bytes(self.content, arena_size=arena)
        except RuntimeError:
            return 0
        return needed

    def _invoke(self, given: Any, answer: Any) -> bool:
        shape = self.facts.input.shape
        image = np.ctypeslib.as_array(given, (int(np.prod(shape)),)).reshape(shape).copy()
        if self._runtime == "litert":
            (source,), (target,) = self._interpreter.get_input_details(), self._interpreter.get_output_details()
            self._interpreter.set_tensor(source["index"], image)
            self._interpreter.invoke()
            output = self._interpreter.get_tensor(target["index"])
        else:
            self._interpreter.set_input(image, 0)
            self._interpreter.invoke()
            output = self._interpreter.get_output(0)
        np.ctypeslib.as_array(answer, (output.size,))[:] = output.ravel()
        return True


def _pointer(array: npt.NDArray[Any]) -> ctypes.c_void_p:
    assert array.flags.c_contiguous
    return ctypes.c_void_p(array.ctypes.data)
