//! What a finished run did to its layers, through the program: plain LoRA, a start that is taken back, and what is refused.
#![allow(clippy::unwrap_used)] // A failure here is a failure of the test.

mod program;

use program::{Folder, records};
use serde_json::Value;

const TUNE: [&str; 12] = [
    "--quiet",
    "tune",
    "--data",
    "data.jsonl",
    "--max-length",
    "32",
    "--layers",
    "0-1",
    "--rank",
    "4",
    "--steps",
    "6",
];

fn looked_at(folder: &Folder, run: &str) -> Value {
    let text = folder.succeed(&["--json", "--quiet", "regime", "--run", run, "--calibration", "4"]);
    serde_json::from_str(&text).unwrap()
}

#[test]
fn a_run_tells_how_far_and_along_what_it_learned() {
    let folder = Folder::new();
    folder.file("data.jsonl", &records());
    for (init, more) in [("kaiming", &[][..]), ("pissa", &["--rate", "1e-3"][..])] {
        folder.succeed(&[&TUNE[..], &["--init", init, "--run", init], more].concat());
        let found = looked_at(&folder, init);
        let sites = found["sites"].as_array().unwrap();
        assert_eq!(sites.len(), 14, "{init}");
        for site in sites {
            let number = |name: &str| site[name].as_f64();
            let moved = number("relative_change").unwrap();
            assert!(moved > 0.0 && moved < 1.0, "{init}: {site}");
            let rank = site["change"]["effective_rank"].as_f64().unwrap();
            // A start that is taken back leaves a change of twice its rank at most.
            assert!((1.0 - 1e-9..=if init == "pissa" { 8.0 } else { 4.0 } + 1e-9).contains(&rank), "{site}");
            // The first layer is fed the embeddings, which nothing changes before it.
            let aligned = number("input_alignment").unwrap();
            assert!(aligned > 0.0 && aligned <= 1.0, "{site}");
            if ["layers.0.self_attn.q_proj", "layers.0.self_attn.v_proj"]
                .iter()
                .any(|name| site["name"].as_str().unwrap().ends_with(name))
            {
                assert!(aligned > 1.0 - 1e-9, "{site}");
            }
            assert!(number("right_overlap").unwrap() <= 1.0 + 1e-9, "{site}");
            assert_eq!(site["start"].is_null(), init == "kaiming", "{site}");
            assert_eq!(site["left_overlap"].is_null(), init == "kaiming", "{site}");
        }
        let page = std::fs::read_to_string(folder.path().join(init).join("regime.html")).unwrap();
        assert!(page.contains("Where the weights moved") && page.contains("<svg"));
    }
    // Told as a table, too, no wider than a terminal where names allow.
    let shown = folder.succeed(&["--quiet", "regime", "--run", "kaiming", "--calibration", "4"]);
    assert!(shown.contains("The weights moved by") && shown.contains("q_proj"), "{shown}");
}

#[test]
fn what_is_no_run_is_refused_by_name() {
    let folder = Folder::new();
    folder.file("data.jsonl", &records());
    folder.refuse(&["regime", "--run", "nowhere"], 2, &["holds no recipe.toml"]);
    folder.file("recipe.toml", "methods = 3\n");
    folder.refuse(&["regime", "--run", "."], 2, &["not the recipe of a `lowrank tune`"]);
    folder.succeed(&[&TUNE[..], &["--method", "ia3", "--run", "ia3"]].concat());
    folder.refuse(&["regime", "--run", "ia3"], 2, &["no LoRA adapter"]);
    folder.refuse(&["regime", "--run", "ia3", "--tokens", "0"], 2, &["--tokens 0"]);
    folder.refuse(&["regime", "--run", "ia3", "--adapter", "none"], 2, &["no adapter at none"]);
}
