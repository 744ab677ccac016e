//! The telephone tools of an agent: `coldTransfer`, `warmTransfer` and `playDtmfSounds`. On the
//! `serverWebSocket` medium Ultravox's built-in ones have no leg to act on; client tools of the same
//! model-facing names take their places. What the agent fixed of a tool's parameters
//! (`parameterOverrides`) stays with the edge: the model sees what it saw before, and no password goes
//! back to Ultravox. Here is what these tools look like; what they do is the call's matter.

use super::parse_duration;
use crate::ground::Secret;
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

/// Longest fixed text, in bytes; a prompt template may be [`TEMPLATE_BYTES_MAX`].
const TEXT_BYTES_MAX: usize = 2 * 1024;
const TEMPLATE_BYTES_MAX: usize = 64 * 1024;
/// Headers that one tool may send along.
const HEADERS_MAX: usize = 32;
/// How long Ultravox waits for a client tool's result, at most (documented maximum).
pub const TOOL_TIME_MAX: Duration = Duration::from_secs(40);
/// The shortest key that switches hear (ITU-T Q.24: 40 ms), and the longest that is pressed.
const KEY_TIMES: std::ops::RangeInclusive<Duration> =
    Duration::from_millis(40)..=Duration::from_secs(5);

/// A built-in tool of Ultravox that acts on a telephone leg.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum TelephoneTool {
    ColdTransfer,
    WarmTransfer,
    PlayDtmfSounds,
}

impl TelephoneTool {
    pub const ALL: [TelephoneTool; 3] =
        [TelephoneTool::ColdTransfer, TelephoneTool::WarmTransfer, TelephoneTool::PlayDtmfSounds];

    /// The name that the model knows it by, unless `nameOverride` says otherwise.
    pub fn name(self) -> &'static str {
        match self {
            TelephoneTool::ColdTransfer => "coldTransfer",
            TelephoneTool::WarmTransfer => "warmTransfer",
            TelephoneTool::PlayDtmfSounds => "playDtmfSounds",
        }
    }

    pub fn parse(name: &str) -> Option<TelephoneTool> {
        TelephoneTool::ALL.into_iter().find(|tool| tool.name() == name)
    }

    /// The built-in tool of a `toolId`. That of `warmTransfer` is not published.
    pub fn of_id(tool_id: &str) -> Option<TelephoneTool> {
        match tool_id {
            "2fff509d-273f-414e-91ff-aa933435a545" => Some(TelephoneTool::ColdTransfer),
            "3e9489b1-25de-4032-bb3d-f7b84765ec93" => Some(TelephoneTool::PlayDtmfSounds),
            _ => None,
        }
    }

    /// What the model reads of it, when the agent has no `descriptionOverride`.
    fn description(self) -> &'static str {
        match self {
            TelephoneTool::ColdTransfer => {
                "Transfers the caller to another person or line and leaves the call. Tell the caller \
                 before you use it."
            }
            TelephoneTool::WarmTransfer => {
                "Calls a human operator, tells the operator what the call is about, and connects the \
                 caller when the operator accepts. Tell the caller that there will be a short wait."
            }
            TelephoneTool::PlayDtmfSounds => {
                "Presses telephone keys, for example to go through a menu or to enter a number."
            }
        }
    }
}

/// What the target is done with (`sipVerb` of a cold transfer).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum SipVerb {
    Refer,
    Invite,
}

impl SipVerb {
    pub fn parse(text: &str) -> Option<SipVerb> {
        match text {
            "REFER" => Some(SipVerb::Refer),
            "INVITE" => Some(SipVerb::Invite),
            _ => None,
        }
    }
}

/// How an accepted warm transfer is done (`transferType`).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum TransferType {
    Refer,
    Bridge,
    /// REFER, and a bridge when it fails.
    TryRefer,
}

impl TransferType {
    pub fn parse(text: &str) -> Option<TransferType> {
        match text {
            "REFER" => Some(TransferType::Refer),
            "BRIDGE" => Some(TransferType::Bridge),
            "TRY_REFER" => Some(TransferType::TryRefer),
            _ => None,
        }
    }
}

/// What the caller hears while a transfer is under way (`holdMusicUrl`).
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub enum HoldMusic {
    /// The daemon's own.
    #[default]
    Default,
    /// `null`: silence.
    None,
    Url(String),
}

