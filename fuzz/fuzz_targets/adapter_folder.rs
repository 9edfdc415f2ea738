//! Any bytes as a PEFT folder: an error, or an adapter that is written and read again as the same. Looking at it finds
//! no less than reading does.
#![no_main]

use libfuzzer_sys::fuzz_target;
use lowrank_fuzz::in_folder;
use lowrank_store::atomic::Existing;
use lowrank_store::peft::{AdapterFolder, CONFIG_NAME, TENSORS_NAME};

fuzz_target!(|bytes: &[u8]| in_folder(bytes, &[CONFIG_NAME, TENSORS_NAME], |folder| {
    let (read, seen) = (AdapterFolder::read(folder), AdapterFolder::look(folder));
    assert_eq!(read.is_ok(), seen.is_ok_and(|seen| seen.objections.is_empty()));
    let Ok(adapter) = read else { return };
    let again = folder.join("again");
    // Patterns that mean something else once they are sorted are refused.
    if adapter.write(&again, Existing::Refuse).is_ok() {
        let read = AdapterFolder::read(&again).expect("what was written is read");
        assert_eq!((read.factors, read.whole), (adapter.factors, adapter.whole));
    }
}));
