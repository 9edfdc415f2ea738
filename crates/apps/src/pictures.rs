//! From the user's images to pictures with classes: a folder of class folders, an IDX file, or a BIG-bench task.

use std::path::{Path, PathBuf};

use lowrank_record::Seed;
use lowrank_store::{image, json};
use lowrank_task::{Classes, LabelledPicture, Picture, Processor, TaskError, image_scores};

use crate::AppError;
use lowrank_command::Because;

/// Images with their classes.
pub(crate) struct Pictures {
    /// In the order of the folder or file.
    pub(crate) records: Vec<LabelledPicture>,
    /// Their classes, by number.
    pub(crate) classes: Classes,
    /// Images that are there, of which `records` may be a part.
    pub(crate) found: usize,
}

/// An image that was found and not yet decoded.
struct Found<'a> {
    class: &'a str,
    place: String,
    image: Source<'a>,
}

enum Source<'a> {
    File(PathBuf),
    Base64(&'a str),
    Bytes(&'a [u8], [usize; 2]),
}

/// Reads images. Of more than `limit` (0 is all) as many are drawn by the seed from all over the data, which is often sorted by
/// class; the classes are those of all. Images are kept in memory as bytes, in the size of an input where that is the smaller.
///
/// # Errors
/// [`AppError::Usage`] naming the folder, file or image that cannot be used.
pub(crate) fn read(
    path: &Path,
    limit: usize,
    processor: &Processor,
    seed: Seed,
) -> Result<Pictures, AppError> {
    if path.is_dir() {
        let files = class_folders(path)?;
        let found = files.iter().map(|(class, file)| Found {
            class,
            place: file.display().to_string(),
            image: Source::File(file.clone()),
        });
        return decode(path, found.collect(), limit, processor, seed);
    }
    if is_idx(path) {
        return of_idx(path, limit, processor, seed);
    }
    let name = path.display();
    if !path.is_file() {
        return Err(AppError::usage(format!("no folder or file of images at {name}")));
    }
    if path.extension().is_none_or(|extension| extension != "json") {
        return Err(AppError::usage(format!(
            "{name} holds no images that are read; give a folder with a folder of PNG or JPEG files for each class, an IDX file \
             (train-images-idx3-ubyte, its labels beside it), or a BIG-bench task.json whose inputs are images"
        )));
    }
    let task = json::read(path).input("reading the data")?;
    let scored = image_scores(&task).input(&name)?;
    let found = scored.iter().map(|each| Found {
        class: each.class,
        place: format!("{name}, example {}", each.number),
        image: Source::Base64(each.base64),
    });
    decode(path, found.collect(), limit, processor, seed)
}

const IMAGES: &str = "images-idx3-ubyte";
const LABELS: &str = "labels-idx1-ubyte";

fn is_idx(path: &Path) -> bool {
    let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    name.contains("-ubyte") && !path.is_dir()
}

/// An IDX file of grey images and the one of labels beside it.
fn of_idx(path: &Path, limit: usize, processor: &Processor, seed: Seed) -> Result<Pictures, AppError> {
    let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    if !name.contains(IMAGES) {
        return Err(AppError::usage(format!(
            "{}: give the file of the images (its name holds {IMAGES}); the labels are found beside it",
            path.display()
        )));
    }
    // One may be compressed and the other not.
    let plain = name.replace(IMAGES, LABELS);
    let plain = plain.strip_suffix(".gz").unwrap_or(&plain);
    let beside = [plain.to_owned(), format!("{plain}.gz")].map(|name| path.with_file_name(name));
    let Some(labels_path) = beside.iter().find(|file| file.is_file()) else {
        return Err(AppError::usage(format!(
            "{}: no labels beside it; there should be {plain}, or the same with .gz",
            path.display()
        )));
    };
    let images = image::idx::read(path).input("reading the images")?;
    let labels = image::idx::read(labels_path).input("reading the labels")?;
    let (&[count, height, width], &[labelled]) = (images.shape.as_slice(), labels.shape.as_slice()) else {
        return Err(AppError::usage(format!(
            "{}: axes {:?} with labels {:?}; images have three axes and labels one",
            path.display(),
            images.shape,
            labels.shape
        )));
    };
    if count != labelled {
        return Err(AppError::usage(format!(
            "{}: {count} images, and {labelled} labels in {}; they do not belong together",
            path.display(),
            labels_path.display()
        )));
    }
    let classes: Vec<String> = (0..=255_u8).map(|label| label.to_string()).collect();
    let each = images.values.chunks_exact(height * width).zip(&labels.values).zip(0_usize..);
    let found = each.map(|((bytes, &label), index)| Found {
        class: &classes[usize::from(label)],
        place: format!("{}, image {index}", path.display()),
        image: Source::Bytes(bytes, [height, width]),
    });
    decode(path, found.collect(), limit, processor, seed)
}

/// The files of each class, by the names of folder and file. Hidden files are what systems leave behind.
fn class_folders(path: &Path) -> Result<Vec<(String, PathBuf)>, AppError> {
    let listed = |folder: &Path| -> Result<Vec<PathBuf>, AppError> {
        let entries = std::fs::read_dir(folder).input(format!("reading {}", folder.display()))?;
        let mut paths = Vec::new();
        for entry in entries {
            let entry = entry.input(format!("reading {}", folder.display()))?;
            if !entry.file_name().to_string_lossy().starts_with('.') {
                paths.push(entry.path());
            }
        }
        paths.sort();
        Ok(paths)
    };
    let mut all = Vec::new();
    for folder in listed(path)? {
        let name = folder.display();
        if !folder.is_dir() {
            return Err(AppError::usage(format!(
                "{name} stands beside the class folders; put it into the folder of its class (IDX files are given by name)"
            )));
        }
        let class = folder.file_name().and_then(|name| name.to_str());
        let class =
            class.ok_or_else(|| AppError::usage(format!("{name}: the name of a class must be UTF-8")))?;
        let files = listed(&folder)?;
        if files.is_empty() {
            return Err(AppError::usage(format!("{name}: a class without images; remove the folder")));
        }
        for file in files {
            let extension = file.extension().and_then(|extension| extension.to_str()).unwrap_or_default();
            if !matches!(extension.to_ascii_lowercase().as_str(), "png" | "jpg" | "jpeg") {
                return Err(AppError::usage(format!(
                    "{}: neither .png, .jpg nor .jpeg; convert or remove it",
                    file.display()
                )));
            }
            all.push((class.to_owned(), file));
        }
    }
    Ok(all)
}

fn decode(
    path: &Path,
    found: Vec<Found<'_>>,
    limit: usize,
    processor: &Processor,
    seed: Seed,
) -> Result<Pictures, AppError> {
    let classes = Classes::of(found.iter().map(|each| each.class)).map_err(|error| match error {
        TaskError::NoRecords => AppError::usage(format!("{}: no images", path.display())),
        other => AppError::usage(format!("{}: {other}", path.display())),
    })?;
    let all = found.len();
    let mut chosen: Vec<usize> = (0..all).collect();
    if limit > 0 && limit < all {
        chosen = seed.at("data", "limit").permutation(all);
        chosen.truncate(limit);
        chosen.sort_unstable();
    }
    let mut records = Vec::with_capacity(chosen.len());
    for index in chosen {
        let Found { class, place, image } = &found[index];
        let decoded = match image {
            Source::File(file) => image::read(file).input("reading the images")?,
            Source::Base64(text) => image::decode_base64(text).input(place)?,
            Source::Bytes(bytes, [height, width]) => {
                image::Image { pixels: bytes.to_vec(), height: *height, width: *width, channels: 1 }
            }
        };
        let image::Image { pixels, height, width, channels } = decoded;
        let picture = Picture { pixels, height, width, channels, fitted: false };
        let picture = processor.fitted(picture).input(place)?;
        // Every class of the data is one of its classes.
        let class = classes.number(class).unwrap_or_default();
        records.push(LabelledPicture { picture, class, place: place.clone() });
    }
    Ok(Pictures { records, classes, found: all })
}

/// Hash of images and the numbers of their classes in their order: what a run was trained on.
pub(crate) fn hash<'a>(images: impl Iterator<Item = &'a LabelledPicture>) -> String {
    let mut all = String::new();
    for each in images {
        let Picture { pixels, height, width, channels, .. } = &each.picture;
        let one = lowrank_store::hash::of_bytes(pixels);
        all += &format!("{height} {width} {channels} {} {one}\n", each.class);
    }
    lowrank_store::hash::of_bytes(all.as_bytes())
}