/// What of a tool's parameters is fixed, by the agent's `parameterOverrides` or by the daemon's
/// configuration. `None`: not fixed.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Fixed {
    pub target: Option<String>,
    pub from: Option<String>,
    pub username: Option<String>,
    pub password: Option<Secret>,
    pub hold_music: Option<HoldMusic>,
    pub verb: Option<SipVerb>,
    pub kind: Option<TransferType>,
    /// `extraHeaders` of a cold transfer, `inviteHeaders` of a warm one.
    pub headers: Option<Vec<(String, String)>>,
    /// `referHeaders` of a warm transfer.
    pub refer_headers: Option<Vec<(String, String)>>,
    /// `transferSystemPromptTemplate`, with `{context}`.
    pub prompt_template: Option<String>,
    pub tone: Option<Duration>,
    pub gap: Option<Duration>,
}

impl Fixed {
    /// Reads `parameterOverrides` of a tool; `context` fills the `{{variables}}` in their texts. What
    /// cannot be used is told in `remarks`, which hold no value, and counts as not fixed.
    pub fn read(
        tool: TelephoneTool,
        overrides: &Map<String, Value>,
        context: &Map<String, Value>,
        remarks: &mut Vec<String>,
    ) -> Fixed {
        let mut fixed = Fixed::default();
        for (name, value) in overrides {
            let value = filled(value, context);
            if let Err(why) = fixed.set(tool, name, &value) {
                remarks.push(format!("{}.{name} {why}", tool.name()));
            }
        }
        fixed
    }

    /// Sets one parameter by the name that Ultravox gives it.
    ///
    /// # Errors
    /// What is wrong with the value, in words that follow the parameter's name and do not hold it.
    pub fn set(
        &mut self,
        tool: TelephoneTool,
        name: &str,
        value: &Value,
    ) -> Result<(), &'static str> {
        use TelephoneTool::{ColdTransfer, PlayDtmfSounds, WarmTransfer};
        match (tool, name) {
            (ColdTransfer | WarmTransfer, "target") => self.target = text(value)?,
            (ColdTransfer | WarmTransfer, "from") => self.from = text(value)?,
            (ColdTransfer | WarmTransfer, "username") => self.username = unmasked(value)?,
            (ColdTransfer | WarmTransfer, "password") => {
                self.password = unmasked(value)?.map(Secret::new);
            }
            (ColdTransfer | WarmTransfer, "holdMusicUrl") => {
                self.hold_music = Some(text(value)?.map_or(HoldMusic::None, HoldMusic::Url));
            }
            (ColdTransfer, "sipVerb") => {
                let verb = text(value)?.map(|text| SipVerb::parse(&text));
                self.verb = verb.map(|verb| verb.ok_or("must be REFER or INVITE")).transpose()?;
            }
            (ColdTransfer, "extraHeaders") | (WarmTransfer, "inviteHeaders") => {
                self.headers = headers(value)?;
            }
            (WarmTransfer, "referHeaders") => self.refer_headers = headers(value)?,
            (WarmTransfer, "transferType") => {
                let kind = text(value)?.map(|text| TransferType::parse(&text));
                self.kind = kind
                    .map(|kind| kind.ok_or("must be REFER, BRIDGE or TRY_REFER"))
                    .transpose()?;
            }
            (WarmTransfer, "transferSystemPromptTemplate") => {
                self.prompt_template = bounded_text(value, TEMPLATE_BYTES_MAX)?;
            }
            (PlayDtmfSounds, "toneDuration") => self.tone = key_time(value)?,
            (PlayDtmfSounds, "spaceDuration") => self.gap = key_time(value)?,
            _ => return Err("is no parameter that the edge knows; it is ignored"),
        }
        Ok(())
    }

    /// What is not fixed here is as `other` says; its password only for the same name.
    #[must_use]
    pub fn or(self, other: &Fixed) -> Fixed {
        let same_name = match (&self.username, &other.username) {
            (Some(own), Some(theirs)) => own == theirs,
            (None, _) | (_, None) => true,
        };
        let their_password = other.password.clone().filter(|_| same_name);
        Fixed {
            target: self.target.or_else(|| other.target.clone()),
            from: self.from.or_else(|| other.from.clone()),
            username: self.username.or_else(|| other.username.clone()),
            password: self.password.or(their_password),
            hold_music: self.hold_music.or_else(|| other.hold_music.clone()),
            verb: self.verb.or(other.verb),
            kind: self.kind.or(other.kind),
            headers: self.headers.or_else(|| other.headers.clone()),
            refer_headers: self.refer_headers.or_else(|| other.refer_headers.clone()),
            prompt_template: self.prompt_template.or_else(|| other.prompt_template.clone()),
            tone: self.tone.or(other.tone),
            gap: self.gap.or(other.gap),
        }
    }
}

/// A text; `null` is none.
fn text(value: &Value) -> Result<Option<String>, &'static str> {
    bounded_text(value, TEXT_BYTES_MAX)
}

