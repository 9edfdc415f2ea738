//! Opening what the user names: a Hugging Face directory, a GGUF file, or the decoder inside this binary; and an adapter
//! on top of it.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use lowrank_adapt::forms::{Dora, Full, Lora};
use lowrank_adapt::{Form, Linear, Part};
use lowrank_attach::{StoredParts, restore, restore_parts};
use lowrank_models::{Config, Decoder, Network, Widen, is_head};
use lowrank_store::atomic::{Existing, write_folder};
use lowrank_store::peft::{AdapterFolder, Kind, Matcher, TypedFolder, Whole, kind_of};
use lowrank_store::{
    Dtype, Format, GgufFile, StoreError, TensorSource, gguf, hash, json, safetensors, tensors, text,
};
use lowrank_task::{ChatTemplate, SpecialTokens, Tokenizer, generation_eos};
use lowrank_tensor::{Matrix, cpu};

use crate::{AppError, embedded, typed, vocabulary};
use lowrank_command::Because;

/// The name under which adapters are mounted.
pub(crate) const ADAPTER: &str = "default";
/// How prompts were written in training, in an adapter's provenance: a format of `lowrank generate`.
pub(crate) const PROMPT: &str = "lowrank.prompt";
/// Names the base that an adapter belongs on, in its provenance.
pub(crate) const BASE_HASH: &str = "lowrank.base_hash";
/// Marks factors that belong on a changed base, in an adapter's provenance.
pub(crate) const OFFSET: &str = "lowrank.offset";

/// A model with what is needed to feed it.
pub struct Model<N = Decoder> {
    /// The network: a decoder, where nothing else is said.
    pub decoder: N,
    /// Its tokenizer; absent where the directory holds none.
    tokenizer: Option<Tokenizer>,
    /// Its chat template, if it has one.
    pub template: Option<ChatTemplate>,
    /// Where it came from, as the user named it.
    pub name: String,
    /// Hash of its tensors: what an adapter was made for.
    pub hash: String,
    /// The directory or file; `None` for the one inside this binary.
    pub path: Option<PathBuf>,
}

/// An adapter folder that was mounted.
#[derive(Debug, Clone, PartialEq)]
pub struct MountedFolder {
    /// Layers that it changes.
    pub layers: usize,
    /// What it says of where it comes from.
    pub provenance: BTreeMap<String, String>,
}

impl Model {
    /// Opens a model.
    ///
    /// # Errors
    /// [`AppError::Usage`] with what is missing or damaged.
    pub fn open(path: Option<&Path>, widen: Widen) -> Result<Model, AppError> {
        let Some(path) = path else {
            let file = GgufFile::from_bytes(embedded::MODEL).input("the decoder inside this binary")?;
            return Model::from_gguf(file, None, "the decoder inside lowrank", widen);
        };
        let name = path.display().to_string();
        if !path.exists() {
            return Err(AppError::usage(format!(
                "no model at {name}: give a Hugging Face directory (config.json, *.safetensors, tokenizer.json) or a \
                 GGUF file"
            )));
        }
        if path.is_file() {
            if !gguf::is_gguf(path).input("reading the model")? {
                return Err(AppError::usage(format!(
                    "{name} is not a GGUF file; for safetensors give the directory that holds config.json"
                )));
            }
            let file = GgufFile::open(path).input("reading the model")?;
            return Model::from_gguf(file, Some(path), &name, widen);
        }
        Model::from_directory(path, &name, widen)
    }

    fn from_directory(path: &Path, name: &str, widen: Widen) -> Result<Model, AppError> {
        let config_path = path.join("config.json");
        if !config_path.is_file() {
            return Err(AppError::usage(format!(
                "{name} holds no config.json; is it a Hugging Face model directory?"
            )));
        }
        let config = json::read(&config_path).input("reading the model")?;
        let config = Config::from_json(&config).input(format!("{name}/config.json"))?;
        let source: Arc<dyn TensorSource> = Arc::from(tensors::open(path).input("reading the model")?);
        let hash = hash::of_tensors(&*source).input("hashing the model")?;
        let decoder =
            Decoder::from_checkpoint(config, source, widen, &cpu()).input(format!("the model {name}"))?;
        let tokenizer = read_tokenizer(path)?;
        Model::assemble(decoder, tokenizer, Some(path), name, hash)
    }

