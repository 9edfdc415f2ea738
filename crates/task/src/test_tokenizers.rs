//! Small tokenizers for tests, built in memory.

use crate::tokenizer::{GgufVocabulary, Tokenizer};

/// The template most small chat models use.
pub const CHATML: &str = "{% for message in messages %}{{'<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n'}}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}";

/// The character that stands for a byte in byte-level vocabularies: itself when printable, else one from U+0100 on.
fn byte_letters() -> Vec<String> {
    let mut next = 0x100;
    let mut letter = |byte: u32| {
        let printable =
            (0x21..=0x7e).contains(&byte) || (0xa1..=0xac).contains(&byte) || (0xae..=0xff).contains(&byte);
        let code = if printable { byte } else { next };
        next += u32::from(!printable);
        char::from_u32(code).unwrap().to_string()
    };
    (0..256).map(&mut letter).collect()
}

/// 256 bytes and three control tokens, no merges.
pub fn gguf_bytes() -> GgufVocabulary {
    let mut tokens = byte_letters();
    tokens.extend(["<|endoftext|>", "<|im_start|>", "<|im_end|>"].map(str::to_owned));
    let mut types = vec![1; 256];
    types.extend([3, 3, 3]);
    GgufVocabulary {
        model: "gpt2".to_owned(),
        pre: "smollm".to_owned(),
        tokens,
        types,
        bos: Some(256),
        eos: vec![258],
        chat_template: Some(CHATML.to_owned()),
        ..GgufVocabulary::default()
    }
}

/// Bytes and SentencePiece pieces with scores.
pub fn gguf_pieces() -> GgufVocabulary {
    let mut tokens = vec!["<unk>".to_owned(), "<s>".to_owned(), "</s>".to_owned()];
    let mut types = vec![2, 3, 3];
    tokens.extend((0..256).map(|byte| format!("<0x{byte:02X}>")));
    types.extend([6; 256]);
    let mut scores = vec![0.0; tokens.len()];
    for (piece, score) in [("ab", -1.0), ("▁a", -2.0), ("▁", -4.0), ("a", -5.0), ("b", -6.0)] {
        tokens.push(piece.to_owned());
        types.push(1);
        scores.push(score);
    }
    GgufVocabulary {
        model: "llama".to_owned(),
        tokens,
        types,
        scores,
        bos: Some(1),
        eos: vec![2],
        unknown: Some(0),
        ..GgufVocabulary::default()
    }
}

/// One token a byte.
pub fn bytes() -> Tokenizer {
    Tokenizer::from_gguf(&gguf_bytes()).unwrap()
}

/// Byte-level BPE with some merges, of letters, spaces and line ends.
pub fn gguf_merged() -> GgufVocabulary {
    let mut vocabulary = gguf_bytes();
    let merges = [
        "h e", "l l", "he ll", "Ġ w", "o r", "Ġw or", "l d", "Ċ Ċ", "Ġ Ġ", "e r", "i s", "Ã ©", ". Ċ", "d Ċ",
        "Ċ h",
    ];
    for merge in merges {
        vocabulary.tokens.push(merge.replace(' ', ""));
        vocabulary.types.push(1);
        vocabulary.merges.push(merge.to_owned());
    }
    vocabulary
}

/// The tokenizer of [`gguf_merged`].
pub fn merged() -> Tokenizer {
    Tokenizer::from_gguf(&gguf_merged()).unwrap()
}

/// SentencePiece with a space before every text.
pub fn pieces() -> Tokenizer {
    Tokenizer::from_gguf(&gguf_pieces()).unwrap()
}

/// One token a word, between `[CLS]` and `[SEP]`, as encoders read texts.
pub fn words() -> Tokenizer {
    let mut vocabulary = serde_json::Map::new();
    let special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"];
    let letters = ('a'..='z').map(|letter| letter.to_string());
    for (id, token) in special.iter().map(|token| (*token).to_owned()).chain(letters).enumerate() {
        vocabulary.insert(token, id.into());
    }
    let added: Vec<serde_json::Value> = special
        .iter()
        .enumerate()
        .map(|(id, token)| {
            serde_json::json!({"id": id, "content": token, "single_word": false, "lstrip": false, "rstrip": false,
                "normalized": false, "special": true})
        })
        .collect();
    let piece =
        |token: &str, segment: u32| serde_json::json!({"SpecialToken": {"id": token, "type_id": segment}});
    let text = |name: &str, segment: u32| serde_json::json!({"Sequence": {"id": name, "type_id": segment}});
    let of = |token: &str, id: u32| serde_json::json!({"id": token, "ids": [id], "tokens": [token]});
    let document = serde_json::json!({
        "version": "1.0", "truncation": null, "padding": null, "added_tokens": added, "normalizer": null,
        "pre_tokenizer": {"type": "WhitespaceSplit"},
        "post_processor": {"type": "TemplateProcessing",
            "single": [piece("[CLS]", 0), text("A", 0), piece("[SEP]", 0)],
            "pair": [piece("[CLS]", 0), text("A", 0), piece("[SEP]", 0), text("B", 1), piece("[SEP]", 1)],
            "special_tokens": {"[CLS]": of("[CLS]", 2), "[SEP]": of("[SEP]", 3)}},
        "decoder": null,
        "model": {"type": "WordLevel", "vocab": vocabulary, "unk_token": "[UNK]"},
    });
    Tokenizer::from_json(document.to_string().as_bytes()).unwrap()
}
