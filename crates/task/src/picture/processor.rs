//! What a vision model wants done to an image: the `preprocessor_config.json` beside its weights.

use serde_json::Value;

use super::Picture;
use super::resample::{Filter, resize};
use crate::error::TaskError;

/// Sides up to which images are resized: an input of a network is far smaller.
const LONGEST: u64 = 1 << 13;

/// Resizing, cropping, scaling and normalising as the image processors of ViT, DeiT and BiT (which DINOv2 takes) in
/// `transformers` do it, with Pillow's way of resizing (its faster processors differ from that by a rounding here and there).
#[derive(Debug, Clone, PartialEq)]
pub struct Processor {
    resize: Option<(Target, Filter)>,
    /// Rows and columns that are cut out of the middle.
    crop: Option<[usize; 2]>,
    rescale: f64,
    /// A mean and a deviation for each channel, or one for all.
    normalise: Option<(Vec<f64>, Vec<f64>)>,
}

/// What an image is resized to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Target {
    /// Rows and columns, whatever the proportions.
    Exact([usize; 2]),
    /// The shorter side; the longer one in proportion.
    Shorter(usize),
}

fn wrong(key: &'static str, problem: impl Into<String>) -> TaskError {
    TaskError::Processor { key, problem: problem.into() }
}

/// A key's value; `null` counts as absent.
fn get<'a>(json: &'a Value, key: &str) -> Option<&'a Value> {
    json.get(key).filter(|value| !value.is_null())
}

fn need<'a>(json: &'a Value, key: &'static str) -> Result<&'a Value, TaskError> {
    get(json, key).ok_or_else(|| wrong(key, "is missing"))
}

fn flag(json: &Value, key: &'static str, default: bool) -> Result<bool, TaskError> {
    get(json, key).map_or(Ok(default), |value| {
        value.as_bool().ok_or_else(|| wrong(key, format!("is {value}; it should be true or false")))
    })
}

fn side(key: &'static str, value: &Value) -> Result<usize, TaskError> {
    match value.as_u64() {
        Some(side) if (1..=LONGEST).contains(&side) => Ok(side as usize),
        _ => Err(wrong(
            key,
            format!("holds the side {value}; it should be a whole number from 1 to {LONGEST}"),
        )),
    }
}

/// `{"height", "width"}`, `{"shortest_edge"}`, or one number as older files have it.
fn target(json: &Value, key: &'static str, one_is_shorter: bool) -> Result<Target, TaskError> {
    let value = need(json, key)?;
    if value.is_number() {
        let side = side(key, value)?;
        return Ok(if one_is_shorter { Target::Shorter(side) } else { Target::Exact([side; 2]) });
    }
    match (get(value, "height"), get(value, "width"), get(value, "shortest_edge"), get(value, "longest_edge"))
    {
        (Some(height), Some(width), None, None) => Ok(Target::Exact([side(key, height)?, side(key, width)?])),
        (None, None, Some(shorter), None) => Ok(Target::Shorter(side(key, shorter)?)),
        _ => Err(wrong(key, format!("is {value}; supported are height and width, or shortest_edge alone"))),
    }
}

/// A number for each channel, or one for all; a deviation must not be 0.
fn numbers(json: &Value, key: &'static str, zero: bool) -> Result<Vec<f64>, TaskError> {
    let value = need(json, key)?;
    let list = value.as_array().map_or(std::slice::from_ref(value), Vec::as_slice);
    let numbers: Option<Vec<f64>> = list.iter().map(Value::as_f64).collect();
    let good = |numbers: &[f64]| {
        matches!(numbers.len(), 1 | 3) && numbers.iter().all(|n| n.is_finite() && (zero || *n > 0.0))
    };
    let what = if zero { "numbers" } else { "positive numbers" };
    numbers
        .filter(|numbers| good(numbers))
        .ok_or_else(|| wrong(key, format!("is {value}; it should be 1 or 3 {what}")))
}

impl Processor {
    /// Reads a parsed `preprocessor_config.json`.
    ///
    /// # Errors
    /// [`TaskError::Processor`] naming the key that is missing or cannot be followed.
    pub fn from_json(json: &Value) -> Result<Processor, TaskError> {
        let kind = get(json, "image_processor_type").or_else(|| get(json, "feature_extractor_type"));
        let kind = kind.and_then(Value::as_str).unwrap_or_default();
        let resize = if flag(json, "do_resize", true)? {
            let filter = match get(json, "resample").map(|value| (value.as_u64(), value)) {
                Some((Some(1), _)) => Filter::Lanczos,
                Some((Some(2), _)) => Filter::Bilinear,
                Some((Some(3), _)) => Filter::Bicubic,
                Some((_, other)) => {
                    let known = "supported are 1 (Lanczos), 2 (bilinear) and 3 (bicubic)";
                    return Err(wrong("resample", format!("is {other}; {known}")));
                }
                None => return Err(wrong("resample", "is missing")),
            };
            Some((target(json, "size", kind.starts_with("Bit"))?, filter))
        } else {
            None
        };
        let crop = if flag(json, "do_center_crop", false)? {
            match target(json, "crop_size", false)? {
                Target::Exact(sides) => Some(sides),
                Target::Shorter(_) => {
                    return Err(wrong("crop_size", "names shortest_edge; give height and width"));
                }
            }
        } else {
            None
        };
        if flag(json, "do_pad", false)? {
            return Err(wrong("do_pad", "is true; padding of images is not supported"));
        }
        let rescale = if flag(json, "do_rescale", true)? {
            // Files of version 4.20 and before do not say it.
            let factor = get(json, "rescale_factor").map_or(Some(1.0 / 255.0), Value::as_f64);
            factor.filter(|factor| factor.is_finite() && *factor > 0.0).ok_or_else(|| {
                wrong(
                    "rescale_factor",
                    format!("is {}; it should be a positive number", json["rescale_factor"]),
                )
            })?
        } else {
            1.0
        };
        let normalise = if flag(json, "do_normalize", true)? {
            Some((numbers(json, "image_mean", true)?, numbers(json, "image_std", false)?))
        } else {
            None
        };
        Ok(Processor { resize, crop, rescale, normalise })
    }