    fn from_gguf(file: GgufFile, path: Option<&Path>, name: &str, widen: Widen) -> Result<Model, AppError> {
        let tokenizer =
            Tokenizer::from_gguf(&vocabulary::of_gguf(&file)?).input("the tokenizer of the GGUF file")?;
        let hash = hash::of_tensors(&file).input("hashing the model")?;
        let decoder = Decoder::from_gguf(file, widen, &cpu()).input(format!("the model {name}"))?;
        Model::assemble(decoder, Some(tokenizer), path, name, hash)
    }

    fn assemble(
        decoder: Decoder,
        tokenizer: Option<Tokenizer>,
        path: Option<&Path>,
        name: &str,
        hash: String,
    ) -> Result<Model, AppError> {
        let template = match &tokenizer {
            Some(tokenizer) => ChatTemplate::of(tokenizer, None).input("the model's chat template")?,
            None => None,
        };
        if let Some(tokenizer) = &tokenizer {
            fits(tokenizer, decoder.config.vocabulary, name)?;
        }
        let (name, path) = (name.to_owned(), path.map(Path::to_owned));
        Ok(Model { decoder, tokenizer, template, name, hash, path })
    }

    /// The longest sequence to use: as asked, or the context, at most 1024 tokens, when 0 is asked.
    ///
    /// # Errors
    /// [`AppError::Usage`] when the context is shorter.
    pub fn length(&self, asked: usize) -> Result<usize, AppError> {
        /// Longer rows cost memory that a user should ask for.
        const LENGTH: usize = 1024;
        match (asked, self.decoder.config.context) {
            (0, context) => Ok(context.min(LENGTH)),
            (length, context) if length > context => Err(AppError::usage(format!(
                "--max-length {length}: the model's context is {context} tokens"
            ))),
            (length, _) => Ok(length),
        }
    }

    /// Mounts an adapter folder.
    ///
    /// # Errors
    /// [`AppError::Usage`] when the folder is damaged, or was made for another model.
    pub fn mount(&mut self, folder: &Path) -> Result<MountedFolder, AppError> {
        self.mount_as(folder, ADAPTER, 1.0)
    }

    /// Mounts an adapter folder under a name, behind those that are there, its scale `times` what its configuration says.
    ///
    /// # Errors
    /// As [`Model::mount`], and for a factor other than 1 where the type of the adapter has no scale.
    pub fn mount_as(&mut self, folder: &Path, name: &str, times: f64) -> Result<MountedFolder, AppError> {
        let place = || format!("the adapter {}", folder.display());
        if folder.is_dir() && kind_of(folder).input("reading the adapter")? != Kind::Lora {
            let adapter = TypedFolder::read(folder).input("reading the adapter")?;
            self.check_base(&adapter.provenance, folder)?;
            typed::mount(self, &adapter, name, times).input(place())?;
            return Ok(MountedFolder { layers: adapter.modules.len(), provenance: adapter.provenance });
        }
        let adapter = AdapterFolder::read(folder).input("reading the adapter")?;
        self.check(&adapter, folder)?;
        self.apply_as(&adapter, name, times).input(place())?;
        Ok(MountedFolder { layers: adapter.factors.len(), provenance: adapter.provenance })
    }

    /// Whether an adapter belongs on this model, and is one that we apply.
    ///
    /// # Errors
    /// [`AppError::Usage`] with what does not fit.
    pub(crate) fn check(&self, adapter: &AdapterFolder, folder: &Path) -> Result<(), AppError> {
        self.check_use(adapter, folder)?;
        if !adapter.whole.is_empty() {
            let names: Vec<&str> = adapter.whole.iter().map(|whole| whole.name.as_str()).collect();
            return Err(AppError::usage(format!(
                "the adapter {} saves whole weights ({}), which lowrank does not apply; merge it into its base in Python \
                 (merge_and_unload), or train it without modules_to_save",
                folder.display(),
                names.join(", ")
            )));
        }
        Ok(())
    }
}