fn bounded_text(value: &Value, bytes_max: usize) -> Result<Option<String>, &'static str> {
    match value {
        Value::Null => Ok(None),
        Value::String(text) if text.len() > bytes_max => Err("is too long"),
        Value::String(text) if text.trim().is_empty() => Err("is empty"),
        Value::String(text)
            if bytes_max == TEXT_BYTES_MAX && text.chars().any(char::is_control) =>
        {
            Err("holds control characters")
        }
        Value::String(text) => Ok(Some(text.trim().to_owned())),
        Value::Bool(_) | Value::Number(_) | Value::Array(_) | Value::Object(_) => {
            Err("must be a string")
        }
    }
}

/// The text of a credential, unless Ultravox showed it masked.
fn unmasked(value: &Value) -> Result<Option<String>, &'static str> {
    let text = text(value)?;
    match text.as_deref().is_some_and(is_masked) {
        true => Err(MASKED),
        false => Ok(text),
    }
}

const MASKED: &str = "is masked in Ultravox's answer: give it in the daemon's [tools] section";

/// Asterisks or dots in place of a secret, or a word for it in brackets.
pub fn is_masked(text: &str) -> bool {
    let is_dot = |c: char| matches!(c, '*' | '•' | '●' | '·');
    let word = text.trim_matches(['<', '>', '[', ']', '(', ')']).to_ascii_lowercase();
    let bracketed = text.starts_with(['<', '[', '(']);
    text.chars().all(is_dot)
        || text.starts_with("***")
        || text.ends_with("***")
        || bracketed && matches!(word.as_str(), "redacted" | "masked" | "hidden" | "secret")
}

/// An object of header names and values.
fn headers(value: &Value) -> Result<Option<Vec<(String, String)>>, &'static str> {
    let headers = match value {
        Value::Null => return Ok(None),
        Value::Object(headers) => headers,
        _ => return Err("must be an object of strings"),
    };
    if headers.len() > HEADERS_MAX {
        return Err("holds too many headers");
    }
    let header = |(name, value): (&String, &Value)| {
        let value = value.as_str().ok_or("must be an object of strings")?;
        if !is_free_header(name) {
            return Err("holds a header that is not the tool's to set: names should begin with X-");
        }
        if value.len() > TEXT_BYTES_MAX || value.chars().any(char::is_control) {
            return Err("holds a header value that is too long or has control characters");
        }
        Ok((name.clone(), value.to_owned()))
    };
    headers.iter().map(header).collect::<Result<_, _>>().map(Some)
}

/// Headers that may be given: those of the customer's own making (`X-`, `P-`), and the few of SIP that
/// tell of a call without steering it.
fn is_free_header(name: &str) -> bool {
    let is_token = |byte: u8| byte.is_ascii_alphanumeric() || b"-.!%*_+`'~".contains(&byte);
    let own = name.len() > 2
        && name.get(..2).is_some_and(|start| ["x-", "p-"].contains(&&*start.to_ascii_lowercase()));
    let told = [
        "user-to-user",
        "subject",
        "priority",
        "alert-info",
        "call-info",
        "diversion",
        "history-info",
        "organization",
        "privacy",
        "geolocation",
    ];
    let plain = name.len() <= 64 && !name.is_empty() && name.bytes().all(is_token);
    plain && (own || told.contains(&name.to_ascii_lowercase().as_str()))
}

/// `"0.2s"`, within what switches hear.
fn key_time(value: &Value) -> Result<Option<Duration>, &'static str> {
    let Some(text) = text(value)? else { return Ok(None) };
    let time = parse_duration(&text).ok_or("must be a duration such as \"0.2s\"")?;
    match KEY_TIMES.contains(&time) {
        true => Ok(Some(time)),
        false => Err("must be between 0.04s and 5s"),
    }
}

/// `value` with the `{{variables}}` of its texts replaced, as Ultravox does with the overrides of its own
/// tools. A variable that is not in `context` is replaced by nothing.
fn filled(value: &Value, context: &Map<String, Value>) -> Value {
    match value {
        Value::String(text) if text.contains("{{") => Value::String(filled_text(text, context)),
        Value::Object(members) => Value::Object(
            members.iter().map(|(name, value)| (name.clone(), filled(value, context))).collect(),
        ),
        other => other.clone(),
    }
}

fn filled_text(text: &str, context: &Map<String, Value>) -> String {
    let (mut done, mut rest) = (String::new(), text);
    while let Some((before, after)) = rest.split_once("{{") {
        let Some((name, after)) = after.split_once("}}") else { break };
        done.push_str(before);
        let after = match name.starts_with('{') {
            true => after.strip_prefix('}').unwrap_or(after),
            false => after,
        };
        let mut parts = name.trim_matches(['{', '&', ' ']).split('.');
        let first = parts.next().and_then(|part| context.get(part));
        match parts.fold(first, |value, part| value?.get(part)) {
            Some(Value::String(text)) => done.push_str(text),
            None | Some(Value::Null) => {}
            Some(other) => done.push_str(&other.to_string()),
        }
        rest = after;
    }
    done.push_str(rest);
    done
}

