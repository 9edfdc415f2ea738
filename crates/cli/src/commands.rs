//! The subcommands: each is an application with its options.

use std::io::{ErrorKind, Write as _};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use clap::{Arg, ArgAction, ArgMatches, Args, Command, value_parser};
use lowrank_apps::{
    advise, catalogue, combine, compare, evaluate, export, generate, inspect, merge, pretrain, reference,
    regime, study, tune,
};
use lowrank_command::{AppError, Progress as _, options as recipe};
use lowrank_labs::recovery::command as recovery;
use lowrank_labs::studies as laboratory;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::terminal::{Show, Terminal};

/// The whole command line.
pub fn command() -> Command {
    Command::new("lowrank")
        .about(
            "Low-rank adapters: choose where they start, train them, hand them to PEFT, vLLM and llama.cpp",
        )
        .version(env!("CARGO_PKG_VERSION"))
        .subcommand_required(true)
        .arg_required_else_help(true)
        .max_term_width(100)
        .arg(global("quiet", "Show nothing but results and errors"))
        .arg(global("json", "Print results as JSON"))
        .arg(
            Arg::new("threads")
                .long("threads")
                .global(true)
                .value_name("N")
                .value_parser(value_parser!(usize))
                .help("Threads to compute with; without it all cores"),
        )
        .subcommand(with_recipe::<tune::Tune>(
            "tune",
            "Start and train an adapter; without arguments a demonstration",
        ))
        .subcommand(with_recipe::<tune::Tune>(
            "init",
            "Start an adapter without training it, for people who go on in Python",
        ))
        .subcommand(with_recipe::<compare::Compare>(
            "compare",
            "Find out which method suits a model and its data: tuned alike, same batches, paired seeds",
        ))
        .subcommand(plain::<advise::Advise>(
            "advise",
            "Look at a model and its data in one pass: spectra, what starts see of the gradient, ranks, memory",
        ))
        .subcommand(with_recipe::<study::Study>(
            "study",
            "See whether a paper's claim holds: its scaled-down experiment, or a verdict on a comparison",
        ))
        .subcommand(
            plain::<recovery::Recover>(
                "recover",
                "Find the low-rank matrix behind some of its entries, noisy or grossly wrong, and fill in the others",
            )
            .args_conflicts_with_subcommands(true)
            .subcommand_negates_reqs(true)
            .subcommand(plain::<recovery::Predict>("predict", "Entries of a matrix that was recovered")),
        )
        .subcommand(plain::<regime::Regime>(
            "regime",
            "Tell whether a finished run learned richly or lazily: how far, along what, inside its start or not",
        ))
        .subcommand(plain::<merge::Merge>("merge", "Write the model with an adapter merged into its weights"))
        .subcommand(plain::<combine::Combine>(
            "combine",
            "Make one adapter of several for one base: sums, TIES, DARE, as PEFT's add_weighted_adapter",
        ))
        .subcommand(plain::<export::Export>(
            "export",
            "Rewrite an adapter for one reader: PEFT, vLLM, llama.cpp, mistral.rs, MLX",
        ))
        .subcommand(plain::<inspect::Inspect>("inspect", "Show what an adapter, model or checkpoint holds"))
        .subcommand(plain::<evaluate::Evaluate>(
            "eval",
            "Perplexity and multiple choice, or logits, of a model with or without an adapter",
        ))
        .subcommand(plain::<generate::Generate>("generate", "Continue a prompt"))
        .subcommand(Command::new("list").about("List every start, form, optimiser and combination"))
        .subcommand(
            Command::new("explain")
                .about("Explain a start, form, optimiser or combination: formula, source, choices, where we differ")
                .arg(Arg::new("name").required(true).help("As shown by `lowrank list`")),
        )
        .subcommand(with_recipe::<pretrain::Pretrain>(
            "pretrain",
            "Train a small decoder from scratch; made the one inside this binary",
        ))
        .subcommand(
            plain::<reference::Reference>("reference", "Write the reference pages from the catalogue")
                .hide(true),
        )
}

fn global(name: &'static str, help: &'static str) -> Arg {
    Arg::new(name).long(name).global(true).action(ArgAction::SetTrue).help(help)
}

fn plain<T: Args>(name: &'static str, about: &'static str) -> Command {
    // After the options, whose own description would take its place.
    T::augment_args(Command::new(name)).about(about).long_about(about)
}

