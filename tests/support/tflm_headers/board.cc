// The board around the program of docs/microcontroller.md: a camera of given frames, and C names for Python.
#include <stdio.h>

#include "classifier.h"
#include "tensorflow/lite/micro/micro_interpreter.h"

extern "C" {
PythonRuntime python_runtime;
const uint16_t* board_frames;
int board_frame_count;

bool board_begin() { return begin(); }
int board_failed_vectors() { return failed_vectors(); }
void board_shrink(const uint16_t* frame, int rows, int columns, uint8_t* pixels) { shrink(frame, rows, columns, pixels); }
int board_classify(const uint8_t* pixels, float* probability) {
  const Answer answer = classify(pixels);
  *probability = answer.probability;
  return answer.index;
}
}

bool camera_frame(uint16_t* frame, int rows, int columns) {
  fflush(stdout);
  if (board_frame_count == 0) return false;
  for (int i = 0; i < rows * columns; ++i) frame[i] = *board_frames++;
  --board_frame_count;
  return true;
}
