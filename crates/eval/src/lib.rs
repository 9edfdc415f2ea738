//! Metrics of a model on data: perplexity, multiple choice, spectra. Reads, never writes.
