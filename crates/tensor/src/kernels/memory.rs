//! Buffers: zeroed by every thread, and kept between steps.
//!
//! Activations are freed and taken again in every step. glibc gives large buffers back to the kernel, which clears their
//! pages when they are taken again.

use std::mem::MaybeUninit;

use rayon::prelude::*;

use super::Real;

/// Zeros, written by every thread of the pool.
#[must_use]
pub fn zeros<T: Real>(count: usize) -> Vec<T> {
    const PIECE: usize = 1 << 15;
    if count <= PIECE {
        return vec![T::ZERO; count];
    }
    let mut values = Vec::with_capacity(count);
    let places = &mut values.spare_capacity_mut()[..count];
    places.par_chunks_mut(PIECE).for_each(|piece| piece.fill(MaybeUninit::new(T::ZERO)));
    #[allow(unsafe_code)]
    // SAFETY: the capacity is at least `count`, and each of the first `count` places was written just above.
    unsafe {
        values.set_len(count);
    }
    values
}

/// Tells glibc to keep freed memory for the next step; other systems keep their own ways. For a program's first line: once
/// there is a second thread it does nothing.
pub fn keep_memory() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    {
        /// The largest threshold that glibc accepts on 64 bits: buffers above it are mapped one by one.
        const MAPPED_ABOVE: libc::c_int = 32 << 20;
        /// Free memory at the top of the heap is given back only above this.
        const KEPT: libc::c_int = libc::c_int::MAX;
        let threads = std::fs::read_dir("/proc/self/task").map_or(0, Iterator::count);
        if threads != 1 {
            return;
        }
        #[allow(unsafe_code)]
        // SAFETY: mallopt stores a number in the allocator's settings, which no other thread reads or writes meanwhile:
        // this one is the only one, as was just seen. A setting that it does not know changes nothing.
        unsafe {
            libc::mallopt(libc::M_MMAP_THRESHOLD, MAPPED_ABOVE);
            libc::mallopt(libc::M_TRIM_THRESHOLD, KEPT);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_place_is_zero_in_recycled_memory_too() {
        for count in [0, 1, 1 << 15, (1 << 15) + 1, 300_001] {
            drop(vec![7.0_f32; count]);
            let zeros = zeros::<f32>(count);
            assert!(zeros.len() == count && zeros.iter().all(|&value| value == 0.0));
        }
    }
}
