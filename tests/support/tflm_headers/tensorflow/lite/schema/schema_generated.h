// See micro_interpreter.h, which has GetModel().
#pragma once

#include "tensorflow/lite/micro/micro_interpreter.h"