/// One entry of `selectedTools`, of an agent or of a request.
#[derive(Clone, PartialEq)]
pub struct AgentTool {
    /// Model-facing: `nameOverride`, else the tool's own name. `None` for a tool that is named by an
    /// id which is none of the built-in ones that are known.
    pub name: Option<String>,
    /// It is a built-in one of those that need a leg.
    pub telephone: Option<TelephoneTool>,
    pub tool_id: Option<String>,
    /// `parameterOverrides`; passwords may be among them.
    overrides: Map<String, Value>,
    /// `descriptionOverride`.
    description: Option<String>,
}

impl fmt::Debug for AgentTool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AgentTool")
            .field("name", &self.name)
            .field("telephone", &self.telephone)
            .finish_non_exhaustive()
    }
}

impl AgentTool {
    /// Reads a SelectedTool. By name the built-in tool is meant, unless the entry brings a tool of its
    /// own (`temporaryTool`).
    pub fn read(selected: &Value) -> AgentTool {
        let text = |name: &str| selected.get(name).and_then(Value::as_str);
        let own = selected.get("temporaryTool").filter(|tool| !tool.is_null());
        let own_name = own.and_then(|tool| tool.get("modelToolName")).and_then(Value::as_str);
        let telephone = match own {
            Some(_) => None,
            None => {
                let by_name = text("toolName").and_then(TelephoneTool::parse);
                by_name.or_else(|| text("toolId").and_then(TelephoneTool::of_id))
            }
        };
        let own_name = own_name.or_else(|| text("toolName"));
        let name = text("nameOverride").filter(|name| !name.is_empty());
        let name = name.or(own_name).or(telephone.map(TelephoneTool::name));
        let overrides = selected.get("parameterOverrides").and_then(Value::as_object);
        AgentTool {
            name: name.map(str::to_owned),
            telephone,
            tool_id: text("toolId").map(str::to_owned),
            overrides: overrides.cloned().unwrap_or_default(),
            description: text("descriptionOverride").map(str::to_owned),
        }
    }

    /// The id of a tool that might be a built-in one whose id is not known: it has parameters of a
    /// transfer.
    pub fn doubtful_id(&self) -> Option<&str> {
        let transfers = [
            "target",
            "transferType",
            "transferSystemPromptTemplate",
            "inviteHeaders",
            "referHeaders",
        ];
        let doubtful = self.telephone.is_none()
            && transfers.iter().any(|name| self.overrides.contains_key(*name));
        self.tool_id.as_deref().filter(|_| doubtful)
    }

    /// Tells what [`AgentTool::doubtful_id`] is: its name, and whether it is one of Ultravox's own.
    pub fn name_it(&mut self, name: &str, is_public: bool) {
        self.telephone = TelephoneTool::parse(name).filter(|_| is_public);
        self.name.get_or_insert_with(|| name.to_owned());
    }
}

/// A tool that the model may call and the edge serves.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Offered {
    pub tool: TelephoneTool,
    pub fixed: Fixed,
}

/// The tools of one call by their model-facing names.
pub type OfferedTools = BTreeMap<String, Offered>;

/// `[tools]` of the configuration: which tools every agent gets, and what is fixed of them unless the
/// agent says otherwise.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct GivenTools {
    pub give: Vec<TelephoneTool>,
    pub defaults: BTreeMap<TelephoneTool, Fixed>,
}

/// What became of the tools of a request.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Arranged {
    pub offered: OfferedTools,
    /// What could not be used of the agent's settings; names only, no values.
    pub remarks: Vec<String>,
}

