"""Vision transformers and T5 models that our program tuned, loaded by PEFT on the unmodified base, against `lowrank eval`.

    vision_t5.py --fixtures DIR --work DIR

Tiny models with random weights as `save_pretrained` writes them: ViT and DINOv2 without a head, ViT and a distilled DeiT with
their own; T5 and T5 1.1. Images lie in an IDX file, pairs of texts in a JSONL file. For several methods `PeftModel.from_pretrained`
on `AutoModelForImageClassification` (whose new head the adapter replaces, `modules_to_save`) or `AutoModelForSeq2SeqLM`. A row
passes when

* the logits of all records agree within 1e-4 (in f32);
* the file holds exactly the tensors that PEFT expects for its config, each in the shape that PEFT expects;
* the trained adapter and head move the logits by more than 1e-2.

The loss that the program tells, and the accuracy, are checked against those of PEFT's logits.
"""

import json
import sys
from pathlib import Path

import torch
from peft import PeftModel
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import (
    AutoModelForImageClassification,
    AutoModelForSeq2SeqLM,
    DeiTConfig,
    DeiTForImageClassificationWithTeacher,
    Dinov2Config,
    Dinov2Model,
    T5Config,
    T5ForConditionalGeneration,
    ViTConfig,
    ViTForImageClassification,
    ViTModel,
)

import program
from adapters import faults
from report import Report, arguments

BOUND = 1e-4
MOVED = 1e-2
METHODS = ["lora", "pissa", "lora-ga", "eva", "lora-sb", "svfit"]
CLASSES = 3
SIDE = 12
SIDES = dict(hidden_size=24, num_hidden_layers=2, num_attention_heads=3, image_size=SIDE, patch_size=4)
INNER = dict(SIDES, intermediate_size=40)
IMAGES = {
    "vit": lambda: ViTModel(ViTConfig(**INNER)),
    "vit with its head": lambda: ViTForImageClassification(ViTConfig(**INNER, num_labels=CLASSES)),
    "deit with its heads": lambda: DeiTForImageClassificationWithTeacher(DeiTConfig(**INNER, num_labels=CLASSES)),
    "dinov2": lambda: Dinov2Model(Dinov2Config(**SIDES, mlp_ratio=2)),
}
WORDS = "<pad> </s> <unk> what is plus one two three four five six ? the sum number of".split()
PAIR = dict(
    vocab_size=len(WORDS) + 3, d_model=24, d_kv=6, d_ff=40, num_layers=2, num_heads=3, relative_attention_num_buckets=8,
    relative_attention_max_distance=12, decoder_start_token_id=0, pad_token_id=0, eos_token_id=1,
)
TEXTS = {
    "t5": lambda: T5ForConditionalGeneration(T5Config(**PAIR)),
    "t5 1.1": lambda: T5ForConditionalGeneration(
        T5Config(**PAIR, feed_forward_proj="gated-gelu", tie_word_embeddings=False, num_decoder_layers=1)
    ),
}


def shaken(model: torch.nn.Module, out: Path) -> None:
    """Writes a model of which no value is as it was initialised: a forgotten bias would show."""
    for parameter in model.parameters():
        parameter.data.add_(0.15 * torch.randn_like(parameter))
    model.save_pretrained(out)
    if isinstance(model, T5ForConditionalGeneration) and model.config.feed_forward_proj.startswith("gated"):
        # As T5 1.1 is published: a head of its own beside the embedding.
        tensors = load_file(out / "model.safetensors")
        tensors["lm_head.weight"] = 0.15 * torch.randn(PAIR["vocab_size"], PAIR["d_model"])
        save_file(tensors, out / "model.safetensors", metadata={"format": "pt"})
        config = json.loads((out / "config.json").read_text()) | {"tie_word_embeddings": False}
        config.pop("scale_decoder_outputs", None)
        (out / "config.json").write_text(json.dumps(config))


def images(out: Path) -> torch.Tensor:
    """Grey images of three classes as IDX files; as a model is fed them, and their classes."""
    generator = torch.Generator().manual_seed(3)
    classes = torch.arange(48) % CLASSES
    pixels = torch.randint(0, 120, (48, SIDE, SIDE), generator=generator)
    for image, label in zip(pixels, classes.tolist()):
        image[4 * label : 4 * label + 4] += 120
    head = lambda *sides: bytes([0, 0, 8, len(sides)]) + b"".join(side.to_bytes(4, "big") for side in sides)
    (out / "images-idx3-ubyte").write_bytes(head(48, SIDE, SIDE) + bytes(pixels.flatten().tolist()))
    (out / "labels-idx1-ubyte").write_bytes(head(48) + bytes(classes.tolist()))
    config = dict(
        image_processor_type="ViTImageProcessor", do_resize=True, size=dict(height=SIDE, width=SIDE), resample=2, do_rescale=True,
        rescale_factor=1 / 255, do_normalize=True, image_mean=[0.5] * 3, image_std=[0.25, 0.5, 0.75],
    )
    (out / "preprocessor_config.json").write_text(json.dumps(config))
    shown = pixels.float()[:, None].repeat(1, 3, 1, 1) / 255
    return (shown - 0.5) / torch.tensor([0.25, 0.5, 0.75])[:, None, None], classes


