//! Rich and lazy regimes of learning.
