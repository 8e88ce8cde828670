//! The words that rules go by. Latin languages are thrown together: a word that denies in one of them and does not in
//! another is found on both sides or on neither, as texts of different languages are kept apart before.

/// Whether a word denies.
pub(super) fn denies(word: &str) -> bool {
    const WORDS: &[&str] = &[
        // English
        "not",
        "no",
        "never",
        "none",
        "nothing",
        "nobody",
        "nowhere",
        "neither",
        "nor",
        "without",
        "except",
        "unless",
        "hardly",
        "barely",
        "instead",
        "excluding",
        "avoid",
        "non",
        "lacks",
        "lack",
        "fails",
        "fail",
        "failed",
        "isnt",
        "dont",
        "doesnt",
        "cant",
        "wont",
        // German
        "nicht",
        "kein",
        "keine",
        "keinen",
        "keinem",
        "keiner",
        "keines",
        "nie",
        "niemals",
        "nichts",
        "niemand",
        "ohne",
        "weder",
        "außer",
        "statt",
        // French
        "ne",
        "n",
        "pas",
        "jamais",
        "sans",
        "aucun",
        "aucune",
        "rien",
        "ni",
        "personne",
        // Spanish, Portuguese, Italian
        "nunca",
        "jamás",
        "sin",
        "nada",
        "ningún",
        "ninguno",
        "ninguna",
        "nadie",
        "tampoco",
        "não",
        "sem",
        "nenhum",
        "nenhuma",
        "ninguém",
        "mai",
        "senza",
        "niente",
        "nessun",
        "nessuno",
        "nessuna",
        "né",
        // Dutch, Polish, Turkish, Swedish
        "niet",
        "geen",
        "nooit",
        "zonder",
        "bez",
        "nigdy",
        "değil",
        "yok",
        "inte",
        "ingen",
        "aldrig",
        "utan",
        // Russian, Ukrainian
        "не",
        "нет",
        "ни",
        "без",
        "никогда",
        "нельзя",
        "ні",
        "немає",
        // Arabic, Hindi
        "لا",
        "ليس",
        "لم",
        "لن",
        "غير",
        "بدون",
        "नहीं",
        "मत",
        "बिना",
    ];
    WORDS.contains(&word)
}

/// The same where words are not parted by spaces: Chinese, Japanese, Korean, Thai.
pub(super) const NEGATION_SIGNS: &[&str] = &[
    "不",
    "没",
    "沒",
    "無",
    "无",
    "未",
    "别",
    "勿",
    "非",
    "ない",
    "ません",
    "なし",
    "ず",
    "않",
    "못",
    "없",
    "안 ",
    "ไม่",
];

/// Words of one kind each; which kinds there are must be the same.
pub(super) const QUANTITIES: &[&[&str]] = &[
    &[
        "all",
        "every",
        "each",
        "everything",
        "everyone",
        "entire",
        "whole",
        "alle",
        "jede",
        "jeder",
        "jedes",
        "tous",
        "toutes",
        "todos",
        "todas",
        "tutti",
    ],
    &["only", "solely", "exclusively", "nur", "seulement", "solo", "sólo", "solamente", "apenas"],
    &["always", "immer", "toujours", "siempre", "sempre"],
    &["some", "few", "several", "einige", "quelques", "algunos", "algunas"],
    &["most", "mostly", "majority"],
    &["least"],
    &["both", "beide"],
    &["either", "or", "oder"],
    &["exactly", "precisely"],
    &["almost", "nearly", "approximately", "about", "roughly"],
    &["half", "double", "twice", "triple", "quarter", "dozen"],
    &["sometimes", "often", "rarely", "seldom", "usually"],
];

/// What is asked for. `what`, `which` and `how` ask for anything.
pub(super) const QUESTIONS: &[&[&str]] = &[
    &["when", "wann", "quand", "cuándo", "quando"],
    &["where", "wo", "wohin", "woher", "où", "dónde", "dove", "onde"],
    &["who", "whom", "whose", "wer", "wen", "wem", "qui", "quién", "chi", "quem"],
    &["why", "warum", "wieso", "weshalb", "pourquoi", "perché"],
    &[
        "many", "much", "wieviel", "wieviele", "combien", "cuánto", "cuánta", "cuántos", "cuántas", "quanto",
        "quanti", "quantos", "quantas",
    ],
];

