//! A frozen weight `[out, in]` as it is stored, widened while it is used.

use std::fmt;
use std::ops::Range;
use std::sync::Arc;

use lowrank_blocks::Format;
use rayon::prelude::*;

use crate::kernels::memory::zeros;
use crate::kernels::{Real, RowSource};

/// A frozen matrix `[out, in]` in its storage format. Clones share the storage.
///
/// Values stored below f32 are widened in each product that reads them, for as long as it runs (the weights then cost a
/// fraction of the memory), or once by [`Matrix::widened`] (faster).
#[derive(Clone)]
pub struct Matrix(Arc<Stored>);

/// Bytes that somebody owns: a `Vec`, or a range of a memory-mapped file.
type Owner = Arc<dyn AsRef<[u8]> + Send + Sync>;

struct Stored {
    shape: [usize; 2],
    data: Data,
}

enum Data {
    F32(Vec<f32>),
    F64(Vec<f64>),
    Blocks { format: Format, row_bytes: usize, bytes: Owner },
}

/// Why stored bytes are not a matrix.
#[derive(Debug, thiserror::Error)]
pub enum MatrixError {
    /// The number of values or bytes does not fit the shape.
    #[error("a matrix [{out}, {inp}] stored as {format:?} takes {expected} bytes, found {found}")]
    Size {
        /// Rows.
        out: usize,
        /// Columns.
        inp: usize,
        /// Storage format.
        format: Format,
        /// Bytes that the shape asks for.
        expected: usize,
        /// Bytes that were given.
        found: usize,
    },
    /// The row length does not fit the block format.
    #[error(transparent)]
    Blocks(#[from] lowrank_blocks::BlockError),
}

impl Matrix {
    /// A matrix from row-major f32 values.
    ///
    /// # Errors
    /// [`MatrixError::Size`] when the number of values is not `out · in`.
    pub fn from_f32(values: Vec<f32>, shape: [usize; 2]) -> Result<Matrix, MatrixError> {
        check_size(shape, Format::F32, values.len() * 4, shape[0] * shape[1] * 4)?;
        Ok(Matrix(Arc::new(Stored { shape, data: Data::F32(values) })))
    }

    /// A matrix from row-major f64 values; for derivative tests.
    ///
    /// # Errors
    /// [`MatrixError::Size`] when the number of values is not `out · in`.
    pub fn from_f64(values: Vec<f64>, shape: [usize; 2]) -> Result<Matrix, MatrixError> {
        check_size(shape, Format::F64, values.len() * 8, shape[0] * shape[1] * 8)?;
        Ok(Matrix(Arc::new(Stored { shape, data: Data::F64(values) })))
    }

    /// A matrix over stored bytes, which stay as they are.
    ///
    /// # Errors
    /// [`MatrixError::Size`] when the number of bytes does not fit, [`MatrixError::Blocks`] when a row is not a whole
    /// number of blocks.
    pub fn from_bytes(
        bytes: Arc<dyn AsRef<[u8]> + Send + Sync>,
        format: Format,
        shape: [usize; 2],
    ) -> Result<Matrix, MatrixError> {
        let row_bytes = format.row_bytes(shape[1])?;
        check_size(shape, format, (*bytes).as_ref().len(), shape[0] * row_bytes)?;
        Ok(Matrix(Arc::new(Stored { shape, data: Data::Blocks { format, row_bytes, bytes } })))
    }

    /// Whether both are one storage, so that what was computed of one holds of the other.
    #[must_use]
    pub fn is(&self, other: &Matrix) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }

    /// `[out, in]`.
    #[must_use]
    pub fn shape(&self) -> [usize; 2] {
        self.0.shape
    }

    /// How the values are stored.
    #[must_use]
    pub fn format(&self) -> Format {
        match &self.0.data {
            Data::F32(_) => Format::F32,
            Data::F64(_) => Format::F64,
            Data::Blocks { format, .. } => *format,
        }
    }

    /// Bytes that the stored values take.
    #[must_use]
    pub fn bytes(&self) -> usize {
        match &self.0.data {
            Data::F32(values) => values.len() * 4,
            Data::F64(values) => values.len() * 8,
            Data::Blocks { row_bytes, .. } => row_bytes * self.0.shape[0],
        }
    }

    /// The same matrix held as f32.
    #[must_use]
    pub fn widened(&self) -> Matrix {
        match &self.0.data {
            Data::F32(_) | Data::F64(_) => self.clone(),
            Data::Blocks { .. } => {
                Matrix(Arc::new(Stored { shape: self.0.shape, data: Data::F32(self.to_f32()) }))
            }
        }
    }

