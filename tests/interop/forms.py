"""Reference numbers of PEFT for crates/adapt/tests/forms/reference.rs: each form on one linear layer [6, 8].

Every parameter is a wave, so that the test needs only the outputs: entry k of the i-th part is 0.6·sin(1 + i + 0.7·k);
weight, bias and inputs begin at phases 0.1, 0.2 and 0.3. Prints Rust arrays.

usage: python forms.py
"""

import math

import peft
import torch
from peft import AdaLoraConfig, BOFTConfig, IA3Config, LoHaConfig, LoKrConfig, LoraConfig, OFTConfig, VeraConfig

OUT, IN, ROWS = 6, 8, 3


def wave(phase, *shape):
    count = math.prod(shape)
    values = [0.6 * math.sin(phase + 0.7 * k) for k in range(count)]
    return torch.tensor(values, dtype=torch.float64).float().reshape(shape)


class Model(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.lin = torch.nn.Linear(IN, OUT)
        self.lin.weight.data = wave(0.1, OUT, IN)
        self.lin.bias.data = wave(0.2, OUT)

    def forward(self, x):
        return self.lin(x)


def run(name, config, parts, change=None):
    model = peft.get_peft_model(Model(), config)
    layer = model.base_model.model.lin
    if change:
        change(layer)
    for index, part in enumerate(parts):
        # In the order of our parts.
        tensor = part(layer)
        tensor.data = wave(1.0 + index, *tensor.shape)
    model.eval()
    with torch.no_grad():
        y = model(wave(0.3, ROWS, IN))
        merged = model.merge_and_unload().lin if name != "butterfly" else None
        if merged is not None:
            z = merged(wave(0.3, ROWS, IN))
            assert torch.allclose(y, z, atol=1e-5), (name, (y - z).abs().max())
    print(f"const {name.upper()}: [f32; 18] = {[round(float(v), 6) for v in y.flatten()]};")


def of(attribute, inner=None):
    def get(layer):
        value = getattr(layer, attribute)["default"]
        return value if inner is None else getattr(value, inner)

    return get


lin = {"target_modules": ["lin"]}
run("dora", LoraConfig(r=2, lora_alpha=3, use_dora=True, **lin),
    [of("lora_A", "weight"), of("lora_B", "weight"), of("lora_magnitude_vector", "weight")])
run("ia3_output", IA3Config(feedforward_modules=[], **lin), [of("ia3_l")])
run("ia3_input", IA3Config(feedforward_modules=["lin"], **lin), [of("ia3_l")])
run("loha", LoHaConfig(r=2, alpha=3, **lin), [of("hada_w1_a"), of("hada_w1_b"), of("hada_w2_a"), of("hada_w2_b")])
run("lokr_full", LoKrConfig(r=2, alpha=3, **lin), [of("lokr_w1"), of("lokr_w2")])
run("lokr_second", LoKrConfig(r=1, alpha=3, **lin), [of("lokr_w1"), of("lokr_w2_a"), of("lokr_w2_b")])
run("lokr_both", LoKrConfig(r=1, alpha=3, decompose_both=True, decompose_factor=4, **lin),
    [of("lokr_w1_a"), of("lokr_w1_b"), of("lokr_w2_a"), of("lokr_w2_b")])
run("oft_neumann", OFTConfig(oft_block_size=4, r=0, use_cayley_neumann=True, **lin), [of("oft_R", "weight")])
run("oft_exact", OFTConfig(oft_block_size=4, r=0, use_cayley_neumann=False, **lin), [of("oft_R", "weight")])
run("oft_shared", OFTConfig(oft_block_size=2, r=0, use_cayley_neumann=False, block_share=True, **lin),
    [of("oft_R", "weight")])
run("boft", BOFTConfig(boft_block_size=4, **lin), [of("boft_R"), of("boft_s")])

# PEFT multiplies butterflies only where its CUDA kernel was compiled; the kernel makes block diagonals.
import peft.tuners.boft.layer as boft  # noqa: E402

boft.get_fbd_cuda = lambda: True


class BlockDiagonals:
    @staticmethod
    def apply(blocks):
        return torch.stack([torch.block_diag(*each) for each in blocks])


boft.FastBlockDiag = BlockDiagonals
run("butterfly", BOFTConfig(boft_block_size=2, boft_n_butterfly_factor=3, **lin), [of("boft_R"), of("boft_s")])

vera = VeraConfig(r=2, **lin)


def shared(layer):
    # Larger than the layer, as with other layers beside it: sliced.
    layer.vera_A["default"] = wave(3.0, 2, IN + 2)
    layer.vera_B["default"] = wave(4.0, OUT + 1, 2)


run("vera", vera, [of("vera_lambda_b"), of("vera_lambda_d")], shared)
run("adalora", AdaLoraConfig(init_r=2, target_r=2, lora_alpha=3, total_step=10, **lin),
    [of("lora_A"), of("lora_E"), of("lora_B")])


def masks():
    """Which values PEFT's allocator of ranks keeps, for the numbers of crates/adapt/tests/forms/ranks.rs."""
    from types import SimpleNamespace

    from peft.tuners.adalora.layer import RankAllocator

    shapes = [(4, 3, 5), (6, 3, 4)]
    model = torch.nn.Module()
    for index, (out, r, inp) in enumerate(shapes):
        layer = torch.nn.Module()
        for name, shape in [("lora_A", (r, inp)), ("lora_E", (r, 1)), ("lora_B", (out, r))]:
            layer.add_module(name, torch.nn.ParameterDict({"default": torch.nn.Parameter(torch.zeros(shape))}))
        model.add_module(f"layer{index}", layer)
    total, last = 12, 3
    config = SimpleNamespace(beta1=0.85, beta2=0.75, target_r=1, tinit=2, tfinal=last, deltaT=2, total_step=total)
    allocator = RankAllocator(model, config, "default")

    def number(kind, step, layer, part, shape):
        phase = 1 + 5 * kind + 2.3 * step + 1.1 * layer + 0.7 * part
        values = [math.sin(phase + (0.9 + 0.05 * step) * k) for k in range(math.prod(shape))]
        return torch.tensor(values, dtype=torch.float64).float().reshape(shape)

    kept = None
    for step in range(1, total + 1):
        for layer in range(2):
            for part, name in enumerate(["lora_A", "lora_E", "lora_B"]):
                tensor = getattr(getattr(model, f"layer{layer}"), name)["default"]
                tensor.data = number(0, step, layer, part, tensor.shape)
                tensor.grad = number(1, step, layer, part, tensor.shape)
        # As AdaLoraModel.update_and_allocate calls it.
        if step <= total - last:
            _, pattern = allocator.update_and_allocate(model, step, force_mask=step == total - last)
            if pattern:
                print(step, [[int(x) for x in pattern[f"layer{i}.lora_E.default"]] for i in range(2)])


masks()