impl<N: Network> Model<N> {
    /// A network from its directory, with the tokenizer beside it; `rows` is how many tokens the network knows.
    ///
    /// # Errors
    /// [`AppError::Usage`] for a tokenizer that is damaged or of another model.
    pub(crate) fn beside(
        network: N,
        rows: usize,
        path: &Path,
        name: &str,
        hash: String,
    ) -> Result<Model<N>, AppError> {
        let tokenizer = read_tokenizer(path)?;
        if let Some(tokenizer) = &tokenizer {
            fits(tokenizer, rows, name)?;
        }
        let (name, path) = (name.to_owned(), Some(path.to_owned()));
        Ok(Model { decoder: network, tokenizer, template: None, name, hash, path })
    }

    /// Whether it came from a Hugging Face directory.
    pub(crate) fn is_directory(&self) -> bool {
        self.path.as_deref().is_some_and(Path::is_dir)
    }

    /// The tokenizer.
    ///
    /// # Errors
    /// [`AppError::Usage`] when the model came without one.
    pub fn tokenizer(&self) -> Result<&Tokenizer, AppError> {
        self.tokenizer.as_ref().ok_or_else(|| {
            AppError::usage(format!("{} holds no tokenizer.json, which is needed to read text", self.name))
        })
    }

    /// Mounts an adapter that was read, as its configuration scales it.
    ///
    /// # Errors
    /// What does not fit, for the caller to say whose fault it is.
    pub(crate) fn apply(&mut self, adapter: &AdapterFolder) -> Result<(), String> {
        self.apply_as(adapter, ADAPTER, 1.0)
    }

    fn apply_as(&mut self, adapter: &AdapterFolder, name: &str, times: f64) -> Result<(), String> {
        let matcher = Matcher::new(&adapter.config).map_err(|error| error.to_string())?;
        // Only the model knows which modules a suffix or a pattern names; the folder alone cannot miss them.
        for (site, _) in self.decoder.sites() {
            let head_aside = adapter.config.targets.is_all_linear() && is_head(&site);
            if matcher.is_target(&site) && !head_aside && adapter.factor(&site).is_none() {
                return Err(format!(
                    "target_modules names {site:?} too, but the adapter holds no factors for it; tensors are missing"
                ));
            }
        }
        let form: &dyn Form = if adapter.config.dora { &Dora } else { &Lora::DEFAULT };
        restore(&mut self.decoder, &adapter.factors, &|site| times * matcher.scale(site), form, name)
            .map_err(|error| error.to_string())?;
        if let Err(error) = self.apply_whole(&adapter.whole, name) {
            self.unmount_named(name).map_err(|error| error.to_string())?;
            return Err(error);
        }
        Ok(())
    }

    /// Takes the adapter off again.
    ///
    /// # Errors
    /// [`AppError::Failed`] naming the layer.
    pub(crate) fn unmount(&mut self) -> Result<(), AppError> {
        self.unmount_named(ADAPTER)
    }

    pub(crate) fn unmount_named(&mut self, adapter: &str) -> Result<(), AppError> {
        for (name, linear) in self.decoder.sites_mut() {
            if linear.adapters().iter().any(|mounted| mounted.name == adapter) {
                linear.unmount(adapter).while_doing(&name)?;
            }
        }
        Ok(())
    }

    /// Whether an adapter belongs on this model and is of a kind that is applied, whole layers aside.
    ///
    /// # Errors
    /// [`AppError::Usage`] with what does not fit.
    pub(crate) fn check_use(&self, adapter: &AdapterFolder, folder: &Path) -> Result<(), AppError> {
        self.check_base(&adapter.provenance, folder)?;
        if adapter.provenance.contains_key(OFFSET) {
            return Err(AppError::usage(format!(
                "{} holds the factors that a training began with, which belong on a changed base; give the adapter folder \
                 around it",
                folder.display()
            )));
        }
        if let Some(key) = adapter.config.unsupported() {
            return Err(AppError::usage(format!(
                "the adapter {} uses {key}, which lowrank does not apply",
                folder.display()
            )));
        }
        Ok(())
    }

