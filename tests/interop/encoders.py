"""Encoders that our program tuned, loaded by PEFT on the unmodified base, against `lowrank eval --task`.

    encoders.py --fixtures DIR --work DIR

Tiny BERT and RoBERTa models with random weights, a tokenizer of words, and texts that say their label. For several methods, with
classification and regression: `PeftModel.from_pretrained` on `AutoModelForSequenceClassification`, whose own new head the
adapter replaces (`modules_to_save`). A row passes when

* the logits of all records agree within 1e-4 (in f32);
* the file holds exactly the tensors that PEFT expects for its config, each in the shape that PEFT expects;
* the trained adapter and head move the logits by more than 1e-2.

The loss and accuracy that the program tells are checked against those of PEFT's logits.
"""

import json
import sys
from pathlib import Path

import torch
from peft import PeftModel
from safetensors.torch import load_file
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import AutoModelForSequenceClassification, BertConfig, BertModel, RobertaConfig, RobertaModel

import program
from adapters import faults
from report import Report, arguments

BOUND = 1e-4
MOVED = 1e-2
METHODS = ["lora", "pissa", "lora-ga", "eva", "lora-sb", "svfit"]
SPECIAL = {
    "bert": ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"],
    # RoBERTa's padding token is 1, behind which its positions begin.
    "roberta": ["<s>", "<pad>", "</s>", "<unk>", "<mask>"],
}
WORDS = "the room was clean dirty food good bad and very not service slow quick".split()
LABELS = ["bad", "good", "so so"]


def tokenizer(kind: str) -> Tokenizer:
    words = SPECIAL[kind] + WORDS
    unknown = "[UNK]" if kind == "bert" else "<unk>"
    made = Tokenizer(models.WordLevel({word: i for i, word in enumerate(words)}, unk_token=unknown))
    made.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    made.add_special_tokens(SPECIAL[kind])
    first, last = ("[CLS]", "[SEP]") if kind == "bert" else ("<s>", "</s>")
    segment = 1 if kind == "bert" else 0
    middle = last if kind == "bert" else f"{last} {last}"
    made.post_processor = processors.TemplateProcessing(
        single=f"{first} $A {last}",
        pair=f"{first} $A {middle} $B:{segment} {last}:{segment}",
        special_tokens=[(first, words.index(first)), (last, words.index(last))],
    )
    return made


def fixture(kind: str, out: Path) -> Path:
    """A model directory without a head, with `data.jsonl` of single texts and pairs of texts."""
    program.fresh(out)
    torch.manual_seed(7)
    sides = dict(
        vocab_size=len(SPECIAL[kind]) + len(WORDS), hidden_size=24, num_hidden_layers=2, num_attention_heads=3,
        intermediate_size=40, max_position_embeddings=40,
    )
    if kind == "bert":
        model = BertModel(BertConfig(**sides, type_vocab_size=2))
    else:
        model = RobertaModel(RobertaConfig(**sides, type_vocab_size=1, pad_token_id=1), add_pooling_layer=False)
    for parameter in model.parameters():
        parameter.data.add_(0.15 * torch.randn_like(parameter))
    model.save_pretrained(out)
    tokenizer(kind).save(str(out / "tokenizer.json"))
    draws = torch.randint(0, len(WORDS), (60, 6), generator=torch.Generator().manual_seed(3)).tolist()
    with (out / "data.jsonl").open("w") as classes, (out / "numbers.jsonl").open("w") as numbers:
        for i, row in enumerate(draws):
            label = i % 3
            text = " ".join([WORDS[w] for w in row[: 2 + i % 4]] + [["bad", "good", "slow"][label]])
            record = {"sentence1": text, "sentence2": "the service"} if i % 2 else {"text": text}
            classes.write(json.dumps(record | {"label": LABELS[label]}) + "\n")
            numbers.write(json.dumps(record | {"label": label - 0.5}) + "\n")
    return out


def answers(model: torch.nn.Module, kind: str, directory: Path, data: Path) -> torch.Tensor:
    """`[records, labels]`, one record at a time: no padding that could hide a mistake."""
    made, rows = Tokenizer.from_file(str(directory / "tokenizer.json")), []
    for line in data.read_text().splitlines():
        record = json.loads(line)
        text = (record["sentence1"], record["sentence2"]) if "sentence1" in record else (record["text"],)
        encoded = made.encode(*text)
        inputs = {"input_ids": torch.tensor([encoded.ids]), "attention_mask": torch.ones(1, len(encoded.ids), dtype=torch.long)}
        if kind == "bert":
            inputs["token_type_ids"] = torch.tensor([encoded.type_ids])
        with torch.no_grad():
            rows.append(model(**inputs).logits[0])
    return torch.stack(rows)


def judge(report: Report, kind: str, directory: Path, task: str, method: str, work: Path) -> None:
    what = f"{kind}, {task}, {method}"
    data = directory / ("data.jsonl" if task == "classification" else "numbers.jsonl")
    labels = len(LABELS) if task == "classification" else 1
    out = work / "adapter"
    common = ["--model", directory, "--task", task, "--data", data]
    settings = ["--rank", 2, "--batch", 8, "--steps", 6, "--rate", 0.01, "--out", out, "--quiet"]
    program.lowrank("tune", *common, "--method", method, *settings, work=program.fresh(work))
    logits = work / "logits.safetensors"
    told = json.loads(
        program.lowrank("--json", "eval", *common, "--adapter", out, "--dump-logits", logits, "--quiet", work=work)
    )
    ours = load_file(logits)["logits"]
    torch.manual_seed(0)
    base = AutoModelForSequenceClassification.from_pretrained(directory, num_labels=labels).eval()
    before = answers(base, kind, directory, data)
    loaded = PeftModel.from_pretrained(base, out).eval()
    theirs = answers(loaded, kind, directory, data)
    found = faults(out, loaded)
    moved = (theirs - before).abs().max().item()
    wanted = [json.loads(line)["label"] for line in data.read_text().splitlines()]
    if task == "classification":
        order = sorted(LABELS)
        right = (theirs.argmax(1) == torch.tensor([order.index(label) for label in wanted])).float().mean().item()
        if abs(right - told["score"]["value"]) > 1e-6:
            found.append(f"accuracy {told['score']['value']}, PEFT's logits give {right}")
    else:
        loss = (theirs[:, 0] - torch.tensor(wanted)).square().mean().item()
        if abs(loss - told["loss"]) > 1e-4 * max(1.0, loss):
            found.append(f"loss {told['loss']}, PEFT's answers give {loss}")
    if ours.shape != theirs.shape:
        found.append(f"{list(ours.shape)} answers, PEFT has {list(theirs.shape)}")
    if found or moved < MOVED:
        report.holds(what, False, "; ".join(found) or f"moves the logits by {moved:.2e}: nothing was trained")
    else:
        report.below(what, (ours - theirs).abs().max().item(), BOUND, f"moves the logits by {moved:.2f}")


def main() -> int:
    args = arguments(__doc__)
    torch.set_num_threads(1)
    question = "A tuned encoder with its head in PEFT on the unmodified base against `lowrank eval --task`, max abs difference."
    report = Report("encoders", question, args.work)
    for kind in SPECIAL:
        directory = fixture(kind, args.work / "encoders" / kind)
        for task in ("classification", "regression"):
            for method in METHODS:
                try:
                    judge(report, kind, directory, task, method, args.work / "encoders" / "run")
                except Exception as error:
                    report.failed(f"{kind}, {task}, {method}", error)
    return report.finish()


if __name__ == "__main__":
    sys.exit(main())
