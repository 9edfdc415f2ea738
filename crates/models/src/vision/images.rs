//! What a vision transformer is fed, and what it should answer.

use lowrank_tensor::ops::Targets;

use super::Config;
use crate::{ModelError, network};

/// Images of one size, their pixels normalised as the model's processor says.
#[derive(Debug, Clone, PartialEq)]
pub struct Images {
    /// Row-major `[batch, channels, height, width]`.
    pub pixels: Vec<f32>,
    /// Images.
    pub batch: usize,
    /// Rows of pixels.
    pub height: usize,
    /// Columns of pixels.
    pub width: usize,
}

/// One batch to learn from.
#[derive(Debug, Clone)]
pub struct Batch {
    /// The images.
    pub images: Images,
    /// The class of each.
    pub targets: Targets,
}

impl Config {
    /// Tokens and patches that the network makes of an image of this size.
    ///
    /// # Errors
    /// [`ModelError::Image`] where a patch would be cut, or the positions of the model cannot be spread over the patches.
    pub fn tokens(&self, [height, width]: [usize; 2]) -> Result<usize, ModelError> {
        let [rows, columns] = self.grid_of([height, width])?;
        Ok(self.family.tokens() + rows * columns)
    }

    /// Rows and columns of patches, as [`Config::tokens`].
    fn grid_of(&self, [height, width]: [usize; 2]) -> Result<[usize; 2], ModelError> {
        let [rows, columns] = self.patch;
        let refused = |problem: String| ModelError::Image { height, width, problem };
        if height == 0 || width == 0 || !height.is_multiple_of(rows) || !width.is_multiple_of(columns) {
            return Err(refused(format!("its sides must be multiples of the patch's, {rows} x {columns}")));
        }
        let (grid, trained) = ([height / rows, width / columns], self.grid());
        // transformers takes the square root of the number of positions for both sides.
        if grid != trained && trained[0] != trained[1] {
            return Err(refused(format!(
                "the model was trained on {} x {}, and positions are interpolated from square images only",
                self.image[0], self.image[1]
            )));
        }
        Ok(grid)
    }
}

impl Images {
    /// Rows and columns of patches.
    ///
    /// # Errors
    /// As [`Config::tokens`]; [`ModelError::Batch`] for another number of pixels.
    pub(super) fn grid(&self, config: &Config) -> Result<[usize; 2], ModelError> {
        let grid = config.grid_of([self.height, self.width])?;
        let sides = [config.channels, self.height, self.width];
        let expected = sides.iter().try_fold(self.batch, |count, &side| count.checked_mul(side));
        network::fits("pixel values", self.pixels.len(), expected.unwrap_or(usize::MAX).max(1))?;
        Ok(grid)
    }

    /// A row for each patch, `[batch · patches, channels · rows · columns]`: what a convolution of that size and stride
    /// multiplies its kernels with.
    pub(super) fn patches(&self, config: &Config, grid: [usize; 2]) -> Vec<f32> {
        let [rows, columns] = config.patch;
        let mut out = Vec::with_capacity(self.pixels.len());
        for image in self.pixels.chunks_exact(config.channels * self.height * self.width) {
            for patch in 0..grid[0] * grid[1] {
                let (top, left) = (patch / grid[1] * rows, patch % grid[1] * columns);
                for channel in image.chunks_exact(self.height * self.width) {
                    for row in top..top + rows {
                        out.extend_from_slice(&channel[row * self.width + left..][..columns]);
                    }
                }
            }
        }
        out
    }
}
