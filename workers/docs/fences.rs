//! What documents show between fences, and what a shell would make of it. PURE.

/// A block between fences.
#[derive(Debug, Clone)]
pub struct Fence {
    /// `README.md:12`: where it begins.
    pub at: String,
    /// The first word after the fence.
    pub language: String,
    /// What follows it: a mark and its reason, such as `not-run: needs a cluster`.
    pub mark: Option<(String, String)>,
    /// What is in it.
    pub text: String,
}

/// The blocks of one document.
pub fn fences(name: &str, document: &str) -> Vec<Fence> {
    let mut found: Vec<Fence> = Vec::new();
    let mut is_open = false;
    for (at, line) in document.lines().enumerate() {
        match line.trim_start().strip_prefix("```") {
            Some(_) if is_open => is_open = false,
            Some(info) => {
                is_open = true;
                let (language, rest) = info.trim().split_once(' ').unwrap_or((info.trim(), ""));
                let mark = rest.split_once(':').map(|(mark, why)| (mark.trim().to_owned(), why.trim().to_owned()));
                assert!(rest.is_empty() || mark.is_some(), "{name}:{}: `{rest}` is no mark", at + 1);
                let (at, language) = (format!("{name}:{}", at + 1), language.to_owned());
                found.push(Fence { at, language, mark, text: String::new() });
            }
            None => {
                if let Some(open) = found.last_mut().filter(|_| is_open) {
                    open.text.push_str(line);
                    open.text.push('\n');
                }
            }
        }
    }
    assert!(!is_open, "{name} ends within a block");
    found
}

/// The lines that a shell would read as one each, without comments.
pub fn lines(text: &str) -> Vec<String> {
    let joined = text.replace("\\\n", " ");
    let lines = joined.lines().map(|line| line[..comment(line)].trim().to_owned());
    lines.filter(|line| !line.is_empty()).collect()
}

/// Where the comment of a line begins, or its end.
fn comment(line: &str) -> usize {
    let (mut quote, mut before) = (None, ' ');
    for (at, letter) in line.char_indices() {
        match quote {
            Some(open) if letter == open => quote = None,
            Some(_) => {}
            None if letter == '#' && before.is_whitespace() => return at,
            None if letter == '\'' || letter == '"' => quote = Some(letter),
            None => {}
        }
        before = letter;
    }
    line.len()
}

/// The commands of one line, each as its words: without assignments before them, and without redirections.
pub fn commands(line: &str) -> Vec<Vec<String>> {
    let (mut commands, mut words) = (Vec::new(), Vec::new());
    let (mut word, mut quote, mut depth): (Option<String>, Option<char>, usize) = (None, None, 0);
    let mut letters = line.chars().peekable();
    while let Some(letter) = letters.next() {
        let is_plain = quote.is_none() && depth == 0;
        match letter {
            _ if quote == Some(letter) && depth == 0 => quote = None,
            '\'' | '"' if is_plain => {
                quote = Some(letter);
                word.get_or_insert_default();
            }
            '$' if letters.peek() == Some(&'(') && quote != Some('\'') => {
                letters.next();
                depth += 1;
                word.get_or_insert_default().push('…');
            }
            '(' if depth > 0 => depth += 1,
            ')' if depth > 0 => depth -= 1,
            _ if depth > 0 => {}
            '\\' if quote != Some('\'') => word.get_or_insert_default().extend(letters.next()),
            ' ' | '\t' if is_plain => words.extend(word.take()),
            '<' | '>' if is_plain => {
                words.extend(word.take());
                while letters.next_if(|next| *next == ' ').is_some() {}
                while letters.next_if(|next| !next.is_whitespace()).is_some() {}
            }
            '|' | '&' | ';' if is_plain => {
                words.extend(word.take());
                commands.push(std::mem::take(&mut words));
            }
            other => word.get_or_insert_default().push(other),
        }
    }
    words.extend(word);
    commands.push(words);
    for words in &mut commands {
        let assigns = |word: &String| {
            word.split_once('=').is_some_and(|(name, _)| {
                !name.is_empty() && name.bytes().all(|b| b.is_ascii_uppercase() || b.is_ascii_digit() || b == b'_')
            })
        };
        let before = words.iter().take_while(|word| assigns(word)).count();
        words.drain(..before);
    }
    commands.retain(|words| !words.is_empty());
    commands
}
