//! Numbers, also those in words, with their units; days, months and other times. In their order: `from 3 to 5` is not
//! `from 5 to 3`.

use super::words::MEASURES;

/// All of a text.
pub(super) fn of(text: &str) -> Vec<String> {
    let mut found = Vec::new();
    // A number of several words that is being read: `two hundred and five`.
    let mut open: Option<Open> = None;
    let mut is_after_number = false;
    for token in text.split(|char: char| char.is_whitespace() || matches!(char, '-' | '–' | '/' | '(' | ')'))
    {
        let bare = token.trim_matches(|char: char| {
            !char.is_alphanumeric() && !matches!(char, '%' | '°' | '½' | '¼' | '¾')
        });
        if bare.is_empty() {
            continue;
        }
        let lower = bare.to_lowercase();
        let digits = lower.trim_end_matches(|char: char| char.is_alphabetic() || matches!(char, '%' | '°'));
        if lower.starts_with(|char: char| char.is_numeric()) && !digits.is_empty() {
            close(&mut open, &mut found);
            found.push(plain(digits));
            unit(&lower[digits.len()..], bare, true, &mut found);
            is_after_number = true;
            continue;
        }
        let follows_number = std::mem::replace(&mut is_after_number, false) || open.is_some();
        match word(&lower) {
            Some(Value::Small(value)) => match open.as_ref().and_then(|number| number.plus(value)) {
                // `twenty five`, `hundred five`.
                Some(larger) => open = Some(larger),
                None => {
                    close(&mut open, &mut found);
                    open = Some(Open { total: 0, current: value });
                }
            },
            Some(Value::Times(factor)) => {
                let larger = open.get_or_insert_default().times(factor);
                // What is too large to be counted is told part by part, so that it is equal only to itself.
                if larger.is_none() {
                    close(&mut open, &mut found);
                    found.push("×".to_owned());
                }
                open = Some(larger.unwrap_or(Open { total: 0, current: factor }));
            }
            Some(Value::Other(text)) => {
                close(&mut open, &mut found);
                found.push(text);
            }
            None if lower == "and" && open.as_ref().is_some_and(|number| number.is_round()) => {}
            None => {
                close(&mut open, &mut found);
                unit(&lower, bare, follows_number, &mut found);
            }
        }
    }
    close(&mut open, &mut found);
    found
}

/// The sum of both always has room.
#[derive(Default)]
struct Open {
    total: u64,
    current: u64,
}

impl Open {
    /// With a word of this value behind it; `None` where that does not go on with the number.
    fn plus(&self, value: u64) -> Option<Self> {
        let current = self.takes(value).then(|| self.current.checked_add(value))??;
        Self { current, ..*self }.checked()
    }

    /// With a hundred, a thousand and so on behind it; `None` where it is too large then.
    fn times(&self, factor: u64) -> Option<Self> {
        // `a thousand million`.
        if factor >= 1_000 && self.current == 0 && self.total > 0 {
            return Some(Self { total: self.total.checked_mul(factor)?, current: 0 });
        }
        let current = self.current.max(1).checked_mul(factor)?;
        if factor >= 1_000 {
            return Some(Self { total: self.total.checked_add(current)?, current: 0 });
        }
        Self { current, ..*self }.checked()
    }

    fn checked(self) -> Option<Self> {
        self.total.checked_add(self.current).map(|_| self)
    }

    /// Whether a word of this value goes on with the number.
    fn takes(&self, value: u64) -> bool {
        let is_tens = self.current.is_multiple_of(10) && self.current > 10 && value < 10;
        is_tens || (self.is_round() && value < 100)
    }

    fn is_round(&self) -> bool {
        self.current.is_multiple_of(100) && (self.current > 0 || self.total > 0)
    }
}

fn close(open: &mut Option<Open>, found: &mut Vec<String>) {
    if let Some(number) = open.take() {
        found.push((number.total + number.current).to_string());
    }
}

/// `1,000` is `1000` and `2.50` is `2.5`. Other points and commas stay as they are.
fn plain(digits: &str) -> String {
    let mut groups = digits.split(',');
    let is_grouped = groups.next().is_some_and(|first| (1..=3).contains(&first.len()))
        && groups.all(|group| group.split('.').next().is_some_and(|digits| digits.len() == 3));
    let text = if is_grouped { digits.replace(',', "") } else { digits.to_owned() };
    match text.split_once('.') {
        Some((whole, part)) if part.bytes().all(|byte| byte.is_ascii_digit()) => {
            let part = part.trim_end_matches('0');
            let point = if part.is_empty() { "" } else { "." };
            format!("{whole}{point}{part}")
        }
        _ => text,
    }
}

/// Takes a word that says of what a number is, or when something is.
fn unit(word: &str, raw: &str, follows_number: bool, found: &mut Vec<String>) {
    let word = word.split(['\'', '’']).next().unwrap_or(word);
    // `st`, `nd`: an ordinal.
    if matches!(word, "st" | "nd" | "rd" | "th") {
        if let Some(number) = found.last_mut() {
            number.push('.');
        }
        return;
    }
    // An `a` is an ampere only behind a number, and an `am` a time.
    if !follows_number && (word.len() == 1 || matches!(word, "am" | "ad" | "mi" | "ce")) {
        return;
    }
    // These months are words too.
    if matches!(word, "may" | "march" | "mai") && !raw.starts_with(char::is_uppercase) {
        return;
    }
    if let Some(names) = MEASURES.iter().find(|names| names.contains(&word)) {
        found.push(names[0].to_owned());
    }
}

