use lowrank_record::Seed;
use serde_json::{Value, json};

use super::*;
use crate::{HeldOut, Pick, split};

/// The image of `tests/reference/pillow.py`.
fn picture(height: usize, width: usize, channels: usize) -> Picture {
    let pixels = (0..height * width * channels).map(|i| ((i * 73 + i * i * 11) % 256) as u8).collect();
    Picture { pixels, height, width, channels, fitted: false }
}

fn labelled(picture: Picture, class: usize) -> LabelledPicture {
    LabelledPicture { picture, class, place: format!("image {class}") }
}

fn vit() -> Value {
    json!({"image_processor_type": "ViTImageProcessor", "do_resize": true, "size": {"height": 6, "width": 4}, "resample": 2,
        "do_rescale": true, "rescale_factor": 1.0 / 255.0, "do_normalize": true, "image_mean": [0.5, 0.5, 0.5],
        "image_std": [0.5, 0.5, 0.5]})
}

#[test]
fn inputs_are_those_of_transformers() {
    let reference: Value = serde_json::from_str(include_str!("../../tests/reference/pillow.json")).unwrap();
    let mut checked = 0;
    for case in reference["inputs"].as_array().unwrap() {
        let list = |key: &str| serde_json::from_value::<Vec<usize>>(case[key].clone()).unwrap();
        let (from, to) = (list("from"), list("to"));
        let processor = Processor::from_json(&case["config"]).unwrap();
        let whole = picture(from[0], from[1], from[2]);
        let expected: Vec<f32> = serde_json::from_value(case["expected"].clone()).unwrap();
        // What is kept in memory gives the same input.
        for given in [whole.clone(), processor.fitted(whole).unwrap()] {
            let (found, sides) = processor.input(&given, 3).unwrap();
            assert_eq!(sides.as_slice(), &to[1..], "{}", case["config"]);
            assert_eq!(found.len(), expected.len());
            for (found, expected) in found.iter().zip(&expected) {
                // The reference has seven digits.
                assert!((found - expected).abs() <= 1e-6 * expected.abs().max(1.0), "{found} {expected}");
            }
        }
        checked += 1;
    }
    assert_eq!(checked, 10);
}

#[test]
fn grey_is_repeated_and_normalised_channel_by_channel() {
    let mut json = vit();
    (json["image_mean"], json["image_std"]) = (json!([0.0, 0.5, 1.0]), json!([1.0, 0.5, 0.25]));
    let processor = Processor::from_json(&json).unwrap();
    let (values, [height, width]) = processor.input(&picture(6, 4, 1), 3).unwrap();
    assert_eq!((height, width, values.len()), (6, 4, 72));
    let byte = f32::from(picture(6, 4, 1).pixels[5]) / 255.0;
    for (channel, (mean, deviation)) in [(0.0, 1.0), (0.5, 0.5), (1.0, 0.25)].into_iter().enumerate() {
        assert!((values[channel * 24 + 5] - (byte - mean) / deviation).abs() < 1e-6);
    }
    let (grey, _) = Processor::from_json(&json!({"do_resize": false, "do_normalize": false}))
        .unwrap()
        .input(&picture(2, 2, 1), 1)
        .unwrap();
    assert_eq!(grey[1], 84.0 / 255.0);
}

#[test]
fn what_a_processor_cannot_do_is_named_by_its_key() {
    for (key, value) in [
        ("resample", json!(0)),
        ("resample", Value::Null),
        ("size", json!({"longest_edge": 8})),
        ("size", json!({"height": 0, "width": 4})),
        ("size", json!({"height": 4, "width": 1 << 20})),
        ("size", Value::Null),
        ("image_mean", json!([0.5, 0.5])),
        ("image_mean", json!("NaN")),
        ("image_std", json!([0.5, 0.0, 0.5])),
        ("image_std", Value::Null),
        ("rescale_factor", json!(-1)),
        ("do_pad", json!(true)),
        ("do_resize", json!("yes")),
    ] {
        let mut json = vit();
        json[key] = value.clone();
        let said = Processor::from_json(&json).unwrap_err().to_string();
        assert!(said.contains(key) && said.contains("preprocessor_config.json"), "{key} = {value}: {said}");
    }
    // One number is a square, or the shorter side where the class of the processor says so.
    let mut old = vit();
    old["size"] = json!(4);
    assert_eq!(Processor::from_json(&old).unwrap().input(&picture(8, 16, 3), 3).unwrap().1, [4, 4]);
    old["feature_extractor_type"] = json!("BitFeatureExtractor");
    old["image_processor_type"] = Value::Null;
    assert_eq!(Processor::from_json(&old).unwrap().input(&picture(8, 16, 3), 3).unwrap().1, [4, 8]);
}

#[test]
fn images_that_do_not_fit_are_named() {
    let processor = Processor::from_json(&vit()).unwrap();
    let said = |pictures: &[LabelledPicture], processor: &Processor, channels| {
        PictureBatch::of(&pictures.iter().collect::<Vec<_>>(), processor, channels).unwrap_err().to_string()
    };
    let two = [labelled(picture(5, 7, 3), 0), labelled(picture(9, 3, 3), 1)];
    let batch = PictureBatch::of(&two.iter().collect::<Vec<_>>(), &processor, 3).unwrap();
    assert_eq!((batch.batch, batch.height, batch.width, batch.pixels.len()), (2, 6, 4, 144));
    assert_eq!(batch.targets, [0, 1]);
    let as_they_are = Processor::from_json(&json!({"do_resize": false, "do_normalize": false})).unwrap();
    let mixed = said(&two, &as_they_are, 3);
    assert!(mixed.contains("image 1") && mixed.contains("9 x 3") && mixed.contains("do_resize"), "{mixed}");
    assert!(said(&two, &processor, 1).contains("image 0: the image has 3 channels and the model takes 1"));
    let cut = LabelledPicture {
        picture: Picture { pixels: vec![0; 5], ..picture(5, 7, 3) },
        class: 0,
        place: "cut".to_owned(),
    };
    assert!(said(&[cut], &processor, 3).contains("cut: 5 bytes"));
    let mut small = vit();
    (small["do_center_crop"], small["crop_size"]) = (json!(true), json!({"height": 8, "width": 4}));
    assert!(said(&two, &Processor::from_json(&small).unwrap(), 3).contains("crop_size"));
    assert!(matches!(PictureBatch::of(&[], &processor, 3), Err(TaskError::NoRecords)));
}

#[test]
fn copies_of_an_image_are_held_out_together() {
    let all: Vec<LabelledPicture> =
        (0..20).map(|index| labelled(picture(2 + index % 5, 3, 3), index % 2)).collect();
    let sides = split(all, HeldOut::Count(3), Pick::Anywhere(Seed(2))).unwrap();
    assert_eq!(sides.held_out.len(), 4, "one image in four copies");
    assert!(sides.held_out.iter().all(|each| each.picture == sides.held_out[0].picture));
}
