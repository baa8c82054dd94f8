// A pluggable TensorFlow device of type GPU that has memory and computes nothing.
//
// Placement, partitioning and graph optimisation treat it as a GPU, so that they can be studied on a machine without one.
// Device memory is host memory, and streams and events complete at once. Build it against the headers of the CUDA build:
//
//     TF=$(.venv-gpu/bin/python -c 'import tensorflow as tf; print(tf.sysconfig.get_include())')
//     g++ -shared -fPIC -O1 -I"$TF" benchmarks/gpu_placement/fake_gpu.cc -o /tmp/libfake_gpu.so

#include <cstdint>
#include <cstdlib>
#include <cstring>

#include "tensorflow/c/experimental/stream_executor/stream_executor.h"

struct SP_Stream_st {};
struct SP_Event_st {};
struct SP_Timer_st {};

namespace {

constexpr int64_t kMemory = int64_t{4} << 30;
constexpr size_t kAlignment = 256;

void Ok(TF_Status* status) { TF_SetStatus(status, TF_OK, ""); }

void* Aligned(uint64_t size) {
  void* memory = nullptr;
  return posix_memalign(&memory, kAlignment, size ? size : 1) == 0 ? memory : nullptr;
}

// Memory.

void Allocate(const SP_Device*, uint64_t size, int64_t, SP_DeviceMemoryBase* memory) {
  memory->struct_size = SP_DEVICE_MEMORY_BASE_STRUCT_SIZE;
  memory->opaque = Aligned(size);
  memory->size = size;
}

void Deallocate(const SP_Device*, SP_DeviceMemoryBase* memory) {
  free(memory->opaque);
  memory->opaque = nullptr;
  memory->size = 0;
}

void* HostAllocate(const SP_Device*, uint64_t size) { return Aligned(size); }
void HostDeallocate(const SP_Device*, void* memory) { free(memory); }

TF_Bool AllocatorStats(const SP_Device*, SP_AllocatorStats* stats) {
  stats->struct_size = SP_ALLOCATORSTATS_STRUCT_SIZE;
  return 0;
}

TF_Bool MemoryUsage(const SP_Device*, int64_t* free_bytes, int64_t* total) {
  *free_bytes = *total = kMemory;
  return 1;
}

// Streams, events and timers.

void CreateStream(const SP_Device*, SP_Stream* stream, TF_Status* status) { *stream = new SP_Stream_st; Ok(status); }
void DestroyStream(const SP_Device*, SP_Stream stream) { delete stream; }
void StreamDependency(const SP_Device*, SP_Stream, SP_Stream, TF_Status* status) { Ok(status); }
void StreamStatus(const SP_Device*, SP_Stream, TF_Status* status) { Ok(status); }
void CreateEvent(const SP_Device*, SP_Event* event, TF_Status* status) { *event = new SP_Event_st; Ok(status); }
void DestroyEvent(const SP_Device*, SP_Event event) { delete event; }
SE_EventStatus EventStatus(const SP_Device*, SP_Event) { return SE_EVENT_COMPLETE; }
void RecordEvent(const SP_Device*, SP_Stream, SP_Event, TF_Status* status) { Ok(status); }
void WaitForEvent(const SP_Device* const, SP_Stream, SP_Event, TF_Status* const status) { Ok(status); }
void BlockForEvent(const SP_Device*, SP_Event, TF_Status* status) { Ok(status); }
void BlockUntilDone(const SP_Device*, SP_Stream, TF_Status* status) { Ok(status); }
void Synchronize(const SP_Device*, TF_Status* status) { Ok(status); }
void CreateTimer(const SP_Device*, SP_Timer* timer, TF_Status* status) { *timer = new SP_Timer_st; Ok(status); }
void DestroyTimer(const SP_Device*, SP_Timer timer) { delete timer; }
void UseTimer(const SP_Device*, SP_Stream, SP_Timer, TF_Status* status) { Ok(status); }
uint64_t Nanoseconds(SP_Timer) { return 0; }

TF_Bool HostCallback(const SP_Device*, SP_Stream, SE_StatusCallbackFn callback, void* argument) {
  TF_Status* status = TF_NewStatus();
  callback(argument, status);
  TF_DeleteStatus(status);
  return 1;
}

// Copies.

void ToHost(const SP_Device*, SP_Stream, void* to, const SP_DeviceMemoryBase* from, uint64_t size, TF_Status* status) {
  memcpy(to, from->opaque, size);
  Ok(status);
}

void ToDevice(const SP_Device*, SP_Stream, SP_DeviceMemoryBase* to, const void* from, uint64_t size, TF_Status* status) {
  memcpy(to->opaque, from, size);
  Ok(status);
}

void Within(const SP_Device*, SP_Stream, SP_DeviceMemoryBase* to, const SP_DeviceMemoryBase* from, uint64_t size,
            TF_Status* status) {
  memmove(to->opaque, from->opaque, size);
  Ok(status);
}

void ToHostNow(const SP_Device* device, void* to, const SP_DeviceMemoryBase* from, uint64_t size, TF_Status* status) {
  ToHost(device, nullptr, to, from, size, status);
}

void ToDeviceNow(const SP_Device* device, SP_DeviceMemoryBase* to, const void* from, uint64_t size, TF_Status* status) {
  ToDevice(device, nullptr, to, from, size, status);
}

void WithinNow(const SP_Device* device, SP_DeviceMemoryBase* to, const SP_DeviceMemoryBase* from, uint64_t size,
               TF_Status* status) {
  Within(device, nullptr, to, from, size, status);
}

void Zero(const SP_Device* device, SP_Stream, SP_DeviceMemoryBase* memory, uint64_t size, TF_Status* status) {
  memset(memory->opaque, 0, size);
  Ok(status);
}

void Fill(const SP_Device*, SP_Stream, SP_DeviceMemoryBase* memory, uint8_t value, uint64_t size, TF_Status* status) {
  memset(memory->opaque, value, size);
  Ok(status);
}

void Fill32(const SP_Device*, SP_Stream, SP_DeviceMemoryBase* memory, uint32_t value, uint64_t size, TF_Status* status) {
  for (uint64_t word = 0; word < size / 4; ++word) static_cast<uint32_t*>(memory->opaque)[word] = value;
  Ok(status);
}

// The platform and its one device.

void DeviceCount(const SP_Platform*, int* count, TF_Status* status) { *count = 1; Ok(status); }

void CreateDevice(const SP_Platform*, SE_CreateDeviceParams* params, TF_Status* status) {
  SP_Device* device = params->device;
  device->struct_size = SP_DEVICE_STRUCT_SIZE;
  device->ordinal = params->ordinal;
  device->device_handle = nullptr;
  device->hardware_name = "fake";
  device->device_vendor = "none";
  device->pci_bus_id = "0000:00:00.0";
  Ok(status);
}

void DestroyDevice(const SP_Platform*, SP_Device*) {}
int32_t NumaNode(const SP_Device*) { return -1; }
int64_t Bandwidth(const SP_Device*) { return -1; }
double Gflops(const SP_Device*) { return -1; }

void CreateDeviceFns(const SP_Platform*, SE_CreateDeviceFnsParams* params, TF_Status* status) {
  SP_DeviceFns* fns = params->device_fns;
  fns->struct_size = SP_DEVICE_FNS_STRUCT_SIZE;
  fns->get_numa_node = NumaNode;
  fns->get_memory_bandwidth = Bandwidth;
  fns->get_gflops = Gflops;
  Ok(status);
}

void DestroyDeviceFns(const SP_Platform*, SP_DeviceFns*) {}

void CreateStreamExecutor(const SP_Platform*, SE_CreateStreamExecutorParams* params, TF_Status* status) {
  SP_StreamExecutor* executor = params->stream_executor;
  executor->struct_size = SP_STREAMEXECUTOR_STRUCT_SIZE;
  executor->allocate = Allocate;
  executor->deallocate = Deallocate;
  executor->host_memory_allocate = HostAllocate;
  executor->host_memory_deallocate = HostDeallocate;
  executor->get_allocator_stats = AllocatorStats;
  executor->device_memory_usage = MemoryUsage;
  executor->create_stream = CreateStream;
  executor->destroy_stream = DestroyStream;
  executor->create_stream_dependency = StreamDependency;
  executor->get_stream_status = StreamStatus;
  executor->create_event = CreateEvent;
  executor->destroy_event = DestroyEvent;
  executor->get_event_status = EventStatus;
  executor->record_event = RecordEvent;
  executor->wait_for_event = WaitForEvent;
  executor->create_timer = CreateTimer;
  executor->destroy_timer = DestroyTimer;
  executor->start_timer = UseTimer;
  executor->stop_timer = UseTimer;
  executor->memcpy_dtoh = ToHost;
  executor->memcpy_htod = ToDevice;
  executor->memcpy_dtod = Within;
  executor->sync_memcpy_dtoh = ToHostNow;
  executor->sync_memcpy_htod = ToDeviceNow;
  executor->sync_memcpy_dtod = WithinNow;
  executor->block_host_for_event = BlockForEvent;
  executor->block_host_until_done = BlockUntilDone;
  executor->synchronize_all_activity = Synchronize;
  executor->mem_zero = Zero;
  executor->memset = Fill;
  executor->memset32 = Fill32;
  executor->host_callback = HostCallback;
  Ok(status);
}

void DestroyStreamExecutor(const SP_Platform*, SP_StreamExecutor*) {}

void CreateTimerFns(const SP_Platform*, SP_TimerFns* fns, TF_Status* status) {
  fns->nanoseconds = Nanoseconds;
  Ok(status);
}

void DestroyTimerFns(const SP_Platform*, SP_TimerFns*) {}
void DestroyPlatform(SP_Platform*) {}
void DestroyPlatformFns(SP_PlatformFns*) {}

}  // namespace

extern "C" void SE_InitPlugin(SE_PlatformRegistrationParams* params, TF_Status* status) {
  SP_Platform* platform = params->platform;
  platform->struct_size = SP_PLATFORM_STRUCT_SIZE;
  platform->name = "FAKE";
  platform->type = "GPU";
  platform->supports_unified_memory = 0;
  platform->use_bfc_allocator = 1;
  platform->force_memory_growth = 1;
  SP_PlatformFns* fns = params->platform_fns;
  fns->struct_size = SP_PLATFORM_FNS_STRUCT_SIZE;
  fns->get_device_count = DeviceCount;
  fns->create_device = CreateDevice;
  fns->destroy_device = DestroyDevice;
  fns->create_device_fns = CreateDeviceFns;
  fns->destroy_device_fns = DestroyDeviceFns;
  fns->create_stream_executor = CreateStreamExecutor;
  fns->destroy_stream_executor = DestroyStreamExecutor;
  fns->create_timer_fns = CreateTimerFns;
  fns->destroy_timer_fns = DestroyTimerFns;
  params->destroy_platform = DestroyPlatform;
  params->destroy_platform_fns = DestroyPlatformFns;
  Ok(status);
}
