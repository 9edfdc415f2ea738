//! What a form does not take is refused by name.

use lowrank_adapt::{ALL, AdaptError, Form, Offset, Site, Start, Takes, by_name};
use lowrank_record::Seed;
use lowrank_tensor::cpu;

use crate::small::*;

fn build(form: &dyn Form, rank: usize, start: Option<Start>) -> Option<AdaptError> {
    let (base, device) = (weight(), cpu());
    form.build(&Site::alone("a", &base, rank, SCALE, Seed(5), &device), start).err()
}

fn form(name: &str, choices: &[(&str, &str)]) -> Box<dyn Form> {
    by_name(name, choices.iter().copied()).unwrap()
}

#[test]
fn factors_that_do_not_fit_are_refused() {
    for form in ALL.iter().filter(|form| form.takes() != Takes::Nothing) {
        let given = || start(*form, "a", Offset::None).unwrap();
        let none = Start { left: Vec::new(), right: Vec::new(), core: None, rank: 0, offset: Offset::None };
        assert!(matches!(build(*form, 3, Some(none)), Some(AdaptError::Rank)));
        let short = Start { left: vec![0.0; 5], ..given() };
        assert!(matches!(build(*form, 3, Some(short)), Some(AdaptError::Shape { left: 5, .. })));
        assert!(matches!(build(*form, 3, None), Some(AdaptError::NeedsStart { .. })));
        let core = Start { core: Some(vec![0.0; 4]), ..given() };
        assert!(matches!(build(*form, 3, Some(core)), Some(AdaptError::CoreShape { core: 4, rank: 3 })));
        let core = Start { core: Some(draws("full core", RANK * RANK)), ..given() };
        let refused = build(*form, 3, Some(core));
        match form.takes() {
            Takes::Factors => assert!(matches!(refused, Some(AdaptError::Core { .. })), "{refused:?}"),
            Takes::Diagonal => {
                assert!(matches!(refused, Some(AdaptError::NotDiagonal { .. })), "{refused:?}")
            }
            Takes::Core | Takes::Nothing => assert!(refused.is_none(), "{refused:?}"),
        }
    }
}

#[test]
fn a_form_that_makes_its_own_start_takes_no_other() {
    for form in ALL.iter().filter(|form| form.takes() == Takes::Nothing) {
        let given = Start {
            left: draws("left", OUT * RANK),
            right: draws("right", RANK * IN),
            core: None,
            rank: RANK,
            offset: Offset::None,
        };
        assert!(matches!(build(*form, 3, Some(given)), Some(AdaptError::TakesNothing { .. })));
    }
}

#[test]
fn a_start_that_never_learns_is_refused() {
    let given = |left: f32, core: f32, right: f32| Start {
        left: vec![left; OUT * RANK],
        right: vec![right; RANK * IN],
        core: Some((0..9).map(|at| if at % 4 == 0 { core } else { 0.0 }).collect()),
        rank: RANK,
        offset: Offset::None,
    };
    let plain = |left, right| Start { core: None, ..given(left, 1.0, right) };
    let never = |form: &dyn Form, start| {
        let refused = build(form, 3, Some(start));
        assert!(matches!(refused, Some(AdaptError::NeverLearns { .. })), "{refused:?}");
    };
    let fine = |form: &dyn Form, start| assert!(build(form, 3, Some(start)).is_none());
    never(&*form("lora", &[("trains", "right")]), plain(0.0, 1.0));
    never(&*form("lora", &[("trains", "left")]), plain(1.0, 0.0));
    fine(&*form("lora", &[("trains", "left")]), plain(0.0, 1.0));
    let (core, all) = (form("core", &[]), form("core", &[("trains", "all")]));
    never(&*core, given(0.0, 1.0, 1.0));
    never(&*core, given(1.0, 1.0, 0.0));
    fine(&*core, given(1.0, 0.0, 1.0));
    fine(&*all, given(0.0, 1.0, 1.0));
    never(&*all, given(0.0, 0.0, 1.0));
    let diag = form("diag", &[]);
    never(&*diag, given(0.0, 1.0, 1.0));
    fine(&*diag, given(1.0, 0.0, 1.0));
    never(&*form("diag", &[("relative", "true")]), given(1.0, 0.0, 1.0));
}

#[test]
fn a_rank_above_the_weights_is_applied_all_the_same() {
    // An offset start of rank r is exported at 2r, which may exceed the smaller side.
    let (base, device) = (weight(), cpu());
    let site = Site::alone("a", &base, 9, SCALE, Seed(5), &device);
    let (left, right) = (draws("wide left", OUT * 9), draws("wide right", 9 * IN));
    let wide = Start { left, right, core: None, rank: 9, offset: Offset::None };
    let mut linear = layer();
    linear.mount("a", form("lora", &[]).build(&site, Some(wide)).unwrap()).unwrap();
    close(&output(&linear), &changed(&linear, &["a"]), 1e-5, "wide");
}

#[test]
fn what_was_mistyped_is_named() {
    let said = |name: &str, choices: &[(&str, &str)]| {
        by_name(name, choices.iter().copied()).err().unwrap().to_string()
    };
    assert_eq!(said("lorra", &[]), "no form is called lorra; did you mean lora?");
    assert_eq!(said("core", &[("train", "all")]), "core has no option train; did you mean trains?");
    assert_eq!(
        said("core", &[("trains", "half")]),
        "core: trains = half is not allowed; it takes core | all"
    );
    assert_eq!(
        said("core", &[("trains", "all"), ("trains", "all")]),
        "core: option trains is given twice; keep one"
    );
}