/// A command whose options may also come from a recipe file.
fn with_recipe<T: Args>(name: &'static str, about: &'static str) -> Command {
    plain::<T>(name, about)
        .arg(
            Arg::new("recipe")
                .long("recipe")
                .value_name("FILE")
                .value_parser(value_parser!(PathBuf))
                .help("Read options from a TOML file; flags win over it"),
        )
        .arg(
            Arg::new("print-recipe")
                .long("print-recipe")
                .action(ArgAction::SetTrue)
                .help("Check the options and print them as a recipe file, every default filled in, and stop"),
        )
        .arg(
            Arg::new("dry-run")
                .long("dry-run")
                .action(ArgAction::SetTrue)
                .help("Show what would be done and what it would cost, and stop"),
        )
}

/// Runs the chosen subcommand, on a thread of the pool: from outside, every parallel loop would wake a sleeping thread.
pub fn run(matches: &ArgMatches, stop: Arc<AtomicBool>) -> Result<(), AppError> {
    let mut pool = rayon::ThreadPoolBuilder::new();
    if let Some(&threads) = matches.get_one::<usize>("threads") {
        if threads == 0 {
            return Err(AppError::usage("--threads 0: give at least 1"));
        }
        pool = pool.num_threads(threads);
    }
    let pool = pool.build().map_err(|error| AppError::failed(format!("starting threads: {error}")))?;
    pool.install(|| dispatch(matches, stop))
}

fn dispatch(matches: &ArgMatches, stop: Arc<AtomicBool>) -> Result<(), AppError> {
    let show = if matches.get_flag("quiet") { Show::Quiet } else { Show::Progress };
    let mut terminal = Terminal::new(show, stop);
    let json = matches.get_flag("json");
    let Some((name, matches)) = matches.subcommand() else { return Ok(()) };
    match name {
        "tune" => {
            let options = options::<tune::Tune>(matches)?;
            if matches.get_flag("print-recipe") {
                return print_out(&tune::recipe(&options, &mut terminal)?);
            }
            if matches.get_flag("dry-run") {
                return show_result(&tune::dry_run(&options, &mut terminal)?, json);
            }
            show_result(&tune::tune(&options, &mut terminal)?, json)
        }
        "init" => {
            let options = options::<tune::Tune>(matches)?;
            if matches.get_flag("print-recipe") {
                return print_out(&tune::recipe(&options, &mut terminal)?);
            }
            if matches.get_flag("dry-run") {
                return show_result(&tune::init_dry_run(&options, &mut terminal)?, json);
            }
            show_result(&tune::init(&options, &mut terminal)?, json)
        }
        "compare" => {
            let options = options::<compare::Compare>(matches)?;
            if matches.get_flag("print-recipe") {
                return print_out(&compare::recipe(&options, &mut terminal)?);
            }
            if matches.get_flag("dry-run") {
                return show_result(&compare::dry_run(&options, &mut terminal)?, json);
            }
            show_result(&compare::compare(&options, &mut terminal)?, json)
        }
        "study" => {
            let options = options::<study::Study>(matches)?;
            if options.name.as_deref().is_some_and(|name| laboratory::find(name).is_some()) {
                return of_laboratory(&options, matches, &mut terminal, json);
            }
            if options.name.is_none() && options.verdict.is_none() {
                return list_studies(&options, &mut terminal, json);
            }
            if matches.get_flag("print-recipe") {
                return print_out(&study::recipe(&options)?);
            }
            if matches.get_flag("dry-run") {
                return show_result(&study::dry_run(&options)?, json);
            }
            show_result(&study::study(&options, &mut terminal)?, json)
        }
        "pretrain" => {
            let options = options::<pretrain::Pretrain>(matches)?;
            if matches.get_flag("print-recipe") {
                return print_out(&recipe::print(&options)?);
            }
            if matches.get_flag("dry-run") {
                return show_result(&pretrain::dry_run(&options)?, json);
            }
            show_result(&pretrain::pretrain(&options, &mut terminal)?, json)
        }
        "advise" => show_result(&advise::advise(&typed(matches)?, &mut terminal)?, json),
        "recover" => match matches.subcommand() {
            Some((_, matches)) => show_result(&recovery::predict(&typed(matches)?)?, json),
            None => show_result(&recovery::recover(&typed(matches)?, &mut terminal)?, json),
        },
        "regime" => show_result(&regime::regime(&typed(matches)?, &mut terminal)?, json),
        "merge" => show_result(&merge::merge(&typed(matches)?, &mut terminal)?, json),
        "combine" => show_result(&combine::combine(&typed(matches)?, &mut terminal)?, json),
        "export" => show_result(&export::export(&typed(matches)?, &mut terminal)?, json),
        "inspect" => show_result(&inspect::inspect(&typed(matches)?)?, json),
        "eval" => show_result(&evaluate::evaluate(&typed(matches)?, &mut terminal)?, json),
        "generate" => {
            let mut out = std::io::stdout();
            let outcome = generate::generate(&typed(matches)?, &mut terminal, &mut |text| {
                if !json {
                    // A text that cannot be shown is told of at its end.
                    let _ = out.write_all(text.as_bytes()).and_then(|()| out.flush());
                }
            })?;
            if json {
                return show_result(&outcome, true);
            }
            print_out("\n")?;
            for result in &outcome.results {
                let speed = result.tokens_per_second;
                let speed = speed.map_or_else(String::new, |speed| format!(", {speed:.1} tokens/s"));
                terminal.say(&format!("{} tokens behind {}{speed}", result.tokens, result.prompt_tokens));
            }
            Ok(())
        }
        "list" => show_result(&catalogue::list(), json),
        "explain" => {
            let name = matches.get_one::<String>("name").map_or("", String::as_str);
            show_result(&catalogue::explain(name)?, json)
        }
        "reference" => show_result(&reference::reference(&typed(matches)?)?, json),
        other => Err(AppError::usage(format!("unknown command {other}"))),
    }
}