/// Whether one word says the opposite of another; both without their endings.
pub(super) fn are_opposites(one: &str, other: &str) -> bool {
    const PREFIXES: &[&str] = &[
        "un", "in", "im", "ir", "il", "dis", "non", "mis", "de", "anti", "counter", "over", "under", "pre",
        "post", "up", "down", "out", "re",
    ];
    let denies = |long: &str, short: &str| {
        short.len() >= 3
            && long.strip_suffix(short).is_some_and(|prefix| PREFIXES.contains(&prefix.trim_end_matches('-')))
    };
    denies(one, other)
        || denies(other, one)
        || OPPOSITES.iter().any(|(left, right)| {
            let has = |side: &str, word: &str| side.split(' ').any(|known| stem(known) == word);
            (has(left, one) && has(right, other)) || (has(left, other) && has(right, one))
        })
}

const OPPOSITES: &[(&str, &str)] = &[
    ("before prior earlier", "after later following afterwards"),
    (
        "min minimum minimal lowest smallest least fewest",
        "max maximum maximal highest largest most biggest greatest",
    ),
    ("more greater larger bigger higher", "less fewer smaller lower"),
    ("above over", "below under beneath"),
    ("add append insert include join attach", "remove delete drop exclude leave detach subtract"),
    ("enable activate allow permit unlock", "disable deactivate forbid prevent block deny prohibit lock"),
    ("on", "off"),
    ("increase raise grow rise gain expand", "decrease reduce lower shrink fall lose drop cut contract"),
    ("open start begin create launch", "close stop end finish quit destroy terminate"),
    ("first", "last final"),
    ("next", "previous last"),
    ("oldest old older", "newest new newer youngest young latest"),
    ("buy purchase", "sell"),
    ("import", "export"),
    ("upload", "download"),
    ("encode encrypt compress", "decode decrypt decompress extract"),
    ("push", "pull pop"),
    ("send", "receive"),
    ("read", "write"),
    ("get", "set"),
    ("input", "output"),
    ("source", "target destination"),
    ("left", "right"),
    ("top upper", "bottom lower"),
    ("up upward ascending ascend", "down downward descending descend"),
    ("inside in into inner internal indoors", "outside out outer external outdoors"),
    ("from", "to"),
    ("with", "without"),
    ("for", "against"),
    ("same equal similar", "different unequal"),
    ("true yes", "false no"),
    ("good better best", "bad worse worst"),
    ("fast faster fastest quick", "slow slower slowest"),
    ("hot warm hotter hottest", "cold cool colder coldest"),
    ("big large", "small little tiny"),
    ("long longer longest", "short shorter shortest"),
    ("tall taller tallest", "short shorter shortest"),
    ("strong stronger strongest", "weak weaker weakest"),
    ("rich richest", "poor poorest"),
    ("hard difficult", "easy simple soft"),
    ("heavy heaviest", "light lightest"),
    ("wide broad", "narrow"),
    ("deep", "shallow"),
    ("full", "empty"),
    ("cheap cheaper cheapest", "expensive costly pricey"),
    ("early", "late"),
    ("near close nearest closest", "far distant farthest furthest"),
    ("win won winning", "lose lost losing"),
    ("pass succeed success", "fail failure"),
    ("advantage pro benefit strength upside", "disadvantage con drawback weakness downside risk"),
    ("cause", "effect prevent cure"),
    ("accept approve agree", "reject refuse decline disagree"),
    ("show display", "hide"),
    ("connect", "disconnect"),
    ("install", "uninstall"),
    ("public", "private"),
    ("legal", "illegal"),
    ("allowed", "forbidden banned"),
    (
        "male man men boy father husband brother son king his him he",
        "female woman women girl mother wife sister daughter queen her she",
    ),
    ("parent", "child children"),
    ("teacher", "student"),
    ("employer", "employee"),
    ("lender", "borrower"),
    ("lend", "borrow"),
    ("north northern", "south southern"),
    ("east eastern", "west western"),
    ("day morning", "night evening"),
    ("today", "tomorrow yesterday"),
    ("tomorrow", "yesterday"),
    ("sunrise", "sunset"),
    ("summer", "winter"),
    ("alive live life birth born", "dead die death died"),
    ("love like", "hate dislike"),
    ("positive", "negative"),
    ("plus", "minus"),
    ("multiply", "divide"),
    ("profit", "loss"),
    ("debit", "credit"),
    ("income revenue", "expense cost"),
    ("supply", "demand"),
    ("vertical", "horizontal"),
    ("row", "column"),
    ("odd", "even"),
    ("integer", "float"),
    ("client", "server"),
    ("local", "remote global"),
    ("static", "dynamic"),
    ("synchronous sync", "asynchronous async"),
    ("ancient", "modern"),
    ("always", "never sometimes"),
    ("all", "some none"),
    ("any", "none"),
    ("many", "few"),
    ("my mine our", "your yours their his her"),
    ("safe", "dangerous"),
    ("keep", "discard"),
    ("arrive arrival", "depart departure leave"),
    ("attack", "defend"),
    ("front", "back"),
    ("forward", "backward"),
    ("forwards", "backwards"),
    ("vor vorher", "nach nachher danach"),
    ("mehr größer", "weniger kleiner"),
    ("mit", "ohne"),
    ("ein einschalten aktivieren", "aus ausschalten deaktivieren"),
    ("hinzufügen", "entfernen löschen"),
    ("öffnen", "schließen"),
    ("höchste größte", "niedrigste kleinste"),
    ("avant", "après"),
    ("plus", "moins"),
    ("avec", "sans"),
    ("activer", "désactiver"),
    ("ajouter", "supprimer"),
    ("ouvrir", "fermer"),
    ("antes", "después depois"),
    ("más", "menos"),
    ("mais", "menos"),
    ("con", "sin"),
    ("com", "sem"),
    ("activar", "desactivar"),
    ("añadir", "eliminar"),
    ("abrir", "cerrar"),
    ("prima", "dopo"),
    ("più", "meno"),
];

