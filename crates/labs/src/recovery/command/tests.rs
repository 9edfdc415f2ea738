use std::path::Path;

use lowrank_command::Silent;
use lowrank_record::Seed;

use super::*;

/// Rank 3, `[60, 40]`, 1400 of 2400 entries with noise of 0.01, each tenth of them wrong by 20.
fn observations(path: &Path, wrong: bool) -> impl Fn(usize, usize) -> f64 + use<> {
    let (left, right) = (Seed(1).normal(180), Seed(2).normal(120));
    let truth = move |i: usize, j: usize| {
        (0..3).map(|k| f64::from(left[3 * i + k]) * f64::from(right[3 * j + k])).sum::<f64>()
    };
    let noise = Seed(3).normal(1400);
    let mut text = "row,column,value\n".to_owned();
    for (index, place) in Seed(4).permutation(2400).into_iter().take(1400).enumerate() {
        let (i, j) = (place / 40, place % 40);
        let gross = if wrong && index % 10 == 0 { 20.0 } else { 0.0 };
        text += &format!("{i},{j},{}\n", truth(i, j) + 0.01 * f64::from(noise[index]) + gross);
    }
    std::fs::write(path, text).unwrap();
    truth
}

fn options(folder: &Path, loss: Loss) -> Recover {
    Recover {
        observations: folder.join("ratings.csv"),
        rank_at_most: 6,
        loss,
        holdout: 0.1,
        symmetric: false,
        from_one: false,
        steps: 5000,
        seed: 0,
        out: folder.join("model"),
        overwrite: true,
    }
}

#[test]
fn gross_errors_do_not_move_a_robust_fit_and_entries_are_predicted() {
    let folder = tempfile::tempdir().unwrap();
    let truth = observations(&folder.path().join("ratings.csv"), true);
    let robust = options(folder.path(), Loss::Absolute);
    let found = recover(&robust, &mut Silent).unwrap();
    assert!(found.held_out.without.mae < 0.1, "{found}");
    // 140 held out, a tenth of them wrong.
    assert!((8..=22).contains(&found.held_out.outliers), "{found}");
    let squares = recover(
        &Recover { loss: Loss::Squared, out: folder.path().join("l2"), ..robust.clone() },
        &mut Silent,
    );
    assert!(squares.unwrap().held_out.without.mae > 5.0 * found.held_out.without.mae);
    for name in FILES {
        assert!(robust.out.join(name).exists(), "{name}");
    }
    let report = std::fs::read_to_string(robust.out.join("report.html")).unwrap();
    assert!(report.contains("Singular values") && report.contains("rank-at-most"));
    // Again: the same bytes.
    let before = std::fs::read(robust.out.join("factors.safetensors")).unwrap();
    recover(&robust, &mut Silent).unwrap();
    assert_eq!(before, std::fs::read(robust.out.join("factors.safetensors")).unwrap());
    // Entries, one by one and whole.
    std::fs::write(folder.path().join("wanted.csv"), "row,column\n1,1\n60,40\n").unwrap();
    let asked = Predict {
        model: robust.out.clone(),
        entries: Some(folder.path().join("wanted.csv")),
        from_one: true,
        out: folder.path().join("found.csv"),
        overwrite: false,
    };
    assert_eq!(predict(&asked).unwrap().entries, 2);
    let text = std::fs::read_to_string(&asked.out).unwrap();
    let last: Vec<f64> = text.lines().last().unwrap().split(',').map(|part| part.parse().unwrap()).collect();
    assert!(last[..2] == [60.0, 40.0] && (last[2] - truth(59, 39)).abs() < 0.5, "{text} {}", truth(59, 39));
    let whole = Predict { entries: None, out: folder.path().join("found.npy"), ..asked.clone() };
    predict(&whole).unwrap();
    let array = lowrank_store::npy::read(&whole.out).unwrap();
    assert!(array.shape == [60, 40] && (array.values[59 * 40 + 39] - last[2]).abs() < 1e-12);
    let refused = |asked: Predict| predict(&asked).unwrap_err();
    assert!(matches!(refused(asked.clone()), AppError::Usage(text) if text.contains("exists already")));
    assert!(
        matches!(refused(Predict { from_one: false, overwrite: true, ..asked.clone() }), AppError::Usage(text) if text.contains("row 60"))
    );
    assert!(
        matches!(refused(Predict { out: "x.txt".into(), ..asked }), AppError::Usage(text) if text.contains(".csv"))
    );
}

#[test]
fn squares_are_right_for_gaussian_noise_and_the_rank_is_seen() {
    let folder = tempfile::tempdir().unwrap();
    let _ = observations(&folder.path().join("ratings.csv"), false);
    let found = recover(&options(folder.path(), Loss::Squared), &mut Silent).unwrap();
    assert!(found.held_out.all.rmse < 0.05, "{found}");
    assert!(found.constant.all.rmse > 1.0);
    assert_eq!(found.rank, 3, "{:?}", found.spectrum);
}

#[test]
fn what_cannot_be_used_is_one_line() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("ratings.csv");
    let _ = observations(&path, false);
    let good = Recover { overwrite: false, ..options(folder.path(), Loss::Absolute) };
    let refused = |options: Recover| match recover(&options, &mut Silent).unwrap_err() {
        AppError::Usage(text) => {
            assert!(!text.contains('\n') && !options.out.exists(), "{text}");
            text
        }
        other => panic!("{other}"),
    };
    assert!(refused(Recover { rank_at_most: 0, ..good.clone() }).contains("rank 0"));
    assert!(refused(Recover { rank_at_most: 41, ..good.clone() }).contains("from 1 to 40"));
    assert!(refused(Recover { symmetric: true, ..good.clone() }).contains("not square"));
    assert!(refused(Recover { holdout: 0.5, ..good.clone() }).contains("--holdout"));
    assert!(refused(Recover { steps: 0, ..good.clone() }).contains("--steps"));
    assert!(
        refused(Recover { observations: folder.path().join("none.csv"), ..good.clone() })
            .contains("none.csv")
    );
    for (text, part) in [
        ("", "no observations"),
        ("0,0,1\n1,1,nan\n", "line 2"),
        ("0,0,1\n1,1,inf\n", "line 2"),
        ("0,0,1\n1,1,2\n1,1,3\n", "row 1, column 1 (from 0) is observed twice"),
        ("0,0,1\n1,1\n", "line 2"),
        ("0,0,1\n1,1,2\n", "too few"),
    ] {
        std::fs::write(&path, text).unwrap();
        let found = refused(Recover { rank_at_most: 1, ..good.clone() });
        assert!(found.contains(part), "{text:?}: {found}");
    }
    let zeros: String = (0..100).map(|i| format!("{},{},0\n", i / 10, i % 10)).collect();
    std::fs::write(&path, zeros).unwrap();
    assert!(refused(Recover { rank_at_most: 2, ..good.clone() }).contains("every observation is 0"));
    std::fs::create_dir(&good.out).unwrap();
    std::fs::write(good.out.join("mine.txt"), "").unwrap();
    let exists =
        |overwrite| recover(&Recover { overwrite, ..good.clone() }, &mut Silent).unwrap_err().to_string();
    assert!(exists(false).contains("--overwrite") && exists(true).contains("mine.txt"));
}
