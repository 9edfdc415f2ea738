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

impl Images {
    /// Rows and columns of patches.
    ///
    /// # Errors
    /// [`ModelError::Image`] where a patch would be cut, or the positions of the model cannot be spread over them;
    /// [`ModelError::Batch`] for another number of pixels.
    pub(super) fn grid(&self, config: &Config) -> Result<[usize; 2], ModelError> {
        let (height, width, [rows, columns]) = (self.height, self.width, config.patch);
        let refused = |problem: String| ModelError::Image { height, width, problem };
        if height == 0 || width == 0 || !height.is_multiple_of(rows) || !width.is_multiple_of(columns) {
            return Err(refused(format!("its sides must be multiples of the patch's, {rows} x {columns}")));
        }
        let sides = [config.channels, height, width];
        let expected = sides.iter().try_fold(self.batch, |count, &side| count.checked_mul(side));
        network::fits("pixel values", self.pixels.len(), expected.unwrap_or(usize::MAX).max(1))?;
        let (grid, trained) = ([height / rows, width / columns], config.grid());
        // transformers takes the square root of the number of positions for both sides.
        if grid != trained && trained[0] != trained[1] {
            return Err(refused(format!(
                "the model was trained on {} x {}, and positions are interpolated from square images only",
                config.image[0], config.image[1]
            )));
        }
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
