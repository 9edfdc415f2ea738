//! Work on many layers, no more of them at a time than there are threads.
//!
//! A parallel loop over layers, in whose body there are parallel products, does not keep to that: a thread that waits for the other half of
//! a product takes the next layer meanwhile, and in that the next, each with all its memory. Here as many workers as threads take one
//! layer after the other, so that a waiting thread finds halves of products and nothing larger.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

/// `work` of each item, in the order of the items; of several errors the first in that order.
///
/// # Errors
/// Those of `work`; after one, items that were not begun are left out.
pub(crate) fn in_turns<T: Sync, R: Send, E: Send>(
    items: &[T],
    work: impl Fn(&T) -> Result<R, E> + Sync,
) -> Result<Vec<R>, E> {
    let (next, failed) = (AtomicUsize::new(0), AtomicUsize::new(usize::MAX));
    let done: Mutex<Vec<(usize, Result<R, E>)>> = Mutex::new(Vec::with_capacity(items.len()));
    let worker = || {
        loop {
            let index = next.fetch_add(1, Ordering::Relaxed);
            let Some(item) = items.get(index).filter(|_| index < failed.load(Ordering::Relaxed)) else {
                break;
            };
            let found = work(item);
            if found.is_err() {
                failed.fetch_min(index, Ordering::Relaxed);
            }
            done.lock().unwrap_or_else(PoisonError::into_inner).push((index, found));
        }
    };
    rayon::scope(|scope| {
        for _ in 0..rayon::current_num_threads().min(items.len()) {
            scope.spawn(|_| worker());
        }
    });
    let mut done = done.into_inner().unwrap_or_else(PoisonError::into_inner);
    done.sort_by_key(|(index, _)| *index);
    done.into_iter().map(|(_, found)| found).collect()
}

#[cfg(test)]
mod tests {
    use rayon::prelude::*;

    use super::*;

    #[test]
    fn results_are_in_order_and_few_are_at_work_at_a_time() {
        let (at_work, most) = (AtomicUsize::new(0), AtomicUsize::new(0));
        let items: Vec<u64> = (0..40).collect();
        let pool = rayon::ThreadPoolBuilder::new().num_threads(3).build().unwrap();
        let found: Result<Vec<u64>, ()> = pool.install(|| {
            in_turns(&items, |&item| {
                most.fetch_max(at_work.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                let sum: u64 = (0..20_000_u64).into_par_iter().map(|x| x % 7).sum();
                at_work.fetch_sub(1, Ordering::SeqCst);
                Ok(if sum > 0 { 2 * item } else { 0 })
            })
        });
        assert_eq!(found.unwrap(), (0..40).map(|item| 2 * item).collect::<Vec<_>>());
        assert!(most.load(Ordering::SeqCst) <= 3);
    }

    #[test]
    fn the_first_error_is_told_whatever_ends_first() {
        let items: Vec<usize> = (0..30).collect();
        let found = in_turns(&items, |&item| if item % 10 == 7 { Err(item) } else { Ok(item) });
        assert_eq!(found.unwrap_err(), 7);
        let none: Result<Vec<()>, ()> = in_turns(&[] as &[u8], |_| Ok(()));
        assert!(none.unwrap().is_empty());
    }
}
