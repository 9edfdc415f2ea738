"""Makes pillow.json: images resized by Pillow, and inputs made by the image processors of transformers that stand on Pillow.

The bytes of an image of n values are (i * 73 + i * i * 11) % 256 for i below n. Usage, with numpy, torch, transformers and
pillow: pillow.py
"""

import json
from pathlib import Path

import numpy as np
import PIL
import transformers
from PIL import Image
from transformers.models.bit.image_processing_pil_bit import BitImageProcessorPil
from transformers.models.deit.image_processing_pil_deit import DeiTImageProcessorPil
from transformers.models.vit.image_processing_pil_vit import ViTImageProcessorPil

FILTERS = {"bilinear": Image.Resampling.BILINEAR, "bicubic": Image.Resampling.BICUBIC, "lanczos": Image.Resampling.LANCZOS}


def image(height: int, width: int, channels: int) -> Image.Image:
    data = bytes((i * 73 + i * i * 11) % 256 for i in range(height * width * channels))
    return Image.frombytes("RGB" if channels == 3 else "L", (width, height), data)


resized = []
for name, kind in FILTERS.items():
    for source, to in [([5, 7, 3], [9, 4]), ([11, 13, 1], [3, 5]), ([4, 4, 3], [7, 7]), ([6, 9, 1], [6, 5])]:
        out = image(*source).resize((to[1], to[0]), kind)
        resized.append({"filter": name, "from": source, "to": to, "expected": list(out.tobytes())})

inputs = []
for processor in [
    ViTImageProcessorPil(size={"height": 6, "width": 8}),
    ViTImageProcessorPil(size={"height": 6, "width": 8}, resample=3, image_mean=[0.485, 0.456, 0.406], image_std=[0.229, 0.224, 0.225]),
    DeiTImageProcessorPil(size={"height": 8, "width": 8}, crop_size={"height": 6, "width": 6}),
    BitImageProcessorPil(size={"shortest_edge": 7}, crop_size={"height": 6, "width": 6}),
    ViTImageProcessorPil(do_resize=False, do_normalize=False),
]:
    for source in [[9, 13, 3], [14, 8, 3]]:
        found = processor(images=image(*source), return_tensors="np")["pixel_values"][0]
        config = {key: value for key, value in processor.to_dict().items() if value is not None}
        values = [float(f"{value:.7g}") for value in found.astype(np.float64).flatten()]
        inputs.append({"config": config, "from": source, "to": list(found.shape), "expected": values})

origin = f"Pillow {PIL.__version__}, transformers {transformers.__version__}, the processors of its Pillow backend"
out = {"origin": origin, "resized": resized, "inputs": inputs}
Path(__file__).with_suffix(".json").write_text(json.dumps(out, separators=(",", ":")) + "\n")
