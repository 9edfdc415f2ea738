//! Recovery of low-rank matrices from measurements.