    /// Whether an adapter belongs on this model, as far as it tells.
    fn check_base(&self, provenance: &BTreeMap<String, String>, folder: &Path) -> Result<(), AppError> {
        if let Some(base) = provenance.get(BASE_HASH)
            && *base != self.hash
        {
            return Err(AppError::usage(format!(
                "the adapter {} was made for another model: its base has hash {base}, {} has {}",
                folder.display(),
                self.name,
                self.hash
            )));
        }
        Ok(())
    }

    /// Puts layers in that an adapter stores whole, as changes of those that the model has.
    fn apply_whole(&mut self, whole: &[Whole], name: &str) -> Result<(), String> {
        let sites: BTreeMap<String, &Linear> = self.decoder.sites().into_iter().collect();
        let mut stored: BTreeMap<bool, Vec<StoredParts>> = BTreeMap::new();
        for weight in whole.iter().filter(|each| each.name.ends_with(".weight")) {
            let module = weight.name.trim_end_matches(".weight");
            let linear = sites.get(module).ok_or_else(|| format!("this model has no layer {module}"))?;
            let base = linear.frozen().map_err(|error| error.to_string())?;
            let change = |now: &[f32], before: &Matrix| -> Vec<f32> {
                now.iter().zip(before.to_f32()).map(|(now, before)| now - before).collect()
            };
            let [out, inp] = base.shape();
            if weight.shape != [out, inp] {
                return Err(format!("{} is {:?}, the model has [{out}, {inp}]", weight.name, weight.shape));
            }
            let mut parts = vec![Part::new("delta", &[out, inp], change(&weight.values, base))];
            let bias = whole.iter().find(|each| each.name == format!("{module}.bias"));
            match (bias, linear.bias()) {
                (Some(bias), Some(before)) if bias.values.len() == out => {
                    parts.push(Part::new("bias", &[1, out], change(&bias.values, before)));
                }
                (None, _) => {}
                (Some(_), _) => return Err(format!("the bias of {module} does not fit the model")),
            }
            let (module, shape) = (module.to_owned(), Some([out, inp]));
            stored.entry(bias.is_some()).or_default().push(StoredParts { module, shape, rank: 1, parts });
        }
        for (bias, parts) in stored {
            restore_parts(&mut self.decoder, parts, &|_| 1.0, &Full { bias }, name)
                .map_err(|error| error.to_string())?;
        }
        Ok(())
    }
}

/// Refuses a tokenizer with more tokens than the model has rows for.
fn fits(tokenizer: &Tokenizer, rows: usize, name: &str) -> Result<(), AppError> {
    let tokens = tokenizer.vocabulary_size();
    if tokens <= rows {
        return Ok(());
    }
    Err(AppError::usage(format!(
        "the tokenizer of {name} has {tokens} tokens, the embedding {rows} rows; they do not belong together"
    )))
}

/// `tokenizer.json` with the special tokens of its neighbours.
fn read_tokenizer(path: &Path) -> Result<Option<Tokenizer>, AppError> {
    let file = path.join("tokenizer.json");
    if !file.is_file() {
        return Ok(None);
    }
    let document = text::read(&file).input("reading the tokenizer")?;
    let mut tokenizer = Tokenizer::from_json(document.as_bytes()).input(file.display())?;
    let config = path.join("tokenizer_config.json");
    if config.is_file() {
        let mut special =
            SpecialTokens::from_tokenizer_config(&json::read(&config).input("reading the tokenizer")?)
                .input(config.display())?;
        // Newer exports keep the template in a file of its own.
        let template = path.join("chat_template.jinja");
        if template.is_file() {
            special.chat_template = Some(text::read(&template).input("reading the chat template")?);
        }
        tokenizer = tokenizer.with_special_tokens(&special).input(config.display())?;
    }
    for name in ["generation_config.json", "config.json"] {
        let file = path.join(name);
        if file.is_file() {
            let eos = generation_eos(&json::read(&file).input("reading the model")?).input(file.display())?;
            if !eos.is_empty() {
                return Ok(Some(tokenizer.with_eos(&eos).input(file.display())?));
            }
        }
    }
    Ok(Some(tokenizer))
}

/// What to know of a directory written from a GGUF file.
pub(crate) const NO_TOKENIZER: &str = "note: no tokenizer was written, because a GGUF model has no tokenizer.json: copy the \
                                       tokenizer files of the original model into the folder";

