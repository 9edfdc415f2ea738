//! Conversations written out as the model expects them, by its own chat template.

mod functions;
mod spans;

use minijinja::{Environment, context};
use serde_json::Value;

pub use self::functions::Date;
pub use self::spans::{LossOn, Marked};
use crate::error::TaskError;
use crate::tokenizer::Tokenizer;

/// A model's chat template, Jinja, with what the `transformers` library gives to templates: `messages`,
/// `add_generation_prompt`, `bos_token`, `eos_token`, `tools` (always none), `raise_exception`, `strftime_now` (only with a
/// date), `tojson`, loop controls, the methods of Python's strings and dictionaries, blocks trimmed left and right.
#[derive(Debug)]
pub struct ChatTemplate {
    environment: Environment<'static>,
    bos: Option<String>,
    eos: Option<String>,
}

const NAME: &str = "chat";

impl ChatTemplate {
    /// Reads a template.
    ///
    /// `bos` and `eos` are the texts of the special tokens, undefined in the template when `None`; `date` is the day
    /// that `strftime_now` gives.
    ///
    /// # Errors
    /// [`TaskError::TemplateSyntax`].
    pub fn new(
        source: &str,
        bos: Option<&str>,
        eos: Option<&str>,
        date: Option<Date>,
    ) -> Result<Self, TaskError> {
        let mut environment = Environment::new();
        environment.set_trim_blocks(true);
        environment.set_lstrip_blocks(true);
        environment.set_unknown_method_callback(minijinja_contrib::pycompat::unknown_method_callback);
        functions::add(&mut environment, date);
        environment
            .add_template_owned(NAME, without_generation_blocks(source))
            .map_err(|e| TaskError::TemplateSyntax { detail: detail(&e) })?;
        Ok(ChatTemplate { environment, bos: bos.map(str::to_owned), eos: eos.map(str::to_owned) })
    }

    /// The template that came with a tokenizer; `None` when it has none.
    ///
    /// # Errors
    /// [`TaskError::TemplateSyntax`].
    pub fn of(tokenizer: &Tokenizer, date: Option<Date>) -> Result<Option<Self>, TaskError> {
        let text = |id: Option<u32>| id.and_then(|id| tokenizer.token_text(id));
        let (bos, eos) = (text(tokenizer.bos()), text(tokenizer.eos().first().copied()));
        let source = tokenizer.chat_template();
        source.map(|source| Self::new(source, bos.as_deref(), eos.as_deref(), date)).transpose()
    }

    /// Writes a conversation; with `add_generation_prompt`, up to where the model begins its answer.
    ///
    /// # Errors
    /// [`TaskError::TemplateRender`], with the template's own words when it raises an exception.
    pub fn render(&self, messages: &[Value], add_generation_prompt: bool) -> Result<String, TaskError> {
        let mut given = context! { messages, add_generation_prompt, tools => () };
        if let Some(bos_token) = &self.bos {
            given = context! { bos_token, ..given };
        }
        if let Some(eos_token) = &self.eos {
            given = context! { eos_token, ..given };
        }
        let template = self.environment.get_template(NAME);
        template
            .and_then(|template| template.render(given))
            .map_err(|e| TaskError::TemplateRender { detail: detail(&e) })
    }
}

fn detail(error: &minijinja::Error) -> String {
    error.to_string()
}

/// Some templates mark the assistant's words with `{% generation %}` blocks, which only `transformers` knows. They
/// print nothing, so a block that is always entered writes the same.
fn without_generation_blocks(source: &str) -> String {
    let mut out = String::with_capacity(source.len());
    let mut rest = source;
    while let Some(open) = rest.find("{%") {
        let Some(length) = rest[open..].find("%}") else { break };
        let (before, tag) = rest[..open + length + 2].split_at(open);
        out.push_str(before);
        let word = tag.trim_start_matches("{%").trim_end_matches("%}").trim_matches(['-', '+']).trim();
        out.push_str(&match word {
            "generation" => tag.replace("generation", "if true"),
            "endgeneration" => tag.replace("endgeneration", "endif"),
            _ => tag.to_owned(),
        });
        rest = &rest[open + length + 2..];
    }
    out.push_str(rest);
    out
}

#[cfg(test)]
pub(crate) mod tests {
    use serde_json::json;

