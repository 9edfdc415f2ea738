//! Weights stored `[in, out]`, brought into our order `[out, in]` and back without being decoded.

/// Side of a tile that is turned at once: what is read and what is written stay in the nearest cache.
const TILE: usize = 32;

/// A row-major matrix `[rows, cols]` with rows and columns exchanged.
#[must_use]
pub fn transposed<T: Copy + Default>(values: &[T], rows: usize, cols: usize) -> Vec<T> {
    let mut turned = vec![T::default(); values.len()];
    for top in (0..rows).step_by(TILE) {
        for left in (0..cols).step_by(TILE) {
            for row in top..rows.min(top + TILE) {
                for col in left..cols.min(left + TILE) {
                    turned[col * rows + row] = values[row * cols + col];
                }
            }
        }
    }
    turned
}

/// The same of numbers of `size` bytes; `None` for sizes that no number format has.
#[must_use]
pub fn transposed_bytes(bytes: &[u8], size: usize, rows: usize, cols: usize) -> Option<Vec<u8>> {
    fn turn<const N: usize>(bytes: &[u8], rows: usize, cols: usize) -> Vec<u8>
    where
        [u8; N]: Default,
    {
        let (numbers, _) = bytes.as_chunks::<N>();
        transposed(numbers, rows, cols).as_flattened().to_vec()
    }
    match size {
        2 => Some(turn::<2>(bytes, rows, cols)),
        4 => Some(turn::<4>(bytes, rows, cols)),
        8 => Some(turn::<8>(bytes, rows, cols)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_become_columns_whatever_the_size() {
        for (rows, cols) in [(1, 1), (3, 5), (33, 70), (64, 32)] {
            let values: Vec<u32> =
                (0..rows as u32 * cols as u32).map(|i| i.wrapping_mul(2_654_435_761)).collect();
            let turned = transposed(&values, rows, cols);
            for (row, col) in (0..rows).flat_map(|row| (0..cols).map(move |col| (row, col))) {
                assert_eq!(turned[col * rows + row], values[row * cols + col]);
            }
            assert_eq!(transposed(&turned, cols, rows), values);
            let bytes: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
            let by_bytes: Vec<u8> = turned.iter().flat_map(|value| value.to_le_bytes()).collect();
            assert_eq!(transposed_bytes(&bytes, 4, rows, cols), Some(by_bytes));
        }
        let halves: Vec<u8> = (0..12).collect();
        let turned = transposed_bytes(&halves, 2, 2, 3);
        assert_eq!(turned, Some(vec![0, 1, 6, 7, 2, 3, 8, 9, 4, 5, 10, 11]));
        assert_eq!(transposed_bytes(&halves, 3, 2, 2), None);
    }
}