/// Writes the model's weights as a Hugging Face directory, with the tokenizer files beside them where the model is a
/// directory itself.
///
/// # Errors
/// [`AppError::Failed`] when the folder cannot be written; [`AppError::Usage`] when it exists.
pub(crate) fn write_directory(
    model: &Model,
    out: &Path,
    format: Format,
    existing: Existing,
) -> Result<(), AppError> {
    let mut tensors: Vec<(String, Vec<usize>, Vec<u8>)> = Vec::new();
    for weight in model.decoder.named_weights() {
        let bytes = lowrank_blocks::narrow(format, &weight.values.to_f32()).while_doing(&weight.name)?;
        tensors.push((weight.name, weight.shape, bytes));
    }
    let entries: Vec<safetensors::Entry<'_>> = tensors
        .iter()
        .map(|(name, shape, bytes)| safetensors::Entry { name, dtype: Dtype::Real(format), shape, bytes })
        .collect();
    let metadata = [("format".to_owned(), "pt".to_owned())].into();
    let mut config = match &model.path {
        Some(path) if path.is_dir() => json::read(&path.join("config.json")).input("reading the model")?,
        _ => model.decoder.config.to_json(),
    };
    set_dtype(&mut config, format);
    let written = write_folder(out, existing, |folder| {
        folder.file("config.json", |sink| sink.write_all(json::sorted_text(&config).as_bytes()))?;
        folder.file(safetensors::SINGLE_NAME, |sink| safetensors::write_to(sink, &entries, &metadata))?;
        for (name, file) in tokenizer_files(model.path.as_deref()) {
            let content = text::read(&file)?;
            folder.file(name, |sink| sink.write_all(content.as_bytes()))?;
        }
        Ok(())
    });
    written.map_err(|error| match error {
        StoreError::Exists { .. } => AppError::usage(error.to_string()),
        other => AppError::failed(other.to_string()),
    })
}

/// The files that [`write_directory`] writes for a model that came from there.
pub(crate) fn directory_files(path: Option<&Path>) -> Vec<&'static str> {
    let tokenizer = tokenizer_files(path).into_iter().map(|(name, _)| name);
    ["config.json", safetensors::SINGLE_NAME].into_iter().chain(tokenizer).collect()
}

/// The files beside the weights that a Hugging Face directory has, with their paths.
fn tokenizer_files(path: Option<&Path>) -> Vec<(&'static str, PathBuf)> {
    let Some(path) = path.filter(|path| path.is_dir()) else { return Vec::new() };
    let files = TOKENIZER_FILES.into_iter().map(|name| (name, path.join(name)));
    files.filter(|(_, file)| file.is_file()).collect()
}

/// Says the number format under the one name that the file uses: `dtype` wins over `torch_dtype` in transformers 5, older
/// ones know only the latter.
fn set_dtype(config: &mut serde_json::Value, format: Format) {
    let name = match format {
        Format::BF16 => "bfloat16",
        Format::F16 => "float16",
        _ => "float32",
    };
    let key = if config.get("dtype").is_some() { "dtype" } else { "torch_dtype" };
    if let Some(entries) = config.as_object_mut() {
        entries.remove("torch_dtype");
        entries.insert(key.to_owned(), name.into());
    }
}

/// Files that go with a model's weights.
const TOKENIZER_FILES: [&str; 8] = [
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "generation_config.json",
    "chat_template.jinja",
    "vocab.json",
    "merges.txt",
    "added_tokens.json",
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_configuration_says_its_number_format_once() {
        for (before, after) in [
            (r#"{"dtype":"bfloat16","torch_dtype":"bfloat16"}"#, r#"{"dtype":"float16"}"#),
            (r#"{"torch_dtype":"bfloat16"}"#, r#"{"torch_dtype":"float16"}"#),
            (r#"{"a":1}"#, r#"{"a":1,"torch_dtype":"float16"}"#),
        ] {
            let mut config = serde_json::from_str(before).unwrap();
            set_dtype(&mut config, Format::F16);
            assert_eq!(config.to_string(), after);
        }
    }
}
