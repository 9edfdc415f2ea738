//! The named methods: an initialiser with its choices × a form with its choices × the rates at which it is at home.
//!
//! A recipe composes and adds no arithmetic. A new one is its line in [`ALL`]. The rates are where a search begins, not
//! a claim: AdamW, rank 8, alpha 16, from the papers and from what small decoders took (`studies/`).

use std::collections::BTreeMap;

use crate::AppError;
use crate::adaptation::OWN_START;

/// A method by name.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Recipe {
    /// What `--method` is given.
    pub(crate) name: &'static str,
    /// Where it starts.
    pub(crate) init: &'static str,
    /// Choices of the start that are not its defaults.
    pub(crate) init_options: &'static [(&'static str, &'static str)],
    /// How the change is parametrised.
    pub(crate) form: &'static str,
    /// Choices of the form that are not its defaults.
    pub(crate) form_options: &'static [(&'static str, &'static str)],
    /// Smallest and largest rate to try first, of AdamW at the top of the schedule.
    pub(crate) rates: [f64; 2],
}

/// Rates of starts at zero.
const PLAIN: [f64; 2] = [1e-4, 1e-2];
/// Rates of starts along the weight or its gradient: their first step is larger, as that of full fine-tuning.
const LEADING: [f64; 2] = [3e-5, 3e-3];

/// Rates of forms that train a few values a layer, each of which moves much, and of one that begins with three small factors.
const DIAGONAL: [f64; 2] = [1e-3, 1e-1];
/// Rates of whole weights.
const WHOLE: [f64; 2] = [1e-5, 1e-3];

/// Every recipe, in the order in which it is listed.
pub(crate) static ALL: &[Recipe] = &[
    recipe("lora", "kaiming", "lora", PLAIN),
    recipe("lora-gaussian", "gaussian", "lora", PLAIN),
    recipe("lora-orthogonal", "orthogonal", "lora", PLAIN),
    recipe("pissa", "pissa", "lora", LEADING),
    recipe("lora-ga", "lora-ga", "lora", LEADING),
    recipe("lora-ga-peft", "lora-ga", "lora", LEADING).init(&[("variant", "peft-compat")]),
    recipe("lora-ga-control", "lora-ga-control", "lora", LEADING),
    recipe("olora", "olora", "lora", LEADING),
    recipe("milora", "milora", "lora", LEADING),
    recipe("mica", "mica", "lora", PLAIN).form(&[("trains", "right")]),
    recipe("eva", "eva", "lora", PLAIN),
    recipe("eva-control", "eva-control", "lora", PLAIN),
    recipe("corda", "corda", "lora", LEADING),
    recipe("lora-xs", "lora-xs", "core", PLAIN),
    recipe("lora-sb", "lora-sb", "core", PLAIN),
    recipe("lora-sb-control", "lora-sb-control", "core", PLAIN),
    recipe("slora", "slora", "core", PLAIN).form(&[("trains", "all")]),
    recipe("nlora", "nlora", "core", LEADING).form(&[("trains", "all")]),
    recipe("nlora-control", "random-control", "core", LEADING)
        .init(&[("of", "nlora")])
        .form(&[("trains", "all")]),
    recipe("inttune", "nlora", "core", LEADING),
    recipe("loldu", "loldu", "diag", DIAGONAL),
    recipe("loldu-control", "random-control", "diag", DIAGONAL).init(&[("of", "loldu")]),
    recipe("svfit", "svfit", "diag", DIAGONAL),
    recipe("svfit-full", "svfit", "diag", DIAGONAL).init(&[("rank", "full")]),
    recipe("svfit-control", "random-control", "diag", DIAGONAL).init(&[("of", "svfit")]),
    recipe("loftq", "loftq", "lora", PLAIN),
    recipe("qpissa", "qpissa", "lora", LEADING),
    recipe("dora", "kaiming", "dora", PLAIN),
    recipe("lora-fa", "kaiming", "lora", PLAIN).form(&[("trains", "left")]),
    recipe("adalora", OWN_START, "adalora", DIAGONAL),
    recipe("vera", OWN_START, "vera", DIAGONAL),
    recipe("ia3", OWN_START, "ia3", DIAGONAL),
    recipe("loha", OWN_START, "loha", PLAIN),
    recipe("lokr", OWN_START, "lokr", PLAIN),
    recipe("oft", OWN_START, "oft", PLAIN),
    recipe("boft", OWN_START, "boft", PLAIN),
    recipe("full", OWN_START, "full", WHOLE),
];

const fn recipe(name: &'static str, init: &'static str, form: &'static str, rates: [f64; 2]) -> Recipe {
    Recipe { name, init, init_options: &[], form, form_options: &[], rates }
}

impl Recipe {
    const fn init(mut self, options: &'static [(&'static str, &'static str)]) -> Recipe {
        self.init_options = options;
        self
    }

    const fn form(mut self, options: &'static [(&'static str, &'static str)]) -> Recipe {
        self.form_options = options;
        self
    }

    /// The recipe in one line.
    pub(crate) fn summary(&self) -> String {
        let part = |name: &str, options: &[(&str, &str)]| {
            let options: String = options.iter().map(|(key, value)| format!(", {key} = {value}")).collect();
            format!("{name}{options}")
        };
        format!(
            "starts at {} × form {}; rates about {:.0e} to {:.0e}",
            part(self.init, self.init_options),
            part(self.form, self.form_options),
            self.rates[0],
            self.rates[1]
        )
    }
}