/// Names of one unit or time each; the first stands for all.
pub(super) const MEASURES: &[&[&str]] = &[
    &["%", "percent", "per cent", "prozent", "percentage"],
    &["km", "kilometer", "kilometers", "kilometre", "kilometres"],
    &["m", "meter", "meters", "metre", "metres"],
    &["cm", "centimeter", "centimeters", "centimetre", "centimetres"],
    &["mm", "millimeter", "millimeters", "millimetre", "millimetres"],
    &["mile", "miles", "mi"],
    &["foot", "feet", "ft"],
    &["inch", "inches"],
    &["yard", "yards"],
    &["kg", "kilogram", "kilograms", "kilo", "kilos"],
    &["g", "gram", "grams", "gramme", "grammes"],
    &["mg", "milligram", "milligrams"],
    &["ton", "tons", "tonne", "tonnes"],
    &["pound", "pounds", "lb", "lbs"],
    &["ounce", "ounces", "oz"],
    &["l", "liter", "liters", "litre", "litres"],
    &["ml", "milliliter", "milliliters", "millilitre", "millilitres"],
    &["gallon", "gallons"],
    &["cup", "cups"],
    &["c", "celsius", "centigrade", "°c"],
    &["f", "fahrenheit", "°f"],
    &["k", "kelvin"],
    &["kb", "kilobyte", "kilobytes"],
    &["mb", "megabyte", "megabytes"],
    &["gb", "gigabyte", "gigabytes"],
    &["tb", "terabyte", "terabytes"],
    &["bit", "bits"],
    &["byte", "bytes"],
    &["w", "watt", "watts"],
    &["kw", "kilowatt", "kilowatts"],
    &["v", "volt", "volts"],
    &["a", "amp", "amps", "ampere", "amperes"],
    &["dollar", "dollars", "usd"],
    &["euro", "euros", "eur"],
    &["cent", "cents"],
    &["yen", "jpy"],
    &["ms", "millisecond", "milliseconds"],
    &["seconds", "sec", "secs", "sekunde", "sekunden"],
    &["minute", "minutes", "mins", "minuten"],
    &["hour", "hours", "hr", "hrs", "stunde", "stunden", "heure", "heures", "hora", "horas", "hourly"],
    &["day", "days", "tag", "tage", "jour", "jours", "día", "días", "dia", "dias", "daily"],
    &["week", "weeks", "woche", "wochen", "semaine", "semaines", "semana", "semanas", "weekly"],
    &["month", "months", "monat", "monate", "mois", "mes", "meses", "monthly"],
    &[
        "year", "years", "jahr", "jahre", "année", "années", "año", "años", "ano", "anos", "yearly",
        "annual", "annually",
    ],
    &["decade", "decades"],
    &["century", "centuries"],
    &["monday", "mondays", "montag", "lundi", "lunes"],
    &["tuesday", "tuesdays", "dienstag", "mardi", "martes"],
    &["wednesday", "wednesdays", "mittwoch", "mercredi", "miércoles"],
    &["thursday", "thursdays", "donnerstag", "jeudi", "jueves"],
    &["friday", "fridays", "freitag", "vendredi", "viernes"],
    &["saturday", "saturdays", "samstag", "samedi", "sábado"],
    &["sunday", "sundays", "sonntag", "dimanche", "domingo"],
    &["january", "jan", "januar", "janvier", "enero"],
    &["february", "feb", "februar", "février", "febrero"],
    &["march", "märz", "mars", "marzo"],
    &["april", "apr", "avril", "abril"],
    &["may", "mai", "mayo"],
    &["june", "jun", "juni", "juin", "junio"],
    &["july", "jul", "juli", "juillet", "julio"],
    &["august", "aug", "août", "agosto"],
    &["september", "sept", "sep", "septembre", "septiembre"],
    &["october", "oct", "oktober", "octobre", "octubre"],
    &["november", "nov", "novembre", "noviembre"],
    &["december", "dec", "dezember", "décembre", "diciembre"],
    &["spring", "frühling", "printemps", "primavera"],
    &["summer", "sommer", "été", "verano"],
    &["autumn", "herbst", "automne", "otoño"],
    &["winter", "hiver", "invierno"],
    &["bc", "bce"],
    &["ad", "ce"],
    &["am", "a.m"],
    &["pm", "p.m"],
];

