//! The advice for the terminal.

use std::fmt;

use super::advice::{Advice, SiteAdvice};
use super::words::percent;
use crate::adaptation::table;
use lowrank_command::page::{dashed, wrapped};

/// A rank, or that it is more than was looked at.
pub(super) fn rank_or_more(rank: Option<usize>, planned: usize) -> String {
    rank.map_or_else(|| format!(">{}", 2 * planned), |rank| rank.to_string())
}

impl fmt::Display for Advice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "effective rank of weight, inputs and gradient (– where not all of it was decomposed); parts in the first r;"
        )?;
        writeln!(f, "rank that holds {}; rank given out anew", percent(self.share))?;
        writeln!(
            f,
            "{:<40} {:>4} {:>7} {:>7} {:>7} {:>6} {:>6} {:>6} {:>9} {:>9}",
            "layer", "r", "weight", "inputs", "grad", "in W", "in X", "in G", "X/G hold", "X/G anew"
        )?;
        for site in &self.sites {
            line(f, site)?;
        }
        let summed = &self.summed;
        writeln!(
            f,
            "{:<40} {:>4} {:>7} {:>7} {:>7} {:>6} {:>6} {:>6}",
            "all",
            "",
            dashed(summed.weight_effective_rank, 1),
            dashed(summed.inputs_effective_rank, 1),
            dashed(summed.gradient_effective_rank, 1),
            "",
            percent(summed.explained),
            percent(summed.gradient_in_first)
        )?;
        writeln!(
            f,
            "\n{:<20} {:>14} {:>10} {:>10}  what the start holds",
            "first step", "gradient seen", "cosine", "layers"
        )?;
        for each in &self.methods {
            let captured = each.captured.as_ref();
            let captured = captured.map_or_else(String::new, |(what, value)| format!("{value:.3} ({what})"));
            writeln!(
                f,
                "{:<20} {:>14} {:>10} {:>10}  {captured}",
                each.name,
                each.seen.map_or_else(|| "–".to_owned(), percent),
                dashed(each.cosine, 4),
                self.sites.len() - each.refused
            )?;
        }
        let predicted: Vec<_> = self.methods.iter().filter_map(|each| each.predicted.clone()).collect();
        writeln!(f, "\n{}\n", table(&predicted))?;
        for sentence in &self.words {
            writeln!(f, "{}", wrapped(sentence, 80))?;
        }
        if let Some(file) = &self.ranks_file {
            writeln!(f, "\nranks: lowrank tune --recipe {} …", file.display())?;
        }
        write!(f, "\npage: {} ({:.0} s in all)", self.run.join("advise.html").display(), self.seconds)
    }
}

fn line(f: &mut fmt::Formatter<'_>, site: &SiteAdvice) -> fmt::Result {
    let hold = [site.rank_for_inputs, site.rank_for_gradient].map(|rank| rank_or_more(rank, site.rank));
    writeln!(
        f,
        "{:<40} {:>4} {:>7} {:>7} {:>7} {:>6} {:>6} {:>6} {:>9} {:>9}",
        site.site,
        site.rank,
        dashed(site.weight.effective_rank, 1),
        dashed(site.inputs.effective_rank, 1),
        dashed(site.gradient.effective_rank, 1),
        percent(site.weight.in_first),
        percent(site.explained),
        percent(site.gradient.in_first),
        hold.join("/"),
        format!("{}/{}", site.anew_by_inputs, site.anew_by_gradient)
    )
}
