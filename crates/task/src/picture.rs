//! Images with their classes: what is learned from, what is held out, and the batches of each epoch.

mod big_bench;
mod classes;
mod processor;
mod resample;

use rayon::prelude::*;

pub use big_bench::{Scored, image_scores};
pub use classes::Classes;
pub use processor::Processor;

use crate::error::TaskError;
use crate::split::Sample;

/// An image of 8 bits a channel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Picture {
    /// Row-major `[height, width, channels]`.
    pub pixels: Vec<u8>,
    /// Rows.
    pub height: usize,
    /// Columns.
    pub width: usize,
    /// 1 is grey, 3 is red, green and blue.
    pub channels: usize,
    /// Whether [`Processor::fitted`] made it: it has the size of an input.
    pub fitted: bool,
}

/// An image with the number of its class.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LabelledPicture {
    /// The image.
    pub picture: Picture,
    /// Its class: an index into [`Classes`].
    pub class: usize,
    /// Where it comes from: its file, or its number in one. For messages.
    pub place: String,
}

impl Sample for LabelledPicture {
    type Content = [u8];

    fn content(&self) -> &[u8] {
        &self.picture.pixels
    }
}

/// Images as a network takes them.
#[derive(Debug, Clone, PartialEq)]
pub struct PictureBatch {
    /// Row-major `[batch, channels, height, width]`, normalised.
    pub pixels: Vec<f32>,
    /// The class of each image.
    pub targets: Vec<i32>,
    /// Images.
    pub batch: usize,
    /// Rows of pixels.
    pub height: usize,
    /// Columns of pixels.
    pub width: usize,
}

impl PictureBatch {
    /// The batch of these images for a network with so many channels.
    ///
    /// # Errors
    /// [`TaskError::NoRecords`] without images; [`TaskError::Picture`] naming an image that the processor cannot take, or whose
    /// size is another than that of the first.
    pub fn of(
        pictures: &[&LabelledPicture],
        processor: &Processor,
        channels: usize,
    ) -> Result<PictureBatch, TaskError> {
        let made: Vec<_> = pictures.par_iter().map(|each| processor.input(&each.picture, channels)).collect();
        let [height, width] = PictureBatch::sides(pictures, processor, channels)?;
        let (mut pixels, mut targets) = (Vec::new(), Vec::with_capacity(pictures.len()));
        for (each, made) in pictures.iter().zip(made) {
            pixels.extend(made.map_err(|problem| each.refused(problem))?.0);
            targets.push(i32::try_from(each.class).unwrap_or(i32::MAX));
        }
        Ok(PictureBatch { pixels, targets, batch: pictures.len(), height, width })
    }

    /// Rows and columns of the inputs that these images become, one size for all; no pixel is looked at.
    ///
    /// # Errors
    /// As [`PictureBatch::of`].
    pub fn sides(
        pictures: &[&LabelledPicture],
        processor: &Processor,
        channels: usize,
    ) -> Result<[usize; 2], TaskError> {
        let mut first: Option<[usize; 2]> = None;
        for each in pictures {
            let [height, width] =
                processor.sides(&each.picture, channels).map_err(|problem| each.refused(problem))?;
            match first {
                Some([rows, columns]) if [rows, columns] != [height, width] => {
                    return Err(each.refused(format!(
                        "it is {height} x {width} and the images before it {rows} x {columns}, and the model's processor does not \
                         bring them to one size; resize them, or let preprocessor_config.json do it (do_resize, do_center_crop)"
                    )));
                }
                _ => first = Some([height, width]),
            }
        }
        first.ok_or(TaskError::NoRecords)
    }
}

impl LabelledPicture {
    fn refused(&self, problem: String) -> TaskError {
        TaskError::Picture { place: self.place.clone(), problem }
    }
}

#[cfg(test)]
mod tests;