/// Whether a word only holds a text together.
pub(super) fn is_small(word: &str) -> bool {
    const WORDS: &[&str] = &[
        "a", "an", "the", "is", "are", "was", "were", "be", "been", "being", "am", "do", "does", "did",
        "doing", "done", "have", "has", "had", "can", "could", "will", "would", "shall", "should", "may",
        "might", "must", "i", "me", "my", "mine", "we", "us", "our", "you", "your", "he", "him", "his",
        "she", "her", "it", "its", "they", "them", "their", "this", "that", "these", "those", "there",
        "here", "what", "which", "who", "whom", "whose", "when", "where", "why", "how", "of", "to", "in",
        "on", "at", "by", "for", "with", "about", "as", "into", "from", "and", "or", "but", "if", "so",
        "than", "then", "not", "no", "please", "tell", "let", "s", "t", "d", "ll", "re", "ve", "m", "up",
        "out", "one", "some", "any", "just", "der", "die", "das", "den", "dem", "des", "ein", "eine",
        "einen", "einem", "einer", "ist", "sind", "war", "und", "oder", "ich", "du", "er", "sie", "es",
        "wir", "ihr", "mein", "meine", "wie", "was", "wer", "wann", "wo", "warum", "zu", "im", "mit", "von",
        "für", "auf", "nicht", "man", "kann", "bitte", "le", "la", "les", "un", "une", "des", "du", "de",
        "est", "sont", "et", "ou", "je", "tu", "il", "elle", "nous", "vous", "ils", "que", "qui", "quoi",
        "quel", "quelle", "comment", "pour", "dans", "ce", "cette", "ne", "pas", "mon", "ma", "el", "los",
        "las", "una", "del", "es", "son", "y", "o", "yo", "qué", "cómo", "cuál", "para", "por", "en", "mi",
        "su", "se", "lo", "gli", "uno", "di", "che", "come", "per", "e", "non", "os", "um", "uma", "é",
        "não", "da", "em", "het", "een", "wat", "hoe", "van", "voor", "niet", "ik", "ja",
    ];
    word.chars().count() <= 1 || WORDS.contains(&word)
}

