// See micro_interpreter.h.
#pragma once

#include "tensorflow/lite/micro/micro_interpreter.h"

namespace tflite {
#ifndef TFLM_BEFORE_2026
namespace micro {
#endif

template <unsigned int capacity>
class MicroMutableOpResolver : public MicroOpResolver {
 public:
#define OPERATOR(method, code) \
  TfLiteStatus method() { return add(code ","); }
  OPERATOR(AddAdd, "ADD")
  OPERATOR(AddAveragePool2D, "AVERAGE_POOL_2D")
  OPERATOR(AddConv2D, "CONV_2D")
  OPERATOR(AddDepthwiseConv2D, "DEPTHWISE_CONV_2D")
  OPERATOR(AddFullyConnected, "FULLY_CONNECTED")
  OPERATOR(AddHardSwish, "HARD_SWISH")
  OPERATOR(AddLogistic, "LOGISTIC")
  OPERATOR(AddMaxPool2D, "MAX_POOL_2D")
  OPERATOR(AddMean, "MEAN")
  OPERATOR(AddMul, "MUL")
  OPERATOR(AddRelu, "RELU")
  OPERATOR(AddRelu6, "RELU6")
  OPERATOR(AddReshape, "RESHAPE")
  OPERATOR(AddSoftmax, "SOFTMAX")
  OPERATOR(AddStridedSlice, "STRIDED_SLICE")
  OPERATOR(AddTanh, "TANH")
#undef OPERATOR

 private:
  TfLiteStatus add(const char* code) {
    if (count_ == capacity || strlen(operators_) + strlen(code) >= sizeof(operators_)) return kTfLiteError;
    ++count_;
    strcat(operators_, code);
    return kTfLiteOk;
  }

  unsigned int count_ = 0;
};

#ifndef TFLM_BEFORE_2026
}  // namespace micro
#endif
}  // namespace tflite
