"""Libraries that pretend to be CUDA, so that ONNX Runtime's CUDA provider registers on a machine without a card.

Its kernels then can be listed, and its partitioner asked which node it would put where. Nothing can be computed: every
function of CUDA, cuBLAS, cuDNN and TensorRT returns 0, "success", except a few that must give something back. What
they are is read from the provider's own libraries, so nothing of NVIDIA's is needed; `gcc` and `nm` are.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections import defaultdict
from pathlib import Path

ANSWERS = r"""
#include <stdlib.h>
#include <string.h>
static long handle[1 << 12];
int cudaGetDeviceCount(int *count) { *count = 1; return 0; }
int cudaGetDevice(int *device) { *device = 0; return 0; }
int cudaDriverGetVersion(int *version) { *version = 13000; return 0; }
int cudaRuntimeGetVersion(int *version) { *version = 13000; return 0; }
int cudaDeviceGetAttribute(int *value, int which, int device) { *value = 9; return 0; }
/* Every number in it becomes 9: compute capability 9.9, so that no kernel is left out for the card's age. */
int cudaGetDeviceProperties(int *all, int device) { for (int i = 0; i < 200; i++) all[i] = 9; return 0; }
int cudaMemGetInfo(size_t *left, size_t *total) { *left = *total = (size_t)1 << 36; return 0; }
int cudaMalloc(void **p, size_t n) { *p = malloc(n); return 0; }
int cudaMallocHost(void **p, size_t n) { *p = malloc(n); return 0; }
int cudaHostAlloc(void **p, size_t n, unsigned how) { *p = malloc(n); return 0; }
int cudaFree(void *p) { free(p); return 0; }
int cudaFreeHost(void *p) { free(p); return 0; }
int cudaMemcpy(void *to, const void *from, size_t n, int kind) { memcpy(to, from, n); return 0; }
int cudaMemcpyAsync(void *to, const void *from, size_t n, int kind, void *stream) { memcpy(to, from, n); return 0; }
const char *cudaGetErrorName(int error) { return "pretended"; }
const char *cudaGetErrorString(int error) { return "pretended"; }
int cudaEventCreate(void **event) { *event = handle; return 0; }
int cudaEventCreateWithFlags(void **event, unsigned flags) { *event = handle; return 0; }
int cudaStreamCreate(void **stream) { *stream = handle; return 0; }
int cudaStreamCreateWithFlags(void **stream, unsigned flags) { *stream = handle; return 0; }
int cublasCreate_v2(void **made) { *made = handle; return 0; }
int cublasLtCreate(void **made) { *made = handle; return 0; }
int cudnnCreate(void **made) { *made = handle; return 0; }
void **__cudaRegisterFatBinary(void *binary) { static void *kept; return &kept; }
int getInferLibVersion(void) { return 101600; }
"""
"""The functions whose answer is looked at when the provider registers and when it loads a graph."""

HOMES = (("libcudnn.so.9", "cudnn"), ("libnvonnxparser.so.10", "createNvOnnxParser"), ("libnvinfer.so.10", "Infer"))
"""Libraries whose symbols carry no version, and what is in their names."""


def make(onnxruntime_gpu: Path, folder: Path) -> dict[str, str]:
    """Compile the libraries into `folder`.

    onnxruntime_gpu: where `pip install --target` put onnxruntime-gpu.

    Returns: the environment for a process that is to see a card.
    """
    folder.mkdir(parents=True, exist_ok=True)
    wanted: dict[str, set[str]] = defaultdict(set)
    for provider in sorted((onnxruntime_gpu / "onnxruntime/capi").glob("libonnxruntime_providers_*.so")):
        for symbol, library in _undefined(provider):
            wanted[library].add(symbol)
    for library, symbols in wanted.items():
        _compile(folder, library, symbols)
    return {**os.environ, "LD_LIBRARY_PATH": str(folder), "PYTHONPATH": str(onnxruntime_gpu)}


def python(code: str, environment: dict[str, str], given: str = "") -> str:
    """What a Python process says that sees the pretended card, with `given` on its standard input.

    Raises: RuntimeError with what it complained of.
    """
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, env=environment, input=given, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"onnxruntime-gpu under the stubs ended with {done.returncode}:\n{done.stderr[-2000:]}")
    return done.stdout


def _undefined(provider: Path) -> list[tuple[str, str]]:
    """(symbol, library) of each function that a provider expects of NVIDIA's libraries."""
    listed = subprocess.run(["nm", "-D", "--undefined-only", provider], capture_output=True, text=True, check=True)
    found = []
    for line in listed.stdout.splitlines():
        symbol, _, version = line.split()[-1].partition("@")
        if version.startswith(("libcu", "libnv")):
            found.append((symbol, version))
        elif symbol == "cuTensorMapEncodeTiled":
            found.append((symbol, "libcuda.so.1"))
        elif not version:
            found += [(symbol, home) for home, part in HOMES if part in symbol][:1]
            if symbol == "getPluginRegistry":
                found.append((symbol, "libnvinfer.so.10"))
    needed = subprocess.run(["readelf", "-d", provider], capture_output=True, text=True, check=True).stdout
    libraries = [line.split("[")[1].rstrip("]") for line in needed.splitlines() if "NEEDED" in line]
    # A library may be needed of which no function is called.
    return found + [("unused", name) for name in libraries if name.startswith(("libcu", "libnv"))]


def _compile(folder: Path, library: str, symbols: set[str]) -> None:
    answered = {line.split("(")[0].split()[-1].lstrip("*") for line in ANSWERS.splitlines() if line.endswith("}")}
    source, versions = folder / f"{library}.c", folder / f"{library}.map"
    zeros = "".join(f"long {symbol}(void) {{ return 0; }}\n" for symbol in sorted(symbols - answered))
    source.write_text(ANSWERS + zeros, encoding="utf-8")
    versions.write_text(f"{library} {{ global: *; }};\n", encoding="utf-8")
    command = ["gcc", "-w", "-shared", "-fPIC", f"-Wl,-soname,{library}", f"-Wl,--version-script={versions}"]
    subprocess.run([*command, "-o", str(folder / library), str(source)], check=True)