    /// All values as f32, row-major.
    #[must_use]
    pub fn to_f32(&self) -> Vec<f32> {
        let mut scratch = Vec::new();
        let all: &[f32] = self.read(0..self.0.shape[0], &mut scratch);
        if RowSource::<f32>::lends(self) {
            return all.to_vec();
        }
        scratch
    }

    /// Rows by index as f32, `[indices, in]`: an embedding look-up.
    ///
    /// # Panics
    /// Panics on an index outside the matrix; callers check token ids against the vocabulary.
    #[must_use]
    pub fn gather<T: Real>(&self, indices: &[u32]) -> Vec<T> {
        let width = self.0.shape[1];
        let mut out = vec![T::ZERO; indices.len() * width];
        out.par_chunks_mut(width.max(1)).zip(indices).for_each(|(row, &index)| {
            let index = index as usize;
            assert!(index < self.0.shape[0], "row {index} of a matrix with {} rows", self.0.shape[0]);
            let mut scratch = Vec::new();
            row.copy_from_slice(self.read(index..index + 1, &mut scratch));
        });
        out
    }
}

impl<T: Real> RowSource<T> for Matrix {
    fn rows(&self) -> usize {
        self.0.shape[0]
    }

    fn cols(&self) -> usize {
        self.0.shape[1]
    }

    fn lends(&self) -> bool {
        let own = match self.0.data {
            Data::F32(_) => size_of::<f32>(),
            Data::F64(_) => size_of::<f64>(),
            Data::Blocks { .. } => return false,
        };
        own == size_of::<T>()
    }

    fn read<'a>(&'a self, range: Range<usize>, scratch: &'a mut Vec<T>) -> &'a [T] {
        let width = self.0.shape[1];
        let values = range.start * width..range.end * width;
        match &self.0.data {
            Data::F32(all) => cast_or_convert(&all[values], scratch),
            Data::F64(all) => cast_or_convert(&all[values], scratch),
            Data::Blocks { format, row_bytes, bytes } => {
                let bytes = &(**bytes).as_ref()[range.start * row_bytes..range.end * row_bytes];
                // Whatever an earlier read left is written over, so only new memory has to be made values.
                if scratch.len() < values.len() {
                    *scratch = zeros(values.len());
                }
                let scratch = &mut scratch[..values.len()];
                if size_of::<T>() == size_of::<f32>()
                    && let Ok(target) = bytemuck::try_cast_slice_mut::<T, f32>(scratch)
                {
                    widen(*format, bytes, *row_bytes, width, target);
                } else {
                    let mut narrow = vec![0.0_f32; values.len()];
                    widen(*format, bytes, *row_bytes, width, &mut narrow);
                    for (to, from) in scratch.iter_mut().zip(&narrow) {
                        *to = T::from_f64(f64::from(*from));
                    }
                }
                scratch
            }
        }
    }
}

/// Widens whole rows in parallel; rows are independent, so the result does not depend on the threads.
fn widen(format: Format, bytes: &[u8], row_bytes: usize, width: usize, target: &mut [f32]) {
    // As many as a product of few rows reads at once, so that its tasks are not cut again.
    const ROWS: usize = 64;
    target.par_chunks_mut((ROWS * width).max(1)).zip(bytes.par_chunks((ROWS * row_bytes).max(1))).for_each(
        |(to, from)| {
            let done = lowrank_blocks::widen(format, from, to);
            assert!(done.is_ok(), "sizes were checked when the matrix was made: {done:?}");
        },
    );
}

/// Borrows when the types agree, converts through f64 otherwise.
fn cast_or_convert<'a, S: Real, T: Real>(from: &'a [S], scratch: &'a mut Vec<T>) -> &'a [T] {
    if size_of::<S>() == size_of::<T>()
        && let Ok(same) = bytemuck::try_cast_slice::<S, T>(from)
    {
        return same;
    }
    scratch.clear();
    scratch.extend(from.iter().map(|&value| T::from_f64(value.to_f64())));
    scratch
}

fn check_size(
    [out, inp]: [usize; 2],
    format: Format,
    found: usize,
    expected: usize,
) -> Result<(), MatrixError> {
    if found == expected { Ok(()) } else { Err(MatrixError::Size { out, inp, format, expected, found }) }
}

impl fmt::Debug for Matrix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Matrix{:?} as {:?}", self.0.shape, self.format())
    }
}
