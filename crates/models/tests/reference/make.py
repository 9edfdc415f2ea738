"""Makes the JSON files beside this file: tiny encoders, vision transformers and T5 models as Hugging Face `transformers` writes
them, and what it computes with them in f32 on the CPU (eager attention).

No weight is stored. Every value of every tensor, and every pixel, follows from its name by `draws`, which `tests/encoders`
has too. A file holds the configuration, names and shapes of the tensors as `save_pretrained` writes them, the inputs, and the
outputs and the mean loss of `transformers`.

Usage, with the environment of tests/interop/setup.sh: make.py [NAME...]
"""

import json
import sys
import tempfile
from pathlib import Path

import numpy as np
import torch
import transformers
from safetensors import safe_open
from safetensors.torch import save_file

HERE = Path(__file__).resolve().parent
TEXT = dict(vocab_size=23, hidden_size=24, num_hidden_layers=2, num_attention_heads=3, intermediate_size=20, type_vocab_size=2)
IMAGE = dict(hidden_size=24, num_hidden_layers=2, num_attention_heads=3, image_size=12, patch_size=4)
T5 = dict(
    vocab_size=23,
    d_model=20,
    d_kv=6,
    d_ff=28,
    num_layers=2,
    num_heads=3,
    relative_attention_num_buckets=8,
    relative_attention_max_distance=12,
    decoder_start_token_id=0,
)

# name -> (class, configuration, labels of the head or None)
MODELS = {
    "bert-classify": ("BertForSequenceClassification", dict(TEXT, max_position_embeddings=12), 3),
    "bert-masked": ("BertForMaskedLM", dict(TEXT, max_position_embeddings=12, hidden_act="gelu_new"), None),
    "minilm": ("BertModel", dict(TEXT, max_position_embeddings=12), None),
    "roberta-regress": ("RobertaForSequenceClassification", dict(TEXT, max_position_embeddings=14, type_vocab_size=1), 1),
    "roberta-masked": ("RobertaForMaskedLM", dict(TEXT, max_position_embeddings=14, type_vocab_size=1), None),
    "vit": ("ViTForImageClassification", dict(IMAGE, intermediate_size=20), 3),
    "vit-features": ("ViTModel", dict(IMAGE, intermediate_size=20, qkv_bias=False, hidden_act="relu"), None),
    "deit": ("DeiTForImageClassification", dict(IMAGE, intermediate_size=20), 3),
    "deit-distilled": ("DeiTForImageClassificationWithTeacher", dict(IMAGE, intermediate_size=20), 3),
    "dinov2": ("Dinov2ForImageClassification", dict(IMAGE, mlp_ratio=2), 3),
    "t5": ("T5ForConditionalGeneration", dict(T5), None),
    "t5-gated": (
        "T5ForConditionalGeneration",
        dict(T5, feed_forward_proj="gated-gelu", tie_word_embeddings=False, num_decoder_layers=1),
        None,
    ),
}
ROWS = [[2, 7, 19, 5, 11, 3, 8, 22, 4], [2, 15, 6, 4], [2, 9, 12, 20, 17, 4]]
ANSWERS = [[5, 18, 7, 3, 20, 9], [11, 4, 2, 16, 8, 21], [14, 6, 13, 1, 1, 1]]


def draws(name: str, count: int) -> np.ndarray:
    """Uniform values on [-1, 1): SplitMix64 from the FNV-1a hash of the name, the upper 24 bits of each."""
    seed = 0xCBF29CE484222325
    for byte in name.encode():
        seed = (seed ^ byte) * 0x100000001B3 % 2**64
    z = np.uint64(seed) + np.arange(1, count + 1, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15)
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    z = z ^ (z >> np.uint64(31))
    return (z >> np.uint64(40)).astype(np.float64) / 2**23 - 1.0


def values(name: str, shape: list[int]) -> torch.Tensor:
    """Weights of variance 1/in, gains around 1, biases around 0: none is 0, so that a forgotten one shows. T5's embedding is
    small beside what its blocks add, or a decoder with a tied head would repeat what it reads."""
    drawn = draws(name, int(np.prod(shape)))
    if len(shape) > 1:
        drawn = drawn * np.sqrt(3.0 / np.prod(shape[1:])) * (0.25 if name == "shared.weight" else 1.0)
    elif name.endswith("bias"):
        drawn = drawn * 0.25
    else:
        drawn = 1.0 + drawn * 0.25
    return torch.from_numpy(drawn.astype(np.float32)).reshape(shape)


def rounded(tensor: torch.Tensor) -> list[float]:
    return [float(f"{value:.7g}") for value in tensor.detach().double().flatten().tolist()]