enum Value {
    /// A number that may be part of a larger one.
    Small(u64),
    /// Hundred, thousand, million.
    Times(u64),
    /// One that stands alone.
    Other(String),
}

/// What a word says, where it is a number.
fn word(word: &str) -> Option<Value> {
    const SMALL: [&str; 20] = [
        "zero",
        "one",
        "two",
        "three",
        "four",
        "five",
        "six",
        "seven",
        "eight",
        "nine",
        "ten",
        "eleven",
        "twelve",
        "thirteen",
        "fourteen",
        "fifteen",
        "sixteen",
        "seventeen",
        "eighteen",
        "nineteen",
    ];
    const TENS: [&str; 8] = ["twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety"];
    const ORDINALS: [&str; 13] = [
        "zeroth", "first", "second", "third", "fourth", "fifth", "sixth", "seventh", "eighth", "ninth",
        "tenth", "eleventh", "twelfth",
    ];
    // German, French, Spanish, Italian, Portuguese, Dutch, from two on: what is `one` is an article there.
    const OTHERS: [&[&str]; 11] = [
        &["zwei", "deux", "dos", "due", "dois", "duas", "twee"],
        &["drei", "trois", "tres", "tre", "três", "drie"],
        &["vier", "quatre", "cuatro", "quattro", "quatro"],
        &["fünf", "cinq", "cinco", "cinque", "vijf"],
        &["sechs", "seis", "sei", "zes"],
        &["sieben", "sept", "siete", "sette", "sete", "zeven"],
        &["acht", "huit", "ocho", "otto", "oito"],
        &["neun", "neuf", "nueve", "nove", "negen"],
        &["zehn", "dix", "diez", "dieci", "dez", "tien"],
        &["elf", "onze", "once", "undici"],
        &["zwölf", "douze", "doce", "dodici", "doze", "twaalf"],
    ];
    // `once` is eleven in Spanish only.
    let place = |list: &[&str]| list.iter().position(|one| *one == word).map(|at| at as u64);
    if let Some(value) = place(&SMALL) {
        return Some(Value::Small(value));
    }
    if let Some(ten) = place(&TENS) {
        return Some(Value::Small((ten + 2) * 10));
    }
    if let Some(number) = place(&ORDINALS) {
        return Some(Value::Other(format!("{number}.")));
    }
    match word {
        "hundred" | "hundreds" => return Some(Value::Times(100)),
        "thousand" | "thousands" => return Some(Value::Times(1_000)),
        "million" | "millions" => return Some(Value::Times(1_000_000)),
        "billion" | "billions" => return Some(Value::Times(1_000_000_000)),
        "once" => return Some(Value::Other("once".to_owned())),
        _ => {}
    }
    if let Some(at) = OTHERS.iter().position(|names| names.contains(&word)) {
        return Some(Value::Other((at + 2).to_string()));
    }
    is_compound(word).then(|| Value::Other(word.to_owned()))
}

/// German, Dutch and Italian write larger numbers as one word: `fünfundzwanzig`. It stands for itself.
fn is_compound(word: &str) -> bool {
    const PARTS: &[&str] = &[
        "hundert",
        "tausend",
        "zwanzig",
        "dreißig",
        "dreissig",
        "vierzig",
        "fünfzig",
        "sechzig",
        "siebzig",
        "achtzig",
        "neunzig",
        "zehn",
        "zwei",
        "drei",
        "vier",
        "fünf",
        "sechs",
        "sech",
        "sieben",
        "sieb",
        "acht",
        "neun",
        "eins",
        "ein",
        "und",
        "honderd",
        "duizend",
        "twintig",
        "dertig",
        "veertig",
        "vijftig",
        "zestig",
        "zeventig",
        "tachtig",
        "negentig",
        "tien",
        "twee",
        "drie",
        "vijf",
        "zes",
        "zeven",
        "negen",
        "een",
        "en",
        "ën",
        "cento",
        "mila",
        "venti",
        "trenta",
        "quaranta",
        "cinquanta",
        "sessanta",
        "settanta",
        "ottanta",
        "novanta",
        "vingt",
        "trente",
        "quarante",
        "cinquante",
        "soixante",
        "veinte",
        "veinti",
        "treinta",
        "cuarenta",
        "cincuenta",
        "sesenta",
        "setenta",
        "ochenta",
        "noventa",
    ];
    let mut rest = word;
    let mut parts = 0;
    while let Some(left) = PARTS.iter().find_map(|part| rest.strip_prefix(part)) {
        rest = left;
        parts += 1;
    }
    // `ein`, `und`, `en` alone are words like others.
    let is_whole = rest.is_empty() && !matches!(word, "ein" | "eins" | "und" | "een" | "en" | "einen");
    parts > 0 && is_whole
}
