//! A matrix behind some of its entries, through the program: recovered despite gross errors, filled in, and bad input refused by name.
#![allow(clippy::unwrap_used)] // A failure here is a failure of the test.

mod program;

use std::fmt::Write as _;

use program::Folder;
use serde_json::Value;

/// Entries of a matrix [24, 18] of rank 2, of which every fourth is left out and every thirteenth grossly wrong.
fn observations() -> String {
    let mut lines = String::from("row,column,value\n");
    for at in (0..24 * 18).filter(|at| at % 4 != 3) {
        let gross = if at % 13 == 5 { 40.0 } else { 0.0 };
        let _ = writeln!(lines, "{},{},{:.5}", at / 18, at % 18, entry(at / 18, at % 18) + gross);
    }
    lines
}

fn entry(row: usize, column: usize) -> f64 {
    let (u, v) = (row as f64, column as f64);
    (0.9 * u).sin() * (1.3 * v).cos() + 0.7 * (0.4 * u + 1.0).cos() * (0.8 * v + 2.0).sin()
}

#[test]
fn what_was_not_seen_is_filled_in_and_gross_errors_do_not_reach_it() {
    let folder = Folder::new();
    folder.file("seen.csv", &observations());
    let told = folder.succeed(&[
        "--json",
        "--quiet",
        "recover",
        "--observations",
        "seen.csv",
        "--rank-at-most",
        "4",
        "--out",
        "model",
    ]);
    let told: Value = serde_json::from_str(&told).unwrap();
    assert_eq!(told["shape"], serde_json::json!([24, 18]));
    folder.file("asked.csv", "0,3\n1,17\n23,17\n");
    folder.succeed(&[
        "--quiet",
        "recover",
        "predict",
        "--model",
        "model",
        "--entries",
        "asked.csv",
        "--out",
        "filled.csv",
    ]);
    let filled = std::fs::read_to_string(folder.path().join("filled.csv")).unwrap();
    let filled: Vec<f64> = filled.lines().filter_map(|line| line.rsplit(',').next()?.parse().ok()).collect();
    for (found, (row, column)) in filled.iter().zip([(0, 3), (1, 17), (23, 17)]) {
        assert!((found - entry(row, column)).abs() < 0.1, "{row}, {column}: {found}");
    }
    assert_eq!(filled.len(), 3);
    let page = std::fs::read_to_string(folder.path().join("model/report.html")).unwrap();
    assert!(page.contains("<svg"));
    // Nothing is lost.
    let again = ["recover", "--observations", "seen.csv", "--out", "model"];
    folder.refuse(&again, 2, &["model", "--overwrite"]);
    folder.refuse(&["recover", "predict", "--model", "nowhere", "--out", "x.npy"], 2, &["nowhere"]);
}

#[test]
fn bad_observations_are_one_clear_line() {
    let folder = Folder::new();
    let grid: String = (0..16).map(|at| format!("{},{},1.5\n", at / 4, at % 4)).collect();
    for (name, text, words) in [
        ("empty.csv", String::new(), "no observations"),
        ("nan.csv", format!("{grid}0,5,nan\n"), "NaN"),
        ("infinite.csv", format!("{grid}0,5,inf\n"), "inf"),
        ("twice.csv", format!("{grid}3,3,2\n"), "3"),
        ("text.csv", format!("{grid}a,b,c\n"), "line 17"),
    ] {
        folder.file(name, &text);
        let recover = ["recover", "--observations", name, "--rank-at-most", "2", "--out", "out", "--quiet"];
        folder.refuse(&recover, 2, &[words, name]);
    }
    folder.file("grid.csv", &grid);
    for (more, words) in [
        (&["--rank-at-most", "0"][..], "rank 0"),
        (&["--rank-at-most", "5"], "rank 5"),
        (&["--rank-at-most", "2", "--holdout", "1"], "--holdout"),
    ] {
        let recover = ["recover", "--observations", "grid.csv", "--out", "out", "--quiet"];
        folder.refuse(&[&recover[..], more].concat(), 2, &[words]);
    }
    assert!(!folder.path().join("out").exists());
}
