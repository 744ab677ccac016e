//! What is wrong with a configuration file, in words that a tired operator can act on.

use std::fmt;
use std::ops::Range;

/// Whether the daemon can start all the same.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Severity {
    Error,
    Warning,
    /// Nothing is wrong; the machine lacks what the file does not ask for by name.
    Note,
}

/// One problem.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Problem {
    pub severity: Severity,
    /// Counted from 1; 0 when the whole file is meant.
    pub line: usize,
    /// Dotted name of the key or section; empty for the whole file.
    pub key: String,
    pub what: String,
    pub fix: String,
}

/// Every problem of one file, in the order of its lines.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Report {
    file: String,
    line_starts: Vec<usize>,
    problems: Vec<Problem>,
}

impl Report {
    /// An empty report on the file `name` that holds `text`.
    pub fn new(name: &str, text: &str) -> Report {
        let newlines = text.bytes().enumerate().filter(|(_, byte)| *byte == b'\n');
        let line_starts = std::iter::once(0).chain(newlines.map(|(at, _)| at + 1)).collect();
        Report { file: name.to_owned(), line_starts, problems: Vec::new() }
    }

    /// A report with one error that concerns the whole file.
    pub fn of_file(name: &str, what: String, fix: String) -> Report {
        let mut report = Report::new(name, "");
        let key = String::new();
        report.problems.push(Problem { severity: Severity::Error, line: 0, key, what, fix });
        report
    }

    /// Adds an error on the bytes `span` of the text.
    pub fn error(&mut self, span: &Range<usize>, key: &str, what: String, fix: String) {
        self.add(Severity::Error, span, key, what, fix);
    }

    /// Adds a warning on the bytes `span` of the text.
    pub fn warning(&mut self, span: &Range<usize>, key: &str, what: String, fix: String) {
        self.add(Severity::Warning, span, key, what, fix);
    }

    /// Adds a note on the whole file.
    pub fn note(&mut self, key: &str, what: String, fix: String) {
        let (severity, key) = (Severity::Note, key.to_owned());
        self.problems.push(Problem { severity, line: 0, key, what, fix });
    }

    fn add(
        &mut self,
        severity: Severity,
        span: &Range<usize>,
        key: &str,
        what: String,
        fix: String,
    ) {
        let line = self.line_starts.partition_point(|start| *start <= span.start);
        self.problems.push(Problem { severity, line, key: key.to_owned(), what, fix });
    }

    /// Puts the problems into the order of their lines.
    pub fn sort(&mut self) {
        self.problems.sort_by_key(|problem| (problem.line, problem.severity));
        self.problems.dedup();
    }

    pub fn problems(&self) -> &[Problem] {
        &self.problems
    }

    pub fn has_errors(&self) -> bool {
        self.count(Severity::Error) > 0
    }

    /// Problems of this severity.
    pub fn count(&self, severity: Severity) -> usize {
        self.problems.iter().filter(|problem| problem.severity == severity).count()
    }
}

/// The report as `voxedge check` prints it: two lines for each problem.
impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for problem in &self.problems {
            f.write_str(&self.file)?;
            if problem.line > 0 {
                write!(f, ":{}", problem.line)?;
            }
            f.write_str(match problem.severity {
                Severity::Error => ": error: ",
                Severity::Warning => ": warning: ",
                Severity::Note => ": note: ",
            })?;
            if !problem.key.is_empty() {
                write!(f, "{}: ", problem.key)?;
            }
            writeln!(f, "{}\n    fix: {}", problem.what, problem.fix)?;
        }
        Ok(())
    }
}

/// The plain words for why a file cannot be used, without the number that the system adds.
pub fn io_words(error: &std::io::Error) -> String {
    use std::io::ErrorKind;
    match error.kind() {
        ErrorKind::NotFound => "there is no such file".to_owned(),
        ErrorKind::PermissionDenied => "this user may not read it".to_owned(),
        ErrorKind::IsADirectory => "it is a directory".to_owned(),
        ErrorKind::InvalidData => "it is not UTF-8 text".to_owned(),
        _ => error.to_string(),
    }
}
