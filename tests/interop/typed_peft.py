"""Adapter folders of every kind that `lowrank-store` writes, loaded by PEFT; and those of PEFT, read and written again.

    typed_peft.py --fixtures DIR --work DIR

LOWRANK_TYPED_FOLDERS names the program `typed_folders`, an example of `lowrank-store` (run.sh builds it).

A row of ours passes when PEFT loads the folder without a warning, would save exactly the tensors of the file with the same values
(nothing missing, nothing passed over, nothing reshaped), and the adapter moves the logits. A row of PEFT's passes when the folder
that PEFT saves, read by us and written again, has the same tensors bit for bit and the same configuration.
"""

import json
import os
import subprocess
import sys
import warnings
from pathlib import Path

import torch
from peft import (AdaLoraConfig, BOFTConfig, IA3Config, LoHaConfig, LoKrConfig, LoraConfig, OFTConfig, PeftModel, VeraConfig,
                  get_peft_model, get_peft_model_state_dict)
from safetensors.torch import load_file

import program
from fixtures import load, logits_of
from report import Report, arguments

MODEL = "llama-gqa-tied"
MOVED = 1e-3
TARGETS = ["q_proj", "k_proj", "down_proj"]
THEIRS = {
    "IA3": IA3Config(target_modules=TARGETS, feedforward_modules=["down_proj"]),
    "LoHa": LoHaConfig(r=3, alpha=5, target_modules=TARGETS, rank_pattern={"k_proj": 2}, alpha_pattern={"q_proj": 3}),
    "LoKr": LoKrConfig(r=4, alpha=5, target_modules=TARGETS),
    "LoKr, both decomposed, near 4": LoKrConfig(r=2, alpha=5, target_modules=TARGETS, decompose_both=True, decompose_factor=4),
    "OFT by size": OFTConfig(oft_block_size=8, target_modules=TARGETS),
    "OFT by size that divides nothing": OFTConfig(oft_block_size=9, target_modules=TARGETS),
    "OFT by number, shared": OFTConfig(r=4, oft_block_size=0, block_share=True, target_modules=TARGETS),
    "BOFT by size": BOFTConfig(boft_block_size=4, target_modules=TARGETS),
    "BOFT by number, two factors asked": BOFTConfig(boft_block_size=0, boft_block_num=4, boft_n_butterfly_factor=2,
                                                    target_modules=TARGETS),
    "VeRA": VeraConfig(r=5, target_modules=TARGETS, layers_to_transform=[0, 2]),
    "AdaLoRA": AdaLoraConfig(init_r=6, target_r=3, total_step=10, lora_alpha=6, target_modules=TARGETS),
    "DoRA": LoraConfig(r=2, use_dora=True, target_modules=TARGETS),
}


def typed_folders(*arguments: object) -> None:
    done = subprocess.run([os.environ["LOWRANK_TYPED_FOLDERS"], *map(str, arguments)], capture_output=True, text=True)
    if done.returncode != 0:
        raise RuntimeError(done.stderr.strip())


def differences(ours: dict[str, torch.Tensor], theirs: dict[str, torch.Tensor]) -> list[str]:
    found = [f"only one side has {k}" for k in sorted(ours.keys() ^ theirs.keys())]
    for key in sorted(ours.keys() & theirs.keys()):
        a, b = ours[key], theirs[key]
        if a.shape != b.shape:
            found.append(f"{key} is {tuple(a.shape)}, not {tuple(b.shape)}")
        elif not torch.equal(a, b):
            found.append(f"{key} has other values")
    return found


def loaded_by_peft(base: Path, folder: Path, plain: torch.Tensor) -> tuple[list[str], float]:
    """What is wrong, and how far the adapter moves the logits."""
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        model = PeftModel.from_pretrained(load(base), folder).eval()
    # BOFT complains of a machine without its CUDA extension, where it takes one butterfly factor.
    told = [str(w.message)[:120] for w in said if issubclass(w.category, UserWarning)]
    found = [text for text in told if "CUDA extension" not in text and "boft_n_butterfly_factor to 1" not in text]
    file = load_file(folder / "adapter_model.safetensors")
    found += differences(file, get_peft_model_state_dict(model, save_embedding_layers=False))
    logits = logits_of(model, program.rows(base / "tokens.json"))
    return found, (logits - plain).abs().max().item()


def saved_by_peft(base: Path, config, work: Path) -> Path:
    torch.manual_seed(3)
    model = get_peft_model(load(base), config)
    with torch.no_grad():
        for key, tensor in model.named_parameters():
            if tensor.requires_grad:
                tensor.copy_(torch.randn_like(tensor) * 0.1)
    if isinstance(config, AdaLoraConfig):
        # As the pruning leaves it: some directions are gone, in one module all but one.
        keep = lambda name: [i % 3 != 1 for i in range(6)] if "q_proj" in name else [i == 2 for i in range(6)]
        names = [name for name, _ in model.base_model.model.named_parameters() if "lora_E" in name and "down_proj" not in name]
        model.peft_config["default"].rank_pattern = {name: keep(name) for name in names}
    out = work / "theirs"
    model.save_pretrained(out)
    return out


def main() -> int:
    args = arguments(__doc__)
    torch.set_num_threads(1)
    question = "Adapter folders of every kind: ours loaded by PEFT, PEFT's read and written again by us."
    report = Report("typed_peft", question, args.work)
    base, work = args.fixtures / MODEL, program.fresh(args.work / "typed_peft")
    plain = logits_of(load(base), program.rows(base / "tokens.json"))
    typed_folders("write", work / "ours")
    for folder in sorted((work / "ours").iterdir()):
        try:
            found, moved = loaded_by_peft(base, folder, plain)
            if moved <= MOVED:
                found.append(f"moves the logits by {moved:.1e} only")
            report.holds(f"ours in PEFT, {folder.name}", not found, "; ".join(found) or f"moves the logits by {moved:.2f}")
        except Exception as error:
            report.failed(f"ours in PEFT, {folder.name}", error)
    for name, config in THEIRS.items():
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                theirs = saved_by_peft(base, config, program.fresh(work / "saved"))
            again = work / "saved" / "again"
            typed_folders("again", theirs, again)
            found = differences(*(load_file(x / "adapter_model.safetensors") for x in (again, theirs)))
            ours, wanted = (json.loads((x / "adapter_config.json").read_text()) for x in (again, theirs))
            found += [f"config: {k} is {ours.get(k)!r}, not {wanted.get(k)!r}" for k in sorted(ours.keys() | wanted.keys())
                      if ours.get(k, "absent") != wanted.get(k, "absent")]
            report.holds(f"PEFT's by us, {name}", not found, "; ".join(found))
        except Exception as error:
            report.failed(f"PEFT's by us, {name}", error)
    return report.finish()


if __name__ == "__main__":
    sys.exit(main())
