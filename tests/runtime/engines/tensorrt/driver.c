/* A driver without a device, for tests: it answers, counts what is made and freed, and fails where it is told to.
   FAKE_STATUS: what cuInit returns. FAKE_DEVICES: how many there are. FAKE_CAPTURE: what the end of a capture returns.
   FAKE_MEMORY: what the question for the device's memory returns. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static int number(const char *name, int otherwise) { const char *text = getenv(name); return text ? atoi(text) : otherwise; }
static int capturing, graphs, executables, contexts, pushed;
static void *stack[16]; /* the thread's contexts */

int cuInit(unsigned flags) { return flags ? 1 : number("FAKE_STATUS", 0); }
int cuDriverGetVersion(int *version) { *version = 12060; return 0; }
int cuGetErrorName(int status, const char **name) {
  *name = status == 100 ? "CUDA_ERROR_NO_DEVICE" : status == 901 ? "CUDA_ERROR_STREAM_CAPTURE_INVALIDATED"
        : status == 803 ? "CUDA_ERROR_SYSTEM_DRIVER_MISMATCH" : 0;
  return *name ? 0 : 1;
}
int cuDeviceGetCount(int *count) { *count = number("FAKE_DEVICES", 1); return 0; }
int cuDeviceGet(int *device, int index) { *device = index; return index < number("FAKE_DEVICES", 1) ? 0 : 101; }
int cuDeviceGetName(char *name, int size, int device) { snprintf(name, size, "Orin"); return device; }
#ifdef OLD
int cuDeviceGetUuid(char *uuid, int device) { memset(uuid, 0xab, 16); return device; }
#else
int cuDeviceGetUuid_v2(char *uuid, int device) { for (int i = 0; i < 16; i++) uuid[i] = (char)(i * 17); return device; }
#endif
int cuDeviceGetAttribute(int *value, int attribute, int device) {
  *value = attribute == 75 ? 8 : attribute == 76 ? 7 : attribute == 18;
  return device;
}
int cuDeviceTotalMem_v2(size_t *size, int device) { *size = 8ul << 30; return device ? device : number("FAKE_MEMORY", 0); }
int cuDevicePrimaryCtxRetain(void **context, int device) { contexts++; *context = (void *)0x1000; return device; }
int cuDevicePrimaryCtxRelease_v2(int device) { contexts--; return device; }
int cuCtxPushCurrent_v2(void *context) { stack[pushed++ % 16] = context; return context ? 0 : 201; }
int cuCtxPopCurrent_v2(void **context) { if (!pushed) return 201; *context = stack[--pushed % 16]; return 0; }
int cuCtxGetCurrent(void **context) { *context = pushed ? stack[(pushed - 1) % 16] : 0; return 0; }
int cuCtxSynchronize(void) { return pushed ? 0 : 201; }
int cuMemGetInfo_v2(size_t *free_, size_t *total) { *free_ = 5ul << 30; *total = 8ul << 30; return pushed ? 0 : 201; }
int cuStreamBeginCapture_v2(void *stream, int mode) { if (!stream || mode != 1 || capturing) return 1; capturing = 1; return 0; }
int cuStreamEndCapture(void *stream, void **graph) {
  int status = number("FAKE_CAPTURE", 0);
  capturing = 0; *graph = status ? 0 : (void *)0x123456789abc; graphs += !status;
  return stream ? status : 1;
}
int cuGraphInstantiateWithFlags(void **executable, void *graph, unsigned long long flags) {
  if (graph != (void *)0x123456789abc || flags) return 1;
  *executable = (void *)0x5000; executables++;
  return 0;
}
int cuGraphLaunch(void *executable, void *stream) { return executable == (void *)0x5000 && stream ? 0 : 1; }
int cuGraphExecDestroy(void *executable) { executables--; return executable == (void *)0x5000 ? 0 : 1; }
int cuGraphDestroy(void *graph) { graphs--; return graph == (void *)0x123456789abc ? 0 : 1; }
int left_over(void) { return capturing + graphs + executables + contexts + pushed; }