/// Puts the client tools into the body of `POST /api/agents/{agent_id}/calls`, by `toolOverrides`; those
/// of the body itself stay, and ours come last. `tools` are the agent's, `None` when it could not be read: then nothing
/// is removed or given, since only names that the agent has may be.
pub fn arrange_overrides(
    tools: Option<&[AgentTool]>,
    given: &GivenTools,
    body: &mut Map<String, Value>,
) -> Arranged {
    let context = match body.get("templateContext") {
        Some(Value::Object(context)) => context.clone(),
        _ => Map::new(),
    };
    let mut overrides = match body.get("toolOverrides") {
        None | Some(Value::Null) => Map::new(),
        Some(Value::Object(overrides)) => overrides.clone(),
        // Ultravox will say what is wrong with it.
        Some(_) => return Arranged::default(),
    };
    let remove_all = overrides.get("removeAll").and_then(Value::as_bool).unwrap_or(false);
    let mut remove = list(&overrides, "remove");
    let mut add = list(&overrides, "add");
    let (removed_before, before) = (remove.clone(), add.clone());
    let is_removed =
        |name: &str| remove_all || removed_before.iter().any(|removed| removed == name);
    let mut bench =
        Bench { given, context: &context, arranged: Arranged::default(), names: Vec::new() };
    bench.replace(&mut add);
    for tool in tools.unwrap_or_default() {
        let Some(name) = tool.name.as_deref().filter(|name| !is_removed(name)) else { continue };
        match tool.telephone {
            Some(telephone) => {
                remove.push(name.into());
                add.push(bench.offer(name, telephone, tool));
            }
            None => bench.names.push(name.to_owned()),
        }
    }
    if tools.is_some() {
        bench.give(&mut add, is_removed);
    }
    if add != before {
        overrides.insert("add".into(), add.into());
        if !remove.is_empty() {
            overrides.insert("remove".into(), remove.into());
        }
        body.insert("toolOverrides".into(), overrides.into());
    }
    bench.arranged
}

/// Puts the client tools into `selectedTools` of the body of `POST /api/calls`, in place of the built-in
/// ones.
pub fn arrange_selected(given: &GivenTools, body: &mut Map<String, Value>) -> Arranged {
    let mut tools = match body.get("selectedTools") {
        None | Some(Value::Null) => Vec::new(),
        Some(Value::Array(tools)) => tools.clone(),
        Some(_) => return Arranged::default(),
    };
    let (before, context) = (tools.len(), Map::new());
    let mut bench =
        Bench { given, context: &context, arranged: Arranged::default(), names: Vec::new() };
    bench.replace(&mut tools);
    bench.give(&mut tools, |_| false);
    if tools.len() != before || !bench.arranged.offered.is_empty() {
        body.insert("selectedTools".into(), tools.into());
    }
    bench.arranged
}

fn list(from: &Map<String, Value>, name: &str) -> Vec<Value> {
    from.get(name).and_then(Value::as_array).cloned().unwrap_or_default()
}

/// Where the tools of one request are put together.
struct Bench<'a> {
    given: &'a GivenTools,
    context: &'a Map<String, Value>,
    arranged: Arranged,
    /// Names of tools that are not ours.
    names: Vec<String>,
}

impl Bench<'_> {
    /// Replaces the built-in tools among `tools` in their places.
    fn replace(&mut self, tools: &mut [Value]) {
        for selected in tools {
            let tool = AgentTool::read(selected);
            match (tool.telephone, &tool.name) {
                (Some(telephone), Some(name)) => *selected = self.offer(name, telephone, &tool),
                (None, Some(name)) => self.names.push(name.clone()),
                (_, None) => {}
            }
        }
    }

    /// Adds the tools that every agent gets, but those that it has, or has something else by that name.
    fn give(&mut self, tools: &mut Vec<Value>, is_removed: impl Fn(&str) -> bool) {
        for tool in self.given.give.clone() {
            let name = tool.name();
            let has = self.arranged.offered.values().any(|offered| offered.tool == tool);
            let is_taken = self.names.iter().any(|other| other == name) || is_removed(name);
            if !has && !is_taken && !self.arranged.offered.contains_key(name) {
                let bare = AgentTool::read(&json!({ "toolName": name }));
                tools.push(self.offer(name, tool, &bare));
            }
        }
    }

    /// Notes a tool of ours and gives its SelectedTool.
    fn offer(&mut self, name: &str, tool: TelephoneTool, from: &AgentTool) -> Value {
        let mut remarks = Vec::new();
        let fixed = Fixed::read(tool, &from.overrides, self.context, &mut remarks);
        let fixed = match self.given.defaults.get(&tool) {
            Some(defaults) => fixed.or(defaults),
            None => fixed,
        };
        if fixed.password.is_some() && fixed.username.is_some() {
            remarks.retain(|remark| !remark.ends_with(MASKED));
        }
        self.arranged.remarks.extend(remarks);
        let description = from.description.as_deref().map(|text| filled_text(text, self.context));
        let selected = client_tool(name, tool, &fixed, description.as_deref());
        self.arranged.offered.insert(name.to_owned(), Offered { tool, fixed });
        selected
    }
}