    /// Rows and columns of the input that an image of this size becomes.
    fn targets(&self, height: usize, width: usize) -> ([usize; 2], [usize; 2]) {
        let resized = match self.resize {
            None => [height, width],
            Some((Target::Exact(sides), _)) => sides,
            Some((Target::Shorter(shorter), _)) => {
                // Whole numbers throughout: `int(size * long / short)` of Python.
                if width <= height {
                    [shorter * height / width, shorter]
                } else {
                    [shorter, shorter * width / height]
                }
            }
        };
        (resized, self.crop.unwrap_or(resized))
    }

    /// Rows and columns of the input that an image becomes, checked in all that [`Processor::input`] needs.
    ///
    /// # Errors
    /// What is wrong with it, without its place.
    pub fn sides(&self, picture: &Picture, channels: usize) -> Result<[usize; 2], String> {
        if picture.channels != 1 && picture.channels != channels {
            return Err(format!(
                "the image has {} channels and the model takes {channels}",
                picture.channels
            ));
        }
        if let Some((means, deviations)) = &self.normalise
            && let Some(other) =
                [means, deviations].into_iter().find(|list| ![1, channels].contains(&list.len()))
        {
            return Err(format!(
                "preprocessor_config.json normalises {} channels and the model takes {channels}",
                other.len()
            ));
        }
        Ok(self.fit_sides(picture)?.1)
    }

    /// What an image is resized and cropped to.
    fn fit_sides(&self, picture: &Picture) -> Result<([usize; 2], [usize; 2]), String> {
        let Picture { height, width, channels, .. } = *picture;
        if picture.pixels.is_empty() || picture.pixels.len() != height * width * channels {
            return Err(format!(
                "{} bytes are no image of {height} x {width} x {channels}",
                picture.pixels.len()
            ));
        }
        if picture.fitted {
            return Ok(([height, width], [height, width]));
        }
        let (resized, cropped) = self.targets(height, width);
        if resized.iter().any(|&side| side as u64 > LONGEST) {
            return Err(format!("{height} x {width} would become {} x {}; crop it", resized[0], resized[1]));
        }
        if cropped[0] > resized[0] || cropped[1] > resized[1] {
            return Err(format!(
                "{} x {} is smaller than crop_size, {} x {}, which the processor would fill up with black",
                resized[0], resized[1], cropped[0], cropped[1]
            ));
        }
        Ok((resized, cropped))
    }

    /// The image resized and cropped, its bytes not yet normalised.
    fn fit(&self, picture: &Picture) -> Result<Picture, String> {
        let Picture { height, width, channels, .. } = *picture;
        let (resized, cropped) = self.fit_sides(picture)?;
        let mut pixels = match self.resize {
            Some((_, filter)) => resize(&picture.pixels, channels, [height, width], resized, filter),
            None => picture.pixels.clone(),
        };
        if cropped != resized {
            let [top, left] = [(resized[0] - cropped[0]) / 2, (resized[1] - cropped[1]) / 2];
            let rows = pixels.chunks_exact(resized[1] * channels).skip(top).take(cropped[0]);
            pixels = rows.flat_map(|row| &row[left * channels..][..cropped[1] * channels]).copied().collect();
        }
        Ok(Picture { pixels, height: cropped[0], width: cropped[1], channels, fitted: true })
    }

    /// The image in whichever size takes fewer bytes, its own or that of the input: what to keep in memory.
    ///
    /// # Errors
    /// What is wrong with it, without its place.
    pub fn fitted(&self, picture: Picture) -> Result<Picture, String> {
        let (_, [height, width]) = self.targets(picture.height.max(1), picture.width.max(1));
        if height * width <= picture.height * picture.width { self.fit(&picture) } else { Ok(picture) }
    }

    /// An image as a network with so many channels takes it, row-major `[channels, height, width]`, with height and width. Grey is
    /// repeated for each colour.
    ///
    /// # Errors
    /// What is wrong with it, without its place.
    pub fn input(&self, picture: &Picture, channels: usize) -> Result<(Vec<f32>, [usize; 2]), String> {
        self.sides(picture, channels)?;
        let made;
        let picture = if picture.fitted {
            picture
        } else {
            made = self.fit(picture)?;
            &made
        };
        let mut values = Vec::with_capacity(channels * picture.height * picture.width);
        for channel in 0..channels {
            // One for all, or one for each: they were counted.
            let of = |list: &[f64]| list.get(channel).or(list.first()).copied().unwrap_or(0.0);
            let (mean, deviation) = match &self.normalise {
                Some((means, deviations)) => (of(means), of(deviations)),
                None => (0.0, 1.0),
            };
            // All 256 answers once, rounded where numpy rounds: after the scale, and after each step from there.
            let table: Vec<f32> = (0..=255_u8)
                .map(|byte| {
                    let scaled = (f64::from(byte) * self.rescale) as f32;
                    if self.normalise.is_some() { (scaled - mean as f32) / deviation as f32 } else { scaled }
                })
                .collect();
            let at = if picture.channels == 1 { 0 } else { channel };
            let bytes = picture.pixels.iter().skip(at).step_by(picture.channels);
            values.extend(bytes.map(|&byte| table[usize::from(byte)]));
        }
        Ok((values, [picture.height, picture.width]))
    }
}
