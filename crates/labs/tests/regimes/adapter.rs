//! The regime of an adapter against the matrices that it never forms.

use faer::Mat;
use lowrank_labs::regimes::RegimeError;
use lowrank_labs::regimes::adapter::{Site, analyse, page};
use lowrank_linalg::{LowRank, effective_rank, energy, multiply, stable_rank, svd_in_f64};
use lowrank_record::Seed;

fn random(name: &str, rows: usize, cols: usize) -> Mat<f32> {
    lowrank_linalg::from_rows(&Seed(5).at("adapter", name).normal(rows * cols), rows, cols).unwrap()
}

fn factors(name: &str, rank: usize) -> LowRank {
    LowRank::new(random(&format!("{name} left"), 14, rank), random(&format!("{name} right"), rank, 9))
        .unwrap()
}

#[test]
fn ranks_changes_and_amplifications_are_those_of_the_formed_matrices() {
    let (base, start, end) = (random("base", 14, 9), factors("start", 3), factors("end", 3));
    let states = (random("before", 30, 6), random("after", 30, 6));
    let site = Site {
        name: "layers.0.q_proj",
        base: base.as_ref(),
        start: &start,
        end: &end,
        representations: Some((states.0.as_ref(), states.1.as_ref())),
    };
    let found = site.analyse().unwrap();
    let change = svd_in_f64((end.reconstruct() - start.reconstruct()).as_ref()).unwrap().head(6);
    assert!((found.change.effective - effective_rank(&change.values)).abs() < 1e-4);
    assert!((found.change.stable - stable_rank(&change.values)).abs() < 1e-4);
    let norm = change.energy().sqrt();
    assert!((found.relative_change - norm / energy(base.as_ref()).sqrt()).abs() < 1e-5);
    let along = multiply(multiply(change.left.transpose(), base.as_ref()).as_ref(), change.right.transpose());
    assert!((found.amplification.unwrap() - norm / energy(along.as_ref()).sqrt()).abs() < 1e-4);
    assert!(found.start.effective > 1.0 && found.start.effective <= 3.0);
    // The change holds all of the start's directions here: it is the difference of two of rank 3 in 9 and 14 dimensions.
    assert!(
        (found.left_overlap.unwrap() - 1.0).abs() < 1e-5 && (found.right_overlap.unwrap() - 1.0).abs() < 1e-5
    );
    let other = (found.representation_alignment.unwrap(), found.centred_alignment.unwrap());
    assert!((0.0..1.0).contains(&other.0) && (0.0..1.0).contains(&other.1));
}

#[test]
fn a_start_at_zero_has_no_rank_but_a_row_space() {
    let base = random("base", 14, 9);
    let start = LowRank::new(Mat::zeros(14, 3), factors("start", 3).right).unwrap();
    // Only `left` was trained: the rows of the change are those of the start.
    let end = LowRank::new(random("trained", 14, 3), start.right.clone()).unwrap();
    let site = Site { name: "q", base: base.as_ref(), start: &start, end: &end, representations: None };
    let found = site.analyse().unwrap();
    assert_eq!((found.start.effective, found.left_overlap), (0.0, None));
    assert!((found.right_overlap.unwrap() - 1.0).abs() < 1e-6);
    assert!((found.chance.1 - 3.0 / 9.0).abs() < 1e-12);
    let still = Site { end: &start, ..site }.analyse().unwrap();
    assert_eq!((still.relative_change, still.change.effective, still.amplification), (0.0, 0.0, None));
    assert_eq!(still.right_overlap, None);
}

#[test]
fn a_pruned_adapter_is_compared_with_the_wider_start() {
    let (base, start) = (random("base", 14, 9), factors("start", 3));
    let end = factors("end", 2);
    let site = Site { name: "q", base: base.as_ref(), start: &start, end: &end, representations: None };
    let wanted = energy((end.reconstruct() - start.reconstruct()).as_ref()).sqrt();
    let found = site.analyse().unwrap().relative_change * energy(base.as_ref()).sqrt();
    assert!((found / wanted - 1.0).abs() < 1e-5);
}

#[test]
fn what_does_not_fit_names_its_layer() {
    let (base, start) = (random("base", 14, 8), factors("start", 3));
    let site =
        Site { name: "layers.3.v", base: base.as_ref(), start: &start, end: &start, representations: None };
    let refused = site.analyse().unwrap_err().to_string();
    assert!(
        refused.contains("layers.3.v") && refused.contains("expected [14, 8], found [14, 9]"),
        "{refused}"
    );
    let base = random("base", 14, 9);
    let states = (random("before", 30, 6), random("after", 29, 6));
    let representations = Some((states.0.as_ref(), states.1.as_ref()));
    let site = Site { base: base.as_ref(), representations, ..site };
    assert!(matches!(site.analyse(), Err(RegimeError::Size { wanted: 30, found: 29, .. })));
}

#[test]
fn the_page_has_a_table_and_a_heat_map() {
    let (base, start, end) = (random("base", 14, 9), factors("start", 3), factors("end", 3));
    let names = ["layers.0.q", "layers.0.v", "layers.1.q"];
    let sites =
        names.map(|name| Site { name, base: base.as_ref(), start: &start, end: &end, representations: None });
    let html = page(&analyse(&sites).unwrap(), "Regime of a run").html().unwrap();
    assert_eq!(html.matches("color-mix").count(), 3);
    assert!(html.contains("<td>layers.1</td>") && html.contains("The weights changed by"));
    assert!(page(&analyse(&[]).unwrap(), "nothing").html().is_ok());
}