/// Whether a sentence may begin with this word without its capital meaning a name.
pub(super) fn opens(word: &str) -> bool {
    const WORDS: &[&str] = &[
        "explain",
        "describe",
        "give",
        "list",
        "write",
        "show",
        "summarize",
        "summarise",
        "define",
        "name",
        "find",
        "calculate",
        "compute",
        "convert",
        "translate",
        "create",
        "make",
        "generate",
        "provide",
        "compare",
        "outline",
        "suggest",
        "recommend",
        "help",
        "say",
        "state",
        "identify",
        "solve",
        "check",
        "fix",
        "rewrite",
        "rephrase",
        "sort",
        "count",
        "return",
        "print",
        "draw",
        "plan",
        "estimate",
        "discuss",
        "analyze",
        "analyse",
        "classify",
        "extract",
        "correct",
        "prove",
        "hello",
        "hi",
        "hey",
        "thanks",
        "now",
        "also",
        "still",
        "after",
        "before",
        "during",
        "since",
        "while",
        "because",
        "although",
        "erkläre",
        "beschreibe",
        "nenne",
        "schreibe",
        "zeige",
        "übersetze",
        "gib",
        "explique",
        "décris",
        "donne",
        "liste",
        "traduis",
        "explica",
        "describe",
        "dame",
        "dime",
        "traduce",
        "escribe",
        "many",
        "most",
        "all",
        "every",
        "each",
    ];
    WORDS.contains(&word)
}

/// A word without the endings of number, time and comparison; only so far that forms of one word meet.
pub(super) fn stem(word: &str) -> String {
    if !word.is_ascii() || word.len() <= 3 {
        return word.to_owned();
    }
    let mut rest = word;
    for ending in ["ingly", "edly", "ation", "ions", "ing", "ies", "ion", "ed", "ly", "es", "s"] {
        if let Some(short) = rest
            .strip_suffix(ending)
            .filter(|short| short.len() >= 3 && !(ending == "s" && short.ends_with('s')))
        {
            rest = short;
            break;
        }
    }
    let rest = rest.strip_suffix('e').filter(|short| short.len() >= 3).unwrap_or(rest);
    let mut letters: Vec<u8> = rest.bytes().collect();
    if let [.., before, last] = &letters[..]
        && before == last
        && letters.len() > 3
    {
        letters.pop();
    }
    if letters.last() == Some(&b'y') {
        letters.pop();
        letters.push(b'i');
    }
    letters.into_iter().map(char::from).collect()
}

/// The language whose small words a text has, by its place in the list. Words that two of them have are in none.
pub(super) fn language_of<'a>(words: impl Iterator<Item = &'a str>) -> Option<usize> {
    const LANGUAGES: &[&[&str]] = &[
        &[
            "the", "is", "are", "what", "how", "does", "do", "my", "and", "of", "with", "this", "which",
            "why", "where", "can",
        ],
        &[
            "der", "das", "ist", "wie", "und", "ein", "eine", "ich", "nicht", "für", "mit", "auf", "welche",
            "warum", "den", "mein",
        ],
        &[
            "est", "les", "comment", "quel", "quelle", "et", "je", "pour", "dans", "pourquoi", "avec", "une",
            "mon", "c'est", "au",
        ],
        &["el", "los", "cómo", "qué", "cuál", "y", "para", "las", "mi", "dónde", "por", "muy", "está"],
        &["il", "gli", "è", "che", "perché", "della", "di", "sono", "qual", "nel", "dove"],
        &["não", "é", "são", "uma", "da", "em", "onde", "meu", "minha", "você", "ao"],
        &["het", "een", "wat", "hoe", "van", "voor", "niet", "ik", "mijn", "waarom", "zijn"],
    ];
    let mut counts = [0_usize; 7];
    for word in words {
        for (count, language) in counts.iter_mut().zip(LANGUAGES) {
            *count += usize::from(language.contains(&word));
        }
    }
    let most = *counts.iter().max()?;
    let mut best = counts.iter().enumerate().filter(|(_, count)| **count == most);
    let (at, _) = best.next()?;
    (most > 0 && best.next().is_none()).then_some(at)
}