    use super::*;
    use crate::test_tokenizers::{CHATML, bytes};

    /// In the manner of Llama 3.
    pub const LLAMA3: &str = "{{- bos_token }}\n{%- if strftime_now is defined %}\n    {%- set today = strftime_now(\"%d %b %Y\") %}\n{%- else %}\n    {%- set today = \"26 Jul 2024\" %}\n{%- endif %}\n{%- if messages[0]['role'] == 'system' %}\n    {%- set system = messages[0]['content'].strip() %}\n    {%- set messages = messages[1:] %}\n{%- else %}\n    {%- set system = '' %}\n{%- endif %}\n{{- '<|start|>system<|end|>\\n\\nToday: ' + today + '\\n' + system + '<|eot|>' }}\n{%- for message in messages %}\n    {%- if message.role not in ['user', 'assistant'] %}\n        {{- raise_exception('unknown role ' + message.role) }}\n    {%- endif %}\n    {{- '<|start|>' + message['role'] + '<|end|>\\n\\n' + message['content'] | trim + '<|eot|>' }}\n{%- endfor %}\n{%- if add_generation_prompt %}\n    {{- '<|start|>assistant<|end|>\\n\\n' }}\n{%- endif %}\n";

    pub fn turns(contents: &[(&str, &str)]) -> Vec<Value> {
        contents.iter().map(|(role, content)| json!({"role": role, "content": content})).collect()
    }

    #[test]
    fn chatml_is_written() {
        let template = ChatTemplate::of(&bytes(), None).unwrap().unwrap();
        let messages = turns(&[("user", "Hi"), ("assistant", "Ho")]);
        let expected = "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\nHo<|im_end|>\n";
        assert_eq!(template.render(&messages, false).unwrap(), expected);
        let asked = template.render(&messages[..1], true).unwrap();
        assert_eq!(asked, "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n");
    }

    #[test]
    fn llama_3_is_written_with_its_own_or_the_given_day() {
        let messages = turns(&[("system", " Be kind. "), ("user", " Hi ")]);
        let write = |date| {
            ChatTemplate::new(LLAMA3, Some("<s>"), None, date).unwrap().render(&messages, true).unwrap()
        };
        let expected = "<s><|start|>system<|end|>\n\nToday: 26 Jul 2024\nBe kind.<|eot|><|start|>user<|end|>\n\nHi<|eot|><|start|>assistant<|end|>\n\n";
        assert_eq!(write(None), expected);
        let day = Date::new(2025, 3, 9).unwrap();
        assert_eq!(write(Some(day)), expected.replace("26 Jul 2024", "09 Mar 2025"));
    }

    #[test]
    fn the_words_of_an_exception_come_through() {
        let template = ChatTemplate::new(LLAMA3, Some("<s>"), None, None).unwrap();
        let said = template.render(&turns(&[("tool", "3")]), false).unwrap_err().to_string();
        assert!(said.contains("unknown role tool"), "{said}");
        let said = ChatTemplate::new("{% for %}", None, None, None).unwrap_err().to_string();
        assert!(said.contains("cannot be read"), "{said}");
    }

    #[test]
    fn generation_blocks_print_nothing() {
        let plain = "{%- for m in messages -%}{%- if m.role == 'assistant' -%} {{ m.content }} {%- if true -%} ! {%- endif -%}{%- endif -%}{%- endfor -%}";
        let marked =
            plain.replace("if true", "generation").replacen("{%- endif -%}", "{%- endgeneration -%}", 1);
        let write = |source: &str| {
            let template = ChatTemplate::new(source, None, None, None).unwrap();
            template.render(&turns(&[("user", "a"), ("assistant", "b")]), false).unwrap()
        };
        assert_eq!(write(&marked), write(plain));
        assert_eq!(without_generation_blocks(CHATML), CHATML);
    }

    #[test]
    fn python_and_loop_controls_work() {
        let source = "{% for m in messages %}{% if m.content.startswith('x') %}{% continue %}{% endif %}{{ m.content.split(' ')[-1].upper() }}{{ m.get('name', '?') }}{% endfor %}";
        let template = ChatTemplate::new(source, None, None, None).unwrap();
        let written = template.render(&turns(&[("user", "x y"), ("user", "a b")]), false).unwrap();
        assert_eq!(written, "B?");
    }
}