/// What a name stands for: a recipe, `INIT+FORM`, or a start alone, which takes the form `lora`.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Composed {
    /// The initialiser, by its catalogue name.
    pub(crate) init: String,
    /// Its choices.
    pub(crate) init_options: BTreeMap<String, String>,
    /// The form.
    pub(crate) form: String,
    /// Its choices.
    pub(crate) form_options: BTreeMap<String, String>,
    /// Smallest and largest rate to try first.
    pub(crate) rates: [f64; 2],
}

impl Composed {
    /// One rate for a run without a search: the geometric middle.
    pub(crate) fn rate(&self) -> f64 {
        (self.rates[0] * self.rates[1]).sqrt()
    }
}

/// What a name stands for.
///
/// # Errors
/// [`AppError::Usage`] naming the nearest known name.
pub(crate) fn named(name: &str) -> Result<Composed, AppError> {
    let wanted = name.to_lowercase().replace('_', "-");
    if let Some(recipe) = ALL.iter().find(|recipe| recipe.name == wanted) {
        let owned = |pairs: &[(&str, &str)]| {
            pairs.iter().map(|&(key, value)| (key.to_owned(), value.to_owned())).collect()
        };
        return Ok(Composed {
            init: recipe.init.to_owned(),
            init_options: owned(recipe.init_options),
            form: recipe.form.to_owned(),
            form_options: owned(recipe.form_options),
            rates: recipe.rates,
        });
    }
    let (init, form) = wanted.split_once('+').unwrap_or((&wanted, "lora"));
    if init == OWN_START && makes_its_own_start(form) {
        let near = ALL.iter().find(|recipe| recipe.form == form);
        return Ok(Composed {
            init: OWN_START.to_owned(),
            init_options: BTreeMap::new(),
            form: form.to_owned(),
            form_options: BTreeMap::new(),
            rates: near.map_or(PLAIN, |recipe| recipe.rates),
        });
    }
    let start = lowrank_init::ALL
        .iter()
        .find(|start| start.card().name == init || start.aliases().contains(&init))
        .ok_or_else(|| unknown("method or start", init, &known()))?;
    let forms: Vec<&str> = lowrank_adapt::ALL.iter().map(|form| form.card().name).collect();
    if !forms.contains(&form) {
        return Err(unknown("form", form, &forms));
    }
    let init = start.card().name;
    let near = ALL.iter().find(|recipe| recipe.init == init && recipe.form == form);
    let near = near.or_else(|| ALL.iter().find(|recipe| recipe.form == form));
    Ok(Composed {
        init: init.to_owned(),
        init_options: BTreeMap::new(),
        form: form.to_owned(),
        form_options: BTreeMap::new(),
        rates: near.map_or(PLAIN, |recipe| recipe.rates),
    })
}

/// Whether a form takes no initialiser.
fn makes_its_own_start(form: &str) -> bool {
    let found = lowrank_adapt::ALL.iter().find(|known| known.card().name == form);
    found.is_some_and(|form| form.takes() == lowrank_adapt::Takes::Nothing)
}

/// The start of a form where none is named: its own, or else this one.
pub(crate) fn usual_start<'a>(form: &str, otherwise: &'a str) -> &'a str {
    if makes_its_own_start(form) { OWN_START } else { otherwise }
}

/// Names that [`named`] takes, without the compositions.
fn known() -> Vec<&'static str> {
    let starts = lowrank_init::ALL.iter().map(|start| start.card().name);
    ALL.iter().map(|recipe| recipe.name).chain(starts).collect()
}

fn unknown(what: &str, name: &str, known: &[&str]) -> AppError {
    let near = known.iter().map(|known| (strsim::damerau_levenshtein(name, known), *known)).min();
    let hint = match near {
        Some((distance, near)) if distance <= name.len().max(3) / 2 => format!("; did you mean {near}?"),
        _ => format!("; known are {} (and INIT+FORM; see `lowrank list`)", known.join(", ")),
    };
    AppError::usage(format!("no {what} is called {name:?}{hint}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_recipe_names_parts_that_are_there() {
        let mut names = std::collections::BTreeSet::new();
        for recipe in ALL {
            assert!(names.insert(recipe.name), "{} is there twice", recipe.name);
            let options = recipe.init_options.iter().copied();
            if recipe.init != OWN_START {
                let start = lowrank_init::by_name(recipe.init, options).unwrap();
                assert_eq!(start.card().name, recipe.init, "the catalogue's name, no alias");
            }
            let form = lowrank_adapt::by_name(recipe.form, recipe.form_options.iter().copied()).unwrap();
            let own = form.takes() == lowrank_adapt::Takes::Nothing;
            assert_eq!(own, recipe.init == OWN_START, "{}", recipe.name);
            assert!(0.0 < recipe.rates[0] && recipe.rates[0] <= recipe.rates[1], "{}", recipe.name);
            assert_eq!(named(recipe.name).unwrap().init, recipe.init);
        }
    }

    #[test]
    fn compositions_and_bare_starts_are_methods_too() {
        assert_eq!(named("kaiming+lora").unwrap(), named("lora").unwrap());
        assert_eq!(named("kaiming").unwrap(), named("lora").unwrap());
        assert_eq!(named("LORA_GA").unwrap(), named("lora-ga").unwrap());
        let middle = named("pissa").unwrap().rate();
        assert!((middle - 3e-4).abs() < 1e-9, "{middle}");
    }

    #[test]
    fn an_unknown_part_names_its_neighbour() {
        for (name, near) in [("pisa", "pissa"), ("lora-gaa", "lora-ga"), ("pissa+lara", "lora")] {
            let message = named(name).unwrap_err().to_string();
            assert!(message.contains(&format!("did you mean {near}?")), "{message}");
        }
        assert!(named("qqqqqqqq").unwrap_err().to_string().contains("lowrank list"));
    }
}