/// A study of the laboratories: it has fewer choices than one of adapters.
fn of_laboratory(
    options: &study::Study,
    matches: &ArgMatches,
    terminal: &mut Terminal,
    json: bool,
) -> Result<(), AppError> {
    let name = options.name.clone().unwrap_or_default();
    let others = [
        ("--steps", options.steps.is_some()),
        ("--tuning-seeds", options.tuning_seeds.is_some()),
        ("--verdict", options.verdict.is_some()),
    ];
    if let Some((flag, _)) = others.iter().find(|(_, given)| *given) {
        return Err(AppError::usage(format!("{flag} is of studies of adapters; {name} has none")));
    }
    let study::Study { seeds, seed, quick, ref run, overwrite, .. } = *options;
    let asked = laboratory::Asked { name, seeds, seed, quick, run: run.clone(), overwrite };
    if matches.get_flag("print-recipe") {
        return print_out(&asked.recipe()?);
    }
    if matches.get_flag("dry-run") {
        let (asked, listed) = (asked.resolved()?, laboratory::find(&asked.name));
        let listed = listed.map(ToString::to_string).unwrap_or_default();
        return print_out(&format!("{listed}\n{} problems\n", asked.seeds.unwrap_or_default()));
    }
    show_result(&laboratory::study(&asked, terminal)?, json)
}

/// Every study, of adapters and of the laboratories.
fn list_studies(options: &study::Study, terminal: &mut Terminal, json: bool) -> Result<(), AppError> {
    let of_adapters = study::study(options, terminal)?;
    if json {
        let lists = [serde_json::to_value(of_adapters), serde_json::to_value(laboratory::STUDIES)];
        let mut all = Vec::new();
        for list in lists {
            let list = list.map_err(|error| AppError::failed(error.to_string()))?;
            all.extend(list.as_array().cloned().unwrap_or_default());
        }
        return print_out(&format!("{:#}\n", serde_json::Value::Array(all)));
    }
    let of_laboratories = laboratory::STUDIES.map(|listed| format!("{listed}\n")).concat();
    print_out(&format!("{of_adapters}{of_laboratories}"))
}

/// Options from flags alone.
fn typed<T: Args>(matches: &ArgMatches) -> Result<T, AppError> {
    T::from_arg_matches(matches).map_err(|error| AppError::usage(error.to_string()))
}

/// Options from flags and recipe.
fn options<T: Args + Serialize + DeserializeOwned>(matches: &ArgMatches) -> Result<T, AppError> {
    let file = matches.get_one::<PathBuf>("recipe").map(|path| recipe::read(path)).transpose()?;
    recipe::resolve(file.as_deref(), matches)
}

/// A result for a person or for a program.
fn show_result<T: Serialize + std::fmt::Display>(result: &T, json: bool) -> Result<(), AppError> {
    if json {
        let text =
            serde_json::to_string_pretty(result).map_err(|error| AppError::failed(error.to_string()))?;
        print_out(&format!("{text}\n"))
    } else {
        let text = result.to_string();
        if text.is_empty() { Ok(()) } else { print_out(&format!("{}\n", text.trim_end())) }
    }
}

/// Writes to standard output. A reader that has seen enough (`| head`) is no error.
fn print_out(text: &str) -> Result<(), AppError> {
    let mut out = std::io::stdout();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(error) if error.kind() != ErrorKind::BrokenPipe => {
            Err(AppError::failed(format!("writing the result to standard output: {error}")))
        }
        _ => Ok(()),
    }
}
