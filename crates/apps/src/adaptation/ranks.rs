//! How many values a form trains, and the ranks at which two methods train as many.

use lowrank_adapt::{Form, trained};
use lowrank_attach::{Plan, Site};
use lowrank_init::{Site as InitSite, alpha_after};

use super::Method;
use super::prepare::{form, initialiser};
use crate::AppError;

/// The values that a plan trains in a method's form: of AdaLoRA those at the start, since what is masked later is trained on.
///
/// # Errors
/// [`AppError::Usage`] for a form that is not known.
pub(crate) fn total(plan: &Plan, method: &Method) -> Result<usize, AppError> {
    let form = form(method)?;
    Ok(trained(&*form, plan.sites.iter().map(|site| (site.shape, site.rank))))
}

/// The plan with the rank of each layer chosen so that `method` trains as many values as `reference` does with it. What
/// one layer has too many is taken off the next, so that the totals agree as nearly as possible. Each layer keeps its
/// scale, so that only the rank changes.
///
/// # Errors
/// [`AppError::Usage`] for a form that is not known, or a layer that the method cannot start at any rank.
pub(crate) fn equal_parameters(plan: &Plan, method: &Method, reference: &Method) -> Result<Plan, AppError> {
    let initialiser = initialiser(method)?;
    let (own, wanted_form) = (form(method)?, form(reference)?);
    let count = |form: &dyn Form, site: &Site, rank| trained(form, [(site.shape, rank)]);
    let admits = |shape, rank| initialiser.as_ref().is_none_or(|start| start.admits(shape, rank).is_ok());
    let mut carried = 0.0;
    let mut sites = Vec::with_capacity(plan.sites.len());
    for site in &plan.sites {
        let [out, inp] = site.shape;
        let shape = InitSite { out, inp, scale: site.scale };
        let wanted = count(&*wanted_form, site, site.rank) as f64 + carried;
        let mut best: Option<(f64, usize, usize)> = None;
        for rank in (1..=out.min(inp)).filter(|&rank| admits(shape, rank)) {
            let values = count(&*own, site, rank);
            let off = (values as f64 - wanted).abs();
            if best.is_none_or(|(least, ..)| off < least) {
                best = Some((off, rank, values));
            }
        }
        let (_, rank, values) = best
            .ok_or_else(|| AppError::usage(format!("{}: {} starts it at no rank", site.name, method.name)))?;
        carried = wanted - values as f64;
        // The scale is that of the layer's own rank: alpha moves with the rank.
        let alpha = alpha_after(site.alpha, site.rank, rank, plan.rank_stabilised);
        sites.push(Site { name: site.name.clone(), rank, alpha, ..*site });
    }
    Ok(Plan { sites, rank_stabilised: plan.rank_stabilised })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn site(name: &str, shape: [usize; 2], rank: usize) -> Site {
        Site { name: name.to_owned(), shape, rank, alpha: 16.0, scale: 16.0 / rank as f64 }
    }

    fn method(init: &str) -> Method {
        Method {
            name: init.to_owned(),
            init: init.to_owned(),
            init_options: Default::default(),
            form: "lora".to_owned(),
            form_options: Default::default(),
            rate: 1e-3,
        }
    }

    #[test]
    fn the_same_form_keeps_its_ranks_and_scales() {
        let plan = Plan { sites: vec![site("a", [20, 30], 4), site("b", [7, 9], 2)], rank_stabilised: false };
        assert_eq!(equal_parameters(&plan, &method("kaiming"), &method("kaiming")).unwrap(), plan);
        assert_eq!(total(&plan, &method("kaiming")).unwrap(), 4 * 50 + 2 * 16);
    }

    #[test]
    fn what_one_layer_cannot_have_goes_to_the_next() {
        // LoRA-GA takes at most half of the shorter side.
        let plan = Plan { sites: vec![site("a", [6, 9], 5), site("b", [60, 90], 5)], rank_stabilised: false };
        let chosen = equal_parameters(&plan, &method("lora-ga"), &method("kaiming")).unwrap();
        assert_eq!(chosen.sites[0].rank, 3);
        assert_eq!(chosen.sites[0].scale, plan.sites[0].scale);
        // 2·15 values are carried on, less than a half of one rank more.
        assert_eq!(chosen.sites[1].rank, 5);
        let unknown = Method { form: "lorra".to_owned(), ..method("kaiming") };
        let refused = equal_parameters(&plan, &unknown, &method("kaiming")).unwrap_err().to_string();
        assert!(refused.contains("did you mean lora?"), "{refused}");
    }

    #[test]
    fn what_is_trained_is_counted_and_the_scale_stays() {
        let site = Site { scale: 16.0 / 2.0, ..site("a", [40, 50], 4) };
        let plan = Plan { sites: vec![site], rank_stabilised: true };
        let with = |form: &str, key: &str, value: &str| Method {
            form: form.to_owned(),
            form_options: [(key.to_owned(), value.to_owned())].into(),
            ..method("kaiming")
        };
        let left = equal_parameters(&plan, &with("lora", "trains", "left"), &method("kaiming")).unwrap();
        assert_eq!((left.sites[0].rank, left.sites[0].scale), (9, 8.0));
        // What a stored start makes of rank and alpha is the same scale.
        let again = lowrank_record::scale(left.sites[0].alpha, 9, true);
        assert!((again - 8.0).abs() < 1e-12, "{again}");
        let all = with("core", "trains", "all");
        assert_eq!(total(&plan, &all).unwrap(), 4 * (4 + 90));
        assert_eq!(equal_parameters(&plan, &all, &method("kaiming")).unwrap().sites[0].rank, 4);
    }
}
