//! A tiny vision transformer through the program: tuned with a new head and with its own, resumed, evaluated; and what it
//! cannot learn from is refused by name.
#![allow(clippy::unwrap_used)] // A failure here is a failure of the test.

mod program;

use program::{Folder, directory};
use serde_json::Value;

const QUICK: [&str; 6] = ["--batch", "8", "--rank", "2", "--rate", "0.02"];
const IMAGES: &str = "train-images-idx3-ubyte";

/// A 2 x 2 PNG of one grey, by Pillow 13.0.0; base64 of two greys for a BIG-bench task.
const PNGS: [&str; 2] = [
    "iVBORw0KGgoAAAANSUhEUgAAAAIAAAACCAAAAABX3VL4AAAADklEQVR4nGPUYGBiYAAAANoALB65A7cAAAAASUVORK5CYII=",
    "iVBORw0KGgoAAAANSUhEUgAAAAIAAAACCAAAAABX3VL4AAAADklEQVR4nGO8xMDEwAAABCwA1vhz4t8AAAAASUVORK5CYII=",
];

fn ready(labels: &[&str]) -> Folder {
    let folder = Folder::new();
    directory::vit(&folder.path().join("vit"), labels);
    directory::idx(folder.path(), "train", 48, 4);
    folder
}

/// Six steps unless others are asked for.
fn tune<'a>(more: &[&'a str]) -> Vec<&'a str> {
    let steps: &[&str] = if more.contains(&"--steps") { &[] } else { &["--steps", "6"] };
    [&["tune", "--model", "vit", "--data", IMAGES, "--held-out", "0.25"][..], &QUICK, steps, more].concat()
}

fn json(folder: &Folder, arguments: &[&str]) -> Value {
    serde_json::from_str(&folder.succeed(&[&["--json", "--quiet"], arguments].concat())).unwrap()
}

/// Whole files as text, to look for names in.
fn config(folder: &Folder, adapter: &str) -> Value {
    let path = folder.path().join(adapter).join("adapter_config.json");
    serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap()
}

fn tensors(folder: &Folder, adapter: &str) -> String {
    let bytes = std::fs::read(folder.path().join(adapter).join("adapter_model.safetensors")).unwrap();
    let length = u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
    String::from_utf8(bytes[8..8 + length].to_vec()).unwrap()
}

fn evaluated(folder: &Folder, more: &[&str]) -> Value {
    json(folder, &[&["eval", "--model", "vit", "--data", IMAGES], more].concat())
}

#[test]
fn a_new_head_is_trained_with_each_start_and_read_back() {
    let folder = ready(&[]);
    for method in ["lora", "eva", "lora-ga"] {
        let (out, run) = (format!("adapter-{method}"), format!("run-{method}"));
        let more = ["--method", method, "--steps", "120", "--out", &out, "--run", &run];
        let told = folder.tell(&tune(&more)).1;
        assert!(told.contains("the head is new, for 4 classes"), "{told}");
        assert!(
            told.contains("48 of 48 images, shown as 8 x 8; 4 classes: 0 12, 1 12, 2 12, 3 12"),
            "{told}"
        );
        assert_eq!(config(&folder, &out)["modules_to_save"], serde_json::json!(["classifier"]));
        let names = tensors(&folder, &out);
        for name in [
            "base_model.model.vit.layers.0.attention.q_proj.lora_A.weight",
            "base_model.model.classifier.weight",
        ] {
            assert!(names.contains(name), "{name} in {names}");
        }
        let found = evaluated(&folder, &["--adapter", &out]);
        // A bright corner of four: far better than guessing.
        let (accuracy, loss) = (found["score"]["value"].as_f64().unwrap(), found["loss"].as_f64().unwrap());
        assert!(accuracy > 0.6 && loss < 4.0_f64.ln(), "{method}: {found}");
    }
    folder.refuse(&["eval", "--model", "vit", "--data", IMAGES], 2, &["no head", "--adapter"]);
}

#[test]
fn a_head_of_the_file_is_kept_and_its_numbers_are_the_files() {
    let folder = ready(&["3", "2", "1", "0"]);
    let before = evaluated(&folder, &[]);
    let told = folder.tell(&tune(&["--steps", "30", "--out", "adapter"])).1;
    assert!(!told.contains("the head is new"), "{told}");
    let after = evaluated(&folder, &["--adapter", "adapter"]);
    let loss = |found: &Value| found["loss"].as_f64().unwrap();
    assert!(loss(&after) < loss(&before), "{before} {after}");
    // Fewer images, drawn from all over.
    let few =
        evaluated(&folder, &["--adapter", "adapter", "--limit", "9", "--dump-logits", "logits.safetensors"]);
    assert!(loss(&few).is_finite());
    let header = std::fs::read(folder.path().join("logits.safetensors")).unwrap();
    assert!(String::from_utf8_lossy(&header[..120]).contains("[9,4]"));
}

#[test]
fn a_run_that_is_gone_on_with_is_one_that_never_stopped() {
    let folder = ready(&[]);
    let run = |name: &'static str, resume: bool| {
        let fixed =
            ["--quiet", "--steps", "200", "--method", "lora-ga", "--checkpoint-every", "3", "--run", name];
        tune(&[&fixed[..], if resume { &["--resume"] } else { &[] }].concat())
    };
    folder.goes_on_as_if_never_stopped(run);
}

