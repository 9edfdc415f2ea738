"""Reference vectors for tests/reference.rs, from the Python package gguf 0.19.0 (numpy 2.4.6), 2026-11-23.

    python make.py > vectors.rs

Quantises seeded values with `gguf.quants.quantize` (Q8_0, Q4_0, Q4_1), takes random blocks for Q4_K and Q6_K
(which the package only reads), and widens all of them with `gguf.quants.dequantize`. The widened values are kept as an
exact fingerprint: FNV-1a over their little-endian bytes, plus the first four and last four values.
"""
import numpy as np
from gguf import GGMLQuantizationType as T
from gguf import quants

rng = np.random.default_rng(20261123)

def fnv(data: bytes) -> int:
    value = 0xCBF29CE484222325
    for byte in data:
        value = ((value ^ byte) * 0x100000001B3) & 0xFFFFFFFFFFFFFFFF
    return value

def blocks(kind, count):
    size = {T.Q4_K: 144, T.Q6_K: 210}[kind]
    raw = rng.integers(0, 256, (count, size), dtype=np.uint8)
    half = lambda: rng.normal(0, 0.01, (count, 1)).astype(np.float16).view(np.uint8)
    if kind == T.Q4_K:
        raw[:, 0:2], raw[:, 2:4] = half(), half()
    else:
        raw[:, 208:210] = half()
    return raw.reshape(1, -1)

def show(name, data):
    text = ", ".join(str(b) for b in data)
    print(f"pub const {name}: &[u8] = &[{text}];")

print("// Made by make.py beside this file: gguf 0.19.0, numpy 2.4.6, 2026-11-23. Do not edit.")
values = (rng.normal(0, 1, 64) * np.repeat([0.02, 3.0], 32)).astype(np.float32)
print("pub const VALUES: &[u32] = &[" + ", ".join(hex(v) for v in values.view(np.uint32)) + "];")
for kind in (T.Q8_0, T.Q4_0, T.Q4_1, T.Q4_K, T.Q6_K, T.F16, T.BF16):
    data = blocks(kind, 2) if kind in (T.Q4_K, T.Q6_K) else quants.quantize(values.reshape(1, -1), kind)
    wide = quants.dequantize(data, kind).astype(np.float32).ravel()
    show(f"{kind.name}_BYTES", np.ascontiguousarray(data).view(np.uint8).ravel())
    bits = wide.view(np.uint32)
    ends = ", ".join(hex(b) for b in (*bits[:4], *bits[-4:]))
    print(f"pub const {kind.name}_WIDE: (u64, [u32; 8]) = ({hex(fnv(wide.tobytes()))}, [{ends}]);")
