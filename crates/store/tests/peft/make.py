"""The fixture `tests/peft/plain`: a tiny adapter written by PEFT itself. peft 0.21.2, torch 2.15.0, 2026-11-23.

    python make.py

Two linear layers and an embedding, ranks 2 and 3, rank-stabilised; the values are set by a formula that the Rust test
repeats: entry i of a tensor is (i + 1) / 8, negative in every third place.
"""
import pathlib
import shutil

import peft
import torch


class Layer(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.q_proj = torch.nn.Linear(4, 6, bias=False)
        self.down_proj = torch.nn.Linear(5, 4, bias=False)


class Model(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.embed = torch.nn.Embedding(7, 4)
        self.layers = torch.nn.ModuleList([Layer()])

    def forward(self, x):
        return x


config = peft.LoraConfig(
    r=2, lora_alpha=5, target_modules=["q_proj", "down_proj", "embed"], rank_pattern={"down_proj": 3}, use_rslora=True
)
model = peft.get_peft_model(Model(), config)
for name, parameter in model.named_parameters():
    if "lora_" in name:
        i = torch.arange(parameter.numel())
        values = (i + 1) / 8 * torch.where(i % 3 == 2, -1, 1)
        parameter.data = values.reshape(parameter.shape).float()
out = pathlib.Path(__file__).parent / "plain"
shutil.rmtree(out, ignore_errors=True)
model.save_pretrained(out)
(out / "README.md").unlink(missing_ok=True)