/// The SelectedTool of a client tool. What is fixed is no parameter of it.
fn client_tool(name: &str, tool: TelephoneTool, fixed: &Fixed, description: Option<&str>) -> Value {
    let mut parameters = Vec::new();
    if tool != TelephoneTool::PlayDtmfSounds && fixed.target.is_none() {
        let words = "Whom to call: a SIP address such as sip:sales@example.com.";
        parameters.push(parameter("target", json!({"type": "string", "description": words})));
    }
    let timeout = match tool {
        TelephoneTool::ColdTransfer => "10s",
        TelephoneTool::WarmTransfer => {
            let words =
                "What the operator has to know: who is calling, what for, and what was said.";
            parameters.push(parameter("context", json!({"type": "string", "description": words})));
            "10s"
        }
        TelephoneTool::PlayDtmfSounds => {
            let schema = json!({"type": "string", "pattern": "^[0-9*#A-D]+$",
                "description": "The keys in the order of pressing: 0-9, *, # and A-D."});
            parameters.push(parameter("digits", schema));
            "40s"
        }
    };
    temporary(name, description.unwrap_or(tool.description()), parameters, timeout)
}

fn parameter(name: &str, schema: Value) -> Value {
    json!({"name": name, "location": "PARAMETER_LOCATION_BODY", "schema": schema, "required": true})
}

fn temporary(name: &str, description: &str, parameters: Vec<Value>, timeout: &str) -> Value {
    json!({"temporaryTool": {"modelToolName": name, "description": description,
        "dynamicParameters": parameters, "timeout": timeout, "client": {}}})
}

/// The tools by which the agent tells what the operator of a warm transfer said.
pub const ACCEPT: &str = "acceptTransfer";
pub const REFUSE: &str = "refuseTransfer";

/// `selectedTools` of the agent that speaks with the operator.
pub fn operator_tools() -> Vec<Value> {
    let reason = json!({"name": "reason", "location": "PARAMETER_LOCATION_BODY", "required": false,
        "schema": {"type": "string", "description": "Why not, in the operator's words."}});
    vec![
        temporary(ACCEPT, "The operator agrees to take the caller now.", Vec::new(), "10s"),
        temporary(
            REFUSE,
            "The operator does not take the caller, or is none.",
            vec![reason],
            "10s",
        ),
    ]
}

/// What the agent that speaks with the operator is told: the template with `{context}` replaced, and how
/// to use its tools.
pub fn operator_prompt(template: Option<&str>, context: &str) -> String {
    let template = template.unwrap_or(
        "You are on the telephone with a human operator, not with the caller. The caller waits on \
         hold. Tell the operator briefly what follows, answer questions from it, and ask whether the \
         operator takes the call.\n\n{context}",
    );
    let told = template.replace("{context}", context);
    format!(
        "{told}\n\nAs soon as the operator agrees to take the caller, use the tool {ACCEPT}. When the \
         operator declines, cannot help, or nobody but a machine answers, use the tool {REFUSE}."
    )
}

#[cfg(test)]
mod tests {
    use super::super::schema;
    use super::*;

    fn object(value: Value) -> Map<String, Value> {
        value.as_object().expect("an object").clone()
    }

    fn agent(tools: Value) -> Vec<AgentTool> {
        tools.as_array().expect("a list").iter().map(AgentTool::read).collect()
    }

    const COLD_ID: &str = "2fff509d-273f-414e-91ff-aa933435a545";

