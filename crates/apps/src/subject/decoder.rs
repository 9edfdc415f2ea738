//! Decoders on text.

use std::path::Path;

use lowrank_eval::{layout, total_loss};
use lowrank_models::Decoder;
use lowrank_models::network::Text;
use lowrank_record::Seed;
use lowrank_store::atomic::Existing;
use lowrank_task::{
    Batch, BatchPlan, Batching, Example, Held, Kind, Layout, Summary, TaskError, TokenizedQuestion,
};
use lowrank_tensor::ops::{self, Targets};
use lowrank_tensor::to_rows;
use lowrank_train::Failure;

use super::{Epoch, Laying, Opened, Order, Sides, Subject};
use crate::choices::{FormatChoice, Shown};
use crate::data::{self, Data, Reading, read};
use crate::ground::Adaptation;
use crate::model::{PROMPT, write_directory};
use crate::objective::batches;
use crate::{AppError, Model, Progress, questions};
use lowrank_command::Because;

impl Epoch<Batch> for BatchPlan<'_> {
    fn batches(&self) -> usize {
        BatchPlan::batches(self)
    }

    fn places(&self) -> Vec<usize> {
        BatchPlan::places(self)
    }

    fn batch(&self, index: usize) -> Result<Batch, TaskError> {
        BatchPlan::batch(self, index)
    }
}

impl Laying for Batching {
    fn batching(&self) -> Batching {
        *self
    }

    fn with_rows(&self, rows: usize) -> Batching {
        Batching { batch: rows, ..*self }
    }
}

impl Subject for Decoder {
    type Example = Example;
    type Rows = Batch;
    type Summary = Summary;
    type Laying = Batching;

    fn open(options: &Adaptation, progress: &mut dyn Progress) -> Result<Opened<Decoder>, AppError> {
        if options.model.is_some() && options.data.is_none() {
            return Err(AppError::usage(
                "--data FILE is needed with --model: what should the adapter learn?",
            ));
        }
        let model = Model::open(options.model.as_deref(), options.widen.hold())?;
        progress.say(&Decoder::introduce(&model));
        let max_length = model.length(options.max_length)?;
        let reading = Reading {
            data: options.data.as_deref(),
            held_out_data: options.held_out_data.as_deref(),
            held_out: options.held_out,
            eval_limit: options.eval_limit,
            limit: options.limit,
            layout: Layout { format: options.format.format(), loss_on: options.loss_on.learn(), max_length },
        };
        let data = read(&reading, &model, Seed(options.seed))?;
        let longest =
            data.train.iter().chain(&data.held_out).map(|example| example.tokens.len()).max().unwrap_or(2);
        // Rows are as long as the longest record unless packing can fill longer ones.
        let time = if options.packing { max_length.min(longest.max(256)) } else { longest };
        let laying =
            Batching { batch: options.batch, time, packing: options.packing, pad: model.tokenizer()?.pad() };
        Ok(Opened { model, data, laying })
    }

    fn epoch<'a>(
        examples: &'a [Example],
        laying: Batching,
        order: Order,
    ) -> Result<Box<dyn Epoch<Batch> + 'a>, TaskError> {
        Ok(Box::new(match order {
            Order::Drawn(seed, epoch) => BatchPlan::new(examples, laying, seed, epoch)?,
            Order::Fixed => BatchPlan::in_order(examples, laying)?,
        }))
    }

    fn fed(rows: &Batch) -> Text {
        Text {
            tokens: rows.tokens.clone(),
            targets: Targets { ids: rows.targets.clone().into(), weights: None },
            layout: layout(rows),
        }
    }

    fn shown(rows: &Batch, shown: Shown) -> Vec<Vec<bool>> {
        let let_in = |held: &Held| match shown {
            Shown::All => *held != Held::Padding,
            Shown::Learned => *held == Held::Learned,
        };
        vec![rows.held.iter().map(let_in).collect()]
    }

    fn filled(rows: &Batch) -> usize {
        rows.filled
    }

    fn evaluate_all(&self, held_out: &[Batch]) -> Result<(f64, f64), Failure> {
        let (loss_sum, tokens) = total_loss(self, held_out, &mut |_| true)?;
        Ok((loss_sum, tokens as f64))
    }

    fn hash(examples: &[Example]) -> String {
        data::hash(examples)
    }

    fn held_out_line(summary: &Summary) -> String {
        let (read, truncated, dropped) = (summary.read, summary.truncated, summary.dropped);
        format!("{read} records, {truncated} truncated, {dropped} dropped with nothing left to learn")
    }

    fn introduce(model: &Model) -> String {
        format!(
            "model: {} ({} layers, {:.1} M parameters, {:.0} MB in memory)",
            model.name,
            model.decoder.config.layers,
            model.decoder.config.parameters() as f64 / 1e6,
            model.decoder.bytes() as f64 / 1e6
        )
    }

    fn token_rows(file: &Path, model: &Model) -> Result<Vec<Vec<u32>>, AppError> {
        data::token_rows(file, model)
    }

    fn laid(rows: Vec<Vec<u32>>, laying: Batching) -> Result<Vec<Batch>, TaskError> {
        let rows: Vec<Example> = rows.into_iter().map(whole_row).collect();
        let time = rows.iter().map(|row| row.tokens.len()).max().unwrap_or(2);
        batches(&rows, Batching { time, packing: false, ..laying })
    }

    fn questions(
        file: &Path,
        format: FormatChoice,
        model: &Model,
    ) -> Result<Vec<TokenizedQuestion>, AppError> {
        questions::read(file, 0, format, model)
    }

    fn ask(
        asked: &[TokenizedQuestion],
        file: &Path,
        model: &Model,
        progress: &mut dyn Progress,
    ) -> Result<f64, AppError> {
        Ok(questions::ask(asked, file, model, progress)?.accuracy)
    }

    fn sample(&self) -> Result<Vec<f32>, AppError> {
        let config = &self.config;
        let time = 16.min(config.context);
        let tokens: Vec<u32> =
            (0..2 * time).map(|index| ((index * 7919 + 13) % config.vocabulary) as u32).collect();
        let logits = self.logits(&tokens, &ops::Layout::dense(2, time)).while_doing("running the model")?;
        Ok(to_rows(logits))
    }

    fn sides(&self) -> Sides {
        let config = &self.config;
        Sides {
            vocabulary: config.vocabulary,
            hidden: config.hidden,
            intermediate: config.intermediate,
            layers: config.layers,
            heads: config.heads,
            head_dim: config.head_dim,
            kv_heads: config.kv_heads,
        }
    }

    fn peft_task(&self) -> Option<&'static str> {
        Some("CAUSAL_LM")
    }

    fn is_transposed(&self) -> bool {
        self.config.family.is_conv1d()
    }

    fn provenance(data: &Data) -> Vec<(&'static str, String)> {
        // The format of `lowrank generate` that writes a prompt as the training did.
        let format = match data.summary.kind {
            _ if data.summary.chat => "chat",
            Kind::QuestionAnswer => "plain",
            _ => "raw",
        };
        vec![(PROMPT, format.to_owned())]
    }

    fn admits_base(_out: &Path) -> Result<(), AppError> {
        Ok(())
    }

    fn write_base(model: &Model, out: &Path, existing: Existing) -> Result<(), AppError> {
        write_directory(model, out, lowrank_store::Format::F32, existing)
    }
}

/// A row of which every token behind the first carries loss.
fn whole_row(tokens: Vec<u32>) -> Example {
    let loss = (0..tokens.len()).map(|index| index > 0).collect();
    Example { tokens, loss, next: None, line: 0 }
}
