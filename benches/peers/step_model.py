"""The decoder of `step.py`: frozen linears with a plain LoRA path, in the way PEFT composes them."""

import math

import torch
import torch.nn.functional as F
from torch import nn

SHAPE = dict(hidden=576, heads=9, kv_heads=3, ffn=1536, layers=6, vocab=8192, batch=4, time=256, rank=8, alpha=16)


class LoraLinear(nn.Module):
    """y = x W^T + (alpha / rank) (x A^T) B^T with W [out, in] frozen, A [rank, in], B [out, rank]."""

    def __init__(self, fan_in: int, fan_out: int) -> None:
        super().__init__()
        rank = SHAPE["rank"]
        self.weight = nn.Parameter(torch.randn(fan_out, fan_in) / math.sqrt(fan_in), requires_grad=False)
        self.a = nn.Parameter((torch.rand(rank, fan_in) * 2 - 1) / math.sqrt(fan_in))
        self.b = nn.Parameter(torch.zeros(fan_out, rank))
        self.scale = SHAPE["alpha"] / rank

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return F.linear(x, self.weight) + F.linear(F.linear(x, self.a), self.b) * self.scale


class Norm(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(SHAPE["hidden"]), requires_grad=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return F.rms_norm(x, (SHAPE["hidden"],), self.weight, 1e-5)


def rotate(x: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> torch.Tensor:
    """Half-split rotary embedding of [batch, heads, time, head]."""
    half = x.shape[-1] // 2
    turned = torch.cat((-x[..., half:], x[..., :half]), dim=-1)
    return x * cos + turned * sin


class Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        hidden, ffn = SHAPE["hidden"], SHAPE["ffn"]
        self.head = hidden // SHAPE["heads"]
        kv = SHAPE["kv_heads"] * self.head
        self.attention_norm, self.ffn_norm = Norm(), Norm()
        self.q, self.k, self.v = LoraLinear(hidden, hidden), LoraLinear(hidden, kv), LoraLinear(hidden, kv)
        self.o = LoraLinear(hidden, hidden)
        self.gate, self.up = LoraLinear(hidden, ffn), LoraLinear(hidden, ffn)
        self.down = LoraLinear(ffn, hidden)

    def forward(self, x: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> torch.Tensor:
        batch, time, _ = x.shape
        h = self.attention_norm(x)
        split = lambda y: y.view(batch, time, -1, self.head).transpose(1, 2)
        q, k, v = rotate(split(self.q(h)), cos, sin), rotate(split(self.k(h)), cos, sin), split(self.v(h))
        mixed = F.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=True)
        x = x + self.o(mixed.transpose(1, 2).reshape(batch, time, -1))
        h = self.ffn_norm(x)
        return x + self.down(F.silu(self.gate(h)) * self.up(h))


class Decoder(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        hidden, time = SHAPE["hidden"], SHAPE["time"]
        self.embedding = nn.Parameter(torch.randn(SHAPE["vocab"], hidden) * 0.02, requires_grad=False)
        self.blocks = nn.ModuleList(Block() for _ in range(SHAPE["layers"]))
        self.norm = Norm()
        head = hidden // SHAPE["heads"]
        frequencies = 10000.0 ** (-torch.arange(0, head, 2) / head)
        angles = torch.outer(torch.arange(time), frequencies).repeat(1, 2)
        self.register_buffer("cos", angles.cos())
        self.register_buffer("sin", angles.sin())

    def loss(self, tokens: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """Mean cross-entropy of `labels` [batch, time] after `tokens` [batch, time]."""
        x = F.embedding(tokens, self.embedding)
        for block in self.blocks:
            x = block(x, self.cos, self.sin)
        logits = F.linear(self.norm(x), self.embedding)
        return F.cross_entropy(logits.flatten(0, 1), labels.flatten())