def pairs(out: Path) -> list[tuple[list[int], list[int]]]:
    """Questions and answers as JSONL with a tokenizer of words; their tokens."""
    made = Tokenizer(models.WordLevel({word: i for i, word in enumerate(WORDS)}, unk_token="<unk>"))
    made.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    made.add_special_tokens(WORDS[:3])
    made.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 1)])
    made.save(str(out / "tokenizer.json"))
    (out / "tokenizer_config.json").write_text(json.dumps(dict(eos_token="</s>", pad_token="<pad>", unk_token="<unk>")))
    found = []
    with (out / "data.jsonl").open("w") as file:
        for a in range(1, 6):
            for b in range(1, 6):
                question = f"what is {WORDS[5 + a]} plus {WORDS[5 + b]} ?" if (a + b) % 2 else f"{WORDS[5 + a]} plus {WORDS[5 + b]}"
                answer = f"the sum is {WORDS[6 + (a + b) % 6]}" if a % 2 else WORDS[6 + (a + b) % 6]
                file.write(json.dumps(dict(question=question, answer=answer)) + "\n")
                found.append((made.encode(question).ids, made.encode(answer).ids))
    return found


def tuned(directory: Path, data: Path, method: str, work: Path) -> tuple[Path, torch.Tensor, dict]:
    """The adapter, our logits with it, and what the program tells of them."""
    out, logits = work / "adapter", work / "logits.safetensors"
    common = ["--model", directory, "--data", data]
    settings = ["--rank", 2, "--batch", 8, "--steps", 6, "--rate", 0.01, "--out", out, "--quiet"]
    program.lowrank("tune", *common, "--method", method, *settings, work=program.fresh(work))
    told = program.lowrank("--json", "eval", *common, "--adapter", out, "--dump-logits", logits, "--quiet", work=work)
    return out, load_file(logits)["logits"], json.loads(told)


def judge(report: Report, what: str, found: list[str], ours: torch.Tensor, theirs: torch.Tensor, moved: float) -> None:
    if ours.shape != theirs.shape:
        found.append(f"logits {list(ours.shape)}, PEFT has {list(theirs.shape)}")
    if found or not moved > MOVED:
        report.holds(what, False, "; ".join(found) or f"moves the logits by {moved:.2e}: nothing was trained")
    else:
        report.below(what, (ours - theirs).abs().max().item(), BOUND, f"moves the logits by {moved:.2f}")


@torch.no_grad()
def vision(report: Report, name: str, directory: Path, shown: torch.Tensor, classes: torch.Tensor, method: str, work: Path) -> None:
    out, ours, told = tuned(directory, directory / "images-idx3-ubyte", method, work)
    kind = DeiTForImageClassificationWithTeacher if name.startswith("deit") else AutoModelForImageClassification
    torch.manual_seed(0)
    base = kind.from_pretrained(directory, num_labels=CLASSES).eval()
    before = base(shown).logits
    loaded = PeftModel.from_pretrained(base, out).eval()
    theirs, found = loaded(shown).logits, faults(out, loaded)
    loss = torch.nn.functional.cross_entropy(theirs, classes).item()
    right = (theirs.argmax(1) == classes).float().mean().item()
    if abs(loss - told["loss"]) > 1e-4 * max(1.0, loss) or abs(right - told["score"]["value"]) > 1e-6:
        found.append(f"told {told['loss']} and {told['score']['value']}, PEFT's logits give {loss} and {right}")
    judge(report, f"{name}, {method}", found, ours, theirs, (theirs - before).abs().max().item())


@torch.no_grad()
def text(report: Report, name: str, directory: Path, data: list, method: str, work: Path) -> None:
    out, ours, told = tuned(directory, directory / "data.jsonl", method, work)
    base = AutoModelForSeq2SeqLM.from_pretrained(directory).eval()

    def answers(model: torch.nn.Module) -> list[torch.Tensor]:
        # One pair at a time: no padding that could hide a mistake.
        one = lambda source, answer: model(input_ids=torch.tensor([source]), labels=torch.tensor([answer])).logits[0]
        return [one(source, answer) for source, answer in data]

    before = answers(base)
    loaded = PeftModel.from_pretrained(base, out).eval()
    found, rows = faults(out, loaded), answers(loaded)
    losses = [torch.nn.functional.cross_entropy(row, torch.tensor(answer), reduction="sum") for row, (_, answer) in zip(rows, data)]
    loss = (sum(losses) / sum(len(answer) for _, answer in data)).item()
    if abs(loss - told["loss"]) > 1e-4 * max(1.0, loss):
        found.append(f"loss {told['loss']}, PEFT's logits give {loss}")
    moved = max((a - b).abs().max().item() for a, b in zip(rows, before))
    # Behind the end of an answer ours are filled up, and mean nothing.
    lengths = [len(answer) for _, answer in data]
    if ours.shape[:2] != (len(data), max(lengths)):
        found.append(f"logits {list(ours.shape)} for {len(data)} answers of up to {max(lengths)} tokens")
    ours = torch.cat([row[:length] for row, length in zip(ours, lengths)])
    judge(report, f"{name}, {method}", found, ours, torch.cat(rows), moved)


def main() -> int:
    args = arguments(__doc__)
    torch.set_num_threads(1)
    question = "A tuned vision transformer or T5 in PEFT on the unmodified base against `lowrank eval`, max abs difference."
    report, work = Report("vision_t5", question, args.work), args.work / "vision_t5"
    for index, (name, make) in enumerate((IMAGES | TEXTS).items()):
        directory = program.fresh(work / f"model-{index}")
        torch.manual_seed(7)
        shaken(make(), directory)
        data = images(directory) if name in IMAGES else pairs(directory)
        for method in METHODS:
            try:
                if name in IMAGES:
                    vision(report, name, directory, *data, method, work / "run")
                else:
                    text(report, name, directory, data, method, work / "run")
            except Exception as error:
                report.failed(f"{name}, {method}", error)
    return report.finish()


if __name__ == "__main__":
    sys.exit(main())