    #[test]
    fn an_agents_tools_are_replaced_by_name_and_keep_what_was_fixed() {
        let tools = agent(json!([
            {"toolName": "hangUp"},
            {"toolId": COLD_ID, "nameOverride": "toSales", "descriptionOverride": "To {{team}}.",
                "parameterOverrides": {"target": "sip:{{team.id}}@pbx.example", "sipVerb": "INVITE",
                    "holdMusicUrl": null, "username": "us", "password": "hunter2",
                    "extraHeaders": {"X-Team": "{{team}}"}}},
            {"toolName": "playDtmfSounds", "parameterOverrides": {"toneDuration": "0.3s"}},
            {"temporaryTool": {"modelToolName": "warmTransfer", "http": {}}}]));
        let mut body = object(json!({"templateContext": {"team": {"id": "sales"}}}));
        let arranged = arrange_overrides(Some(&tools), &GivenTools::default(), &mut body);
        let overrides = &body["toolOverrides"];
        assert_eq!(overrides["remove"], json!(["toSales", "playDtmfSounds"]));
        let sales = &overrides["add"][0]["temporaryTool"];
        let team = r#"To {"id":"sales"}."#;
        assert_eq!(
            (&sales["modelToolName"], &sales["description"]),
            (&json!("toSales"), &json!(team))
        );
        assert_eq!(sales["dynamicParameters"], json!([]));
        assert_eq!(overrides["add"][1]["temporaryTool"]["dynamicParameters"][0]["name"], "digits");
        let expected = Fixed {
            target: Some("sip:sales@pbx.example".into()),
            verb: Some(SipVerb::Invite),
            hold_music: Some(HoldMusic::None),
            username: Some("us".into()),
            password: Some(Secret::new("hunter2")),
            headers: Some(vec![("X-Team".into(), r#"{"id":"sales"}"#.into())]),
            ..Fixed::default()
        };
        assert_eq!(arranged.offered["toSales"].fixed, expected);
        assert_eq!(arranged.offered["playDtmfSounds"].fixed.tone, Some(Duration::from_millis(300)));
        assert_eq!((arranged.offered.len(), arranged.remarks.len()), (2, 0));
        let text = Value::Object(body).to_string();
        assert!(!text.contains("hunter2") && !format!("{tools:?}{arranged:?}").contains("hunter2"));
    }

    #[test]
    fn a_target_that_is_not_fixed_is_the_models_to_give() {
        let tools = agent(json!([{"toolId": COLD_ID}, {"toolName": "warmTransfer"}]));
        let mut body = Map::new();
        arrange_overrides(Some(&tools), &GivenTools::default(), &mut body);
        let names = |index: usize| -> Vec<String> {
            let tool = &body["toolOverrides"]["add"][index]["temporaryTool"];
            let parameters = tool["dynamicParameters"].as_array().expect("a list");
            parameters.iter().map(|one| one["name"].as_str().expect("a text").to_owned()).collect()
        };
        assert_eq!(names(0), ["target"]);
        assert_eq!(names(1), ["target", "context"]);
        assert_eq!(schema::START_AGENT_CALL.check(&Value::Object(body)), []);
    }

    #[test]
    fn a_requests_own_overrides_stay_and_ours_come_last() {
        let tools = agent(json!([{"toolName": "coldTransfer"}, {"toolName": "warmTransfer"}]));
        let theirs = json!({"toolOverrides": {"remove": ["warmTransfer"], "add": [
            {"toolName": "playDtmfSounds", "nameOverride": "press"}, {"toolName": "look_up"}]}});
        let mut body = object(theirs);
        arrange_overrides(Some(&tools), &GivenTools::default(), &mut body);
        let overrides = &body["toolOverrides"];
        assert_eq!(overrides["remove"], json!(["warmTransfer", "coldTransfer"]));
        let add = overrides["add"].as_array().expect("a list");
        let names: Vec<_> = add.iter().map(|tool| AgentTool::read(tool).name).collect();
        assert_eq!(names, ["press", "look_up", "coldTransfer"].map(|name| Some(name.to_owned())));
    }

    #[test]
    fn a_request_that_removes_all_keeps_to_what_it_adds() {
        let tools = agent(json!([{"toolName": "coldTransfer"}]));
        let given = GivenTools { give: vec![TelephoneTool::WarmTransfer], ..GivenTools::default() };
        let theirs = object(json!({"toolOverrides": {"removeAll": true}}));
        let mut body = theirs.clone();
        assert_eq!(arrange_overrides(Some(&tools), &given, &mut body), Arranged::default());
        assert_eq!(body, theirs);
    }

    #[test]
    fn given_tools_are_added_unless_the_agent_has_something_by_that_name() {
        let target = Fixed { target: Some("sip:desk@pbx.example".into()), ..Fixed::default() };
        let given = GivenTools {
            give: TelephoneTool::ALL.to_vec(),
            defaults: [(TelephoneTool::ColdTransfer, target.clone())].into(),
        };
        let tools = agent(json!([
            {"temporaryTool": {"modelToolName": "playDtmfSounds", "http": {}}},
            {"toolName": "warmTransfer", "nameOverride": "operator"}]));
        let mut body = Map::new();
        let arranged = arrange_overrides(Some(&tools), &given, &mut body);
        let names: Vec<_> = arranged.offered.keys().collect();
        assert_eq!(names, ["coldTransfer", "operator"]);
        assert_eq!(arranged.offered["coldTransfer"].fixed, target);
        let mut unread = Map::new();
        assert_eq!(arrange_overrides(None, &given, &mut unread), Arranged::default());
        assert!(unread.is_empty(), "what the agent has is not known");
    }

    #[test]
    fn a_call_without_an_agent_gets_them_among_its_selected_tools() {
        let given = GivenTools { give: vec![TelephoneTool::ColdTransfer], ..GivenTools::default() };
        let mut body = object(json!({"systemPrompt": "Hi", "selectedTools": [
            {"toolName": "hangUp"}, {"toolName": "playDtmfSounds"}]}));
        let arranged = arrange_selected(&given, &mut body);
        let names: Vec<_> = arranged.offered.keys().collect();
        assert_eq!(names, ["coldTransfer", "playDtmfSounds"]);
        assert_eq!(body["selectedTools"].as_array().map(Vec::len), Some(3));
        assert_eq!(schema::START_CALL.check(&Value::Object(body)), []);
    }

    #[test]
    fn a_masked_password_is_told_and_the_daemons_takes_its_place() {
        for (masked, is_masked) in [
            ("********", true),
            ("••••", true),
            ("[redacted]", true),
            ("***abcd", true),
            ("s3cret", false),
        ] {
            let tools = agent(json!([{"toolName": "coldTransfer",
                "parameterOverrides": {"username": "us", "password": masked}}]));
            let offered = |given: &GivenTools| {
                let mut arranged = arrange_overrides(Some(&tools), given, &mut Map::new());
                let offered = arranged.offered.remove("coldTransfer").expect("it is there");
                (offered.fixed.password, arranged.remarks.len())
            };
            let expected = if is_masked { (None, 1) } else { (Some(Secret::new(masked)), 0) };
            assert_eq!(offered(&GivenTools::default()), expected, "{masked}");
            let defaults = |username: Option<&str>| {
                let (username, password) = (username.map(str::to_owned), Some(Secret::new("ours")));
                let fixed = Fixed { username, password, ..Fixed::default() };
                GivenTools { give: vec![], defaults: [(TelephoneTool::ColdTransfer, fixed)].into() }
            };
            let ours = if is_masked { Secret::new("ours") } else { Secret::new(masked) };
            assert_eq!(offered(&defaults(None)), (Some(ours), 0), "{masked}");
            assert_eq!(offered(&defaults(Some("them"))), expected, "nobody else's password");
        }
    }

    #[test]
    fn what_cannot_be_used_is_told_without_its_value() {
        let cold = TelephoneTool::ColdTransfer;
        for (name, value, why) in [
            ("target", json!(5), "must be a string"),
            ("target", json!(" "), "is empty"),
            ("target", json!("sip:a\r\nX: b"), "holds control characters"),
            ("sipVerb", json!("refer"), "must be REFER or INVITE"),
            ("extraHeaders", json!("X-A: b"), "must be an object of strings"),
            (
                "extraHeaders",
                json!({"Via": "x"}),
                "holds a header that is not the tool's to set: names should begin with X-",
            ),
            (
                "extraHeaders",
                json!({"X-A": "b\r\nVia: c"}),
                "holds a header value that is too long or has control characters",
            ),
            ("toneDuration", json!("1s"), "is no parameter that the edge knows; it is ignored"),
        ] {
            assert_eq!(Fixed::default().set(cold, name, &value), Err(why), "{name} {value}");
        }
        let keys = TelephoneTool::PlayDtmfSounds;
        for (text, is_good) in
            [("0.04s", true), ("0.039s", false), ("5s", true), ("5.001s", false), ("200ms", false)]
        {
            assert_eq!(
                Fixed::default().set(keys, "toneDuration", &json!(text)).is_ok(),
                is_good,
                "{text}"
            );
        }
    }

    #[test]
    fn variables_are_filled_as_in_ultravoxs_own_tools() {
        let context = object(json!({"a": "x", "n": 7, "b": {"c": "y"}}));
        for (text, expected) in [
            ("sip:{{a}}@{{ b.c }}", "sip:x@y"),
            ("{{{a}}}-{{&a}}-{{n}}", "x-x-7"),
            ("{{none}}{{a.none}}!", "!"),
            ("{{a", "{{a"),
            ("{a}}", "{a}}"),
        ] {
            assert_eq!(filled_text(text, &context), expected, "{text}");
        }
    }

    #[test]
    fn an_id_that_is_not_known_is_doubtful_when_it_has_a_transfers_parameters() {
        let id = "11111111-2222-4333-8444-555555555555";
        let mut tool =
            AgentTool::read(&json!({"toolId": id, "parameterOverrides": {"target": "sip:a@b"}}));
        assert_eq!((tool.doubtful_id(), &tool.name), (Some(id), &None));
        let mut other = tool.clone();
        other.name_it("warmTransfer", false);
        assert_eq!((other.telephone, other.name.as_deref()), (None, Some("warmTransfer")));
        tool.name_it("warmTransfer", true);
        assert_eq!(tool.telephone, Some(TelephoneTool::WarmTransfer));
        assert_eq!((tool.name.as_deref(), tool.doubtful_id()), (Some("warmTransfer"), None));
        assert_eq!(AgentTool::read(&json!({"toolId": id})).doubtful_id(), None);
    }

    #[test]
    fn the_operators_agent_has_the_context_and_knows_its_tools() {
        let prompt = operator_prompt(Some("Brief: {context}."), "Ada, order 7");
        assert!(prompt.starts_with("Brief: Ada, order 7.\n"), "{prompt}");
        assert!(prompt.contains(ACCEPT) && prompt.contains(REFUSE));
        assert!(operator_prompt(None, "Ada").contains("\n\nAda\n"));
        let body = json!({"selectedTools": operator_tools()});
        assert_eq!(schema::START_CALL.check(&body), []);
    }
}