def text(kind: str, model, labels) -> dict:
    padding = model.config.pad_token_id
    longest = max(map(len, ROWS))
    tokens = torch.tensor([row + [padding] * (longest - len(row)) for row in ROWS])
    mask = torch.tensor([[1] * len(row) + [0] * (longest - len(row)) for row in ROWS])
    out = dict(tokens=tokens.flatten().tolist(), visible=mask.bool().flatten().tolist(), batch=len(ROWS), time=longest)
    given = dict(input_ids=tokens, attention_mask=mask)
    if "Bert" in kind:
        segments = torch.tensor([[int(at > 2) for at in range(longest)] for _ in ROWS])
        given["token_type_ids"] = segments
        out["segments"] = segments.flatten().tolist()
    if kind.endswith("Model"):
        hidden = model(**given).last_hidden_state
        weights = mask.unsqueeze(-1).float()
        return out | dict(expected=rounded((hidden * weights).sum(1) / weights.sum(1)))
    if "MaskedLM" in kind:
        answers = torch.tensor([[t if at % 3 == 1 else -100 for at, t in enumerate(row)] for row in tokens.tolist()])
        answers[mask == 0] = -100
    elif labels == 1:
        answers = torch.tensor([0.5, -1.25, 2.0])
    else:
        answers = torch.tensor([2, 0, 1])
    found = model(**given, labels=answers)
    return out | dict(labels=answers.flatten().tolist(), loss=found.loss.item(), expected=rounded(found.logits))


def images(kind: str, model, labels) -> dict:
    out = dict(sizes=[])
    for height, width in [(12, 12), (16, 24)]:
        pixels = torch.from_numpy(draws(f"pixels {height} {width}", 2 * 3 * height * width).astype(np.float32))
        other = dict(interpolate_pos_encoding=True) if height != 12 and "Dinov2" not in kind else {}
        with torch.no_grad():
            found = model(pixels.reshape(2, 3, height, width), **other)
        answer = found.last_hidden_state[:, 0] if labels is None else found.logits
        out["sizes"].append(dict(height=height, width=width, expected=rounded(answer)))
    return out


def sequences(model) -> dict:
    longest = max(map(len, ROWS))
    tokens = torch.tensor([row + [0] * (longest - len(row)) for row in ROWS])
    mask = torch.tensor([[1] * len(row) + [0] * (longest - len(row)) for row in ROWS])
    answers = torch.tensor(ANSWERS)
    answers[2, 3:] = -100
    found = model(input_ids=tokens, attention_mask=mask, labels=answers)
    written = [
        model.generate(torch.tensor([row]), max_new_tokens=8, do_sample=False, num_beams=1)[0].tolist()[1:] for row in ROWS
    ]
    return dict(
        tokens=tokens.flatten().tolist(),
        visible=mask.bool().flatten().tolist(),
        batch=len(ROWS),
        time=longest,
        answers=answers.flatten().tolist(),
        loss=found.loss.item(),
        expected=rounded(found.logits),
        written=[[token for token in row if token != model.config.eos_token_id] for row in written],
    )


def build(name: str) -> None:
    kind, changes, labels = MODELS[name]
    cls = getattr(transformers, kind)
    if labels is not None:
        changes = dict(changes, num_labels=labels)
    with tempfile.TemporaryDirectory() as folder:
        cls(cls.config_class(**changes)).save_pretrained(folder)
        config = json.loads((Path(folder) / "config.json").read_text())
        with safe_open(Path(folder) / "model.safetensors", "pt") as file:
            shapes = {key: file.get_slice(key).get_shape() for key in sorted(file.keys())}
        if changes.get("tie_word_embeddings") is False:
            # As T5 1.1 is published: a head of its own beside the embedding.
            shapes["lm_head.weight"] = [changes["vocab_size"], changes["d_model"]]
            config["tie_word_embeddings"] = False
            config.pop("scale_decoder_outputs", None)
            (Path(folder) / "config.json").write_text(json.dumps(config))
        tensors = {key: values(key, shape) for key, shape in shapes.items()}
        save_file(tensors, Path(folder) / "model.safetensors", metadata={"format": "pt"})
        model = cls.from_pretrained(folder, attn_implementation="eager").eval()
    if "T5" in kind:
        if "lm_head.weight" in tensors:
            assert torch.equal(model.lm_head.weight, tensors["lm_head.weight"]), "the head of the file was not read"
        data = sequences(model)
    elif "image_size" in changes:
        data = images(kind, model, labels)
    else:
        data = text(kind, model, labels)
    origin = f"transformers {transformers.__version__}, torch {torch.__version__}, CPU, f32, eager attention"
    # What PEFT's adapters name; in transformers 5 not always what the files name. The poolers of bases are not ours.
    linear = [key for key, module in model.named_modules() if isinstance(module, torch.nn.Linear) and "pooler" not in key]
    out = dict(origin=origin, config=config, tensors=shapes, linear=linear) | data
    (HERE / f"{name}.json").write_text(json.dumps(out, separators=(",", ":")) + "\n")
    print(name, len((HERE / f"{name}.json").read_text()))


torch.manual_seed(0)
for name in sys.argv[1:] or MODELS:
    build(name)
