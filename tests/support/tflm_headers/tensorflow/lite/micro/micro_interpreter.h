// The classes of TensorFlow Lite Micro that docs/microcontroller.md uses, for a program that a Python process loads: a runtime
// there computes (tests/support/tflm.py), and this file keeps the books that the page depends on: operators, arena, tensors.
#pragma once

#include <stddef.h>
#include <stdint.h>
#include <string.h>

struct PythonRuntime {
  // Bytes of arena in use for a network with these operators ("A,B,"), 0 if it cannot run; sizes: of input and output.
  size_t (*allocate)(const void* model, const char* operators, size_t arena, size_t* sizes);
  bool (*invoke)(const int8_t* input, int8_t* output);
};
extern "C" PythonRuntime python_runtime;

namespace tflite {

struct Model;
inline const Model* GetModel(const void* content) { return static_cast<const Model*>(content); }

#ifndef TFLM_BEFORE_2026  // where the classes were in tflite itself
namespace micro {
#endif

enum TfLiteStatus { kTfLiteOk = 0, kTfLiteError = 1 };

union TfLitePtrUnion {
  int8_t* int8;
  void* data;
};

struct TfLiteTensor {
  TfLitePtrUnion data;
  size_t bytes;
};

class MicroOpResolver {
 public:
  const char* operators() const { return operators_; }

 protected:
  char operators_[1024] = "";
};

class MicroInterpreter {
 public:
  MicroInterpreter(const Model* model, const MicroOpResolver& resolver, uint8_t* arena, size_t arena_size)
      : model_(model), resolver_(resolver), arena_(arena), arena_size_(arena_size) {}

  TfLiteStatus AllocateTensors() {
    const size_t lost = (16 - reinterpret_cast<uintptr_t>(arena_) % 16) % 16;
    size_t sizes[2];
    used_ = lost < arena_size_ ? python_runtime.allocate(model_, resolver_.operators(), arena_size_ - lost, sizes) : 0;
    if (used_ == 0) return kTfLiteError;
    input_ = {{reinterpret_cast<int8_t*>(arena_ + lost)}, sizes[0]};
    output_ = {{input_.data.int8 + sizes[0]}, sizes[1]};
    return kTfLiteOk;
  }

  TfLiteStatus Invoke() {
    const bool done = python_runtime.invoke(input_.data.int8, output_.data.int8);
    memset(input_.data.int8, 0x55, input_.bytes);  // its memory belongs to the maps of later layers as well
    return done ? kTfLiteOk : kTfLiteError;
  }

  TfLiteTensor* input(size_t index) { return index == 0 ? &input_ : nullptr; }
  TfLiteTensor* output(size_t index) { return index == 0 ? &output_ : nullptr; }
  size_t arena_used_bytes() const { return used_; }

 private:
  const Model* model_;
  const MicroOpResolver& resolver_;
  uint8_t* arena_;
  size_t arena_size_, used_ = 0;
  TfLiteTensor input_, output_;
};

#ifndef TFLM_BEFORE_2026
}  // namespace micro
#endif
}  // namespace tflite
