//! The allocator: large buffers stay with the process.
//!
//! Activations are freed and taken again in every step. glibc gives large buffers back to the kernel, which clears their
//! pages when they are taken again: measured, a tenth of a training step. (mimalloc that never purges was as fast, but
//! kept buffers of every size that ever occurred, two to three times the memory.)

/// Tells glibc to keep freed memory for the next step; other systems keep their own ways.
pub fn keep_memory() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    {
        /// The largest threshold that glibc accepts on 64 bits: buffers above it are mapped one by one.
        const MAPPED_ABOVE: libc::c_int = 32 << 20;
        /// Free memory at the top of the heap is given back only above this.
        const KEPT: libc::c_int = libc::c_int::MAX;
        #[allow(unsafe_code)]
        // SAFETY: mallopt stores a number in the allocator's settings; it is called once, before any other thread
        // exists. A setting that it does not know changes nothing.
        unsafe {
            libc::mallopt(libc::M_MMAP_THRESHOLD, MAPPED_ABOVE);
            libc::mallopt(libc::M_TRIM_THRESHOLD, KEPT);
        }
    }
}