#[test]
fn folders_of_images_and_tasks_are_read() {
    let folder = ready(&[]);
    let bytes = |base64: &str| program::decoded(base64);
    for (class, png) in ["dark", "light"].iter().zip(PNGS) {
        let place = folder.path().join("photos").join(class);
        std::fs::create_dir_all(&place).unwrap();
        for index in 0..6 {
            std::fs::write(place.join(format!("{index}.png")), bytes(png)).unwrap();
        }
        std::fs::write(place.join(".hidden"), "left behind by a system").unwrap();
    }
    let example = |class: &str, png: &str| serde_json::json!({"input": png, "target_scores": {"dark": u8::from(class == "dark"), "light": u8::from(class == "light")}});
    let examples: Vec<Value> =
        (0..12).map(|index| example(["dark", "light"][index % 2], PNGS[index % 2])).collect();
    folder.file("task.json", &serde_json::json!({"name": "shade", "examples": examples}).to_string());
    for data in ["photos", "task.json"] {
        let out = format!("adapter-{}", &data[..4]);
        let arguments =
            ["tune", "--model", "vit", "--data", data, "--held-out", "0", "--out", &out, "--run", &out[8..]];
        let told = folder.tell(&[&arguments[..], &QUICK].concat()).1;
        assert!(told.contains("2 classes: dark 6, light 6"), "{data}: {told}");
    }
    // What stands among them is named.
    let damaged = folder.path().join("photos/dark/9.png");
    let whole = bytes(PNGS[0]);
    std::fs::write(&damaged, &whole[..whole.len() - 20]).unwrap();
    let on = |data: &'static str| [&["tune", "--model", "vit", "--data", data][..], &QUICK].concat();
    folder.refuse(&on("photos"), 2, &["9.png", "damaged PNG"]);
    std::fs::rename(&damaged, folder.path().join("photos/dark/9.gif")).unwrap();
    folder.refuse(&on("photos"), 2, &["9.gif", ".png, .jpg"]);
    std::fs::rename(folder.path().join("photos/dark/9.gif"), folder.path().join("photos/9.png")).unwrap();
    folder.refuse(&on("photos"), 2, &["9.png", "beside the class folders"]);
    std::fs::remove_file(folder.path().join("photos/9.png")).unwrap();
    std::fs::create_dir(folder.path().join("photos/empty")).unwrap();
    folder.refuse(&on("photos"), 2, &["empty", "a class without images"]);
    std::fs::remove_dir(folder.path().join("photos/empty")).unwrap();
    std::fs::remove_dir_all(folder.path().join("photos/dark")).unwrap();
    folder.refuse(&on("photos"), 2, &["one label", "light"]);
    std::fs::remove_dir_all(folder.path().join("photos/light")).unwrap();
    folder.refuse(&on("photos"), 2, &["photos", "no images"]);
}

#[test]
fn what_cannot_be_learned_from_is_refused() {
    let folder = ready(&[]);
    let on = |more: &[&'static str]| tune(&[&["--out", "never"], more].concat());
    folder.refuse(&on(&["--task", "classification"]), 2, &["--task is for encoders", "vit"]);
    folder.refuse(&on(&["--format", "plain"]), 2, &["--format", "vision transformer"]);
    folder.refuse(&on(&["--recompute", "blocks"]), 2, &["--recompute", "vision transformer"]);
    folder.refuse(&on(&["--targets", "classifier"]), 2, &["classifier", "trained whole"]);
    folder.refuse(&["tune", "--model", "vit", "--data", "none"], 2, &["none"]);
    folder.refuse(&["tune", "--model", "vit"], 2, &["--data"]);
    let labels = folder.path().join("train-labels-idx1-ubyte");
    let kept = std::fs::read(&labels).unwrap();
    std::fs::write(&labels, &kept[..kept.len() - 1]).unwrap();
    folder.refuse(&on(&[]), 2, &["train-labels-idx1-ubyte", "47 bytes where the header says 48"]);
    std::fs::remove_file(&labels).unwrap();
    folder.refuse(&on(&[]), 2, &["no labels beside it", "train-labels-idx1-ubyte"]);
    std::fs::write(&labels, &kept).unwrap();
    let processor = folder.path().join("vit/preprocessor_config.json");
    let json = std::fs::read_to_string(&processor).unwrap();
    std::fs::write(&processor, json.replace("[0.5,0.5,0.5]", "[0.5,null,0.5]")).unwrap();
    folder.refuse(&on(&[]), 2, &["image_mean", "1 or 3 numbers"]);
    std::fs::write(&processor, json.replace("\"height\":8", "\"height\":10")).unwrap();
    folder.refuse(&on(&[]), 2, &["10 x 8", "multiples of the patch"]);
    std::fs::remove_file(&processor).unwrap();
    folder.refuse(&on(&[]), 2, &["preprocessor_config.json"]);
    assert!(!folder.path().join("never").exists());
}
