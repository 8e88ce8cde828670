//! Pairs of texts, and what keeps them apart.

use proptest::prelude::*;

use super::*;

#[track_caller]
fn check(expected: Option<Guard>, pairs: &[(&str, &str)]) {
    for (one, other) in pairs {
        assert_eq!(guard(one, other), expected, "{one} | {other}");
        assert_eq!(guard(other, one), expected, "{other} | {one}");
    }
}

#[test]
fn paraphrases_stay_together() {
    check(
        None,
        &[
            ("How do I reset my password?", "How can I reset my password?"),
            ("What is the capital of France?", "What's the capital of France?"),
            ("what is the capital of france", "What is the capital of France?"),
            ("Please explain how photosynthesis works.", "Explain how photosynthesis works"),
            ("How many days are there in 3 weeks?", "How many days are in three weeks?"),
            ("The bill is 1,000 dollars", "The bill is 1000 dollars"),
            ("Why doesn't my phone charge?", "Why does my phone not charge?"),
            ("What is 25 times 4?", "What is twenty-five times four?"),
            ("Who won the 3rd race?", "Who won the third race?"),
            ("What is two hundred and five plus one?", "what is 205 plus 1"),
            ("Wie setze ich mein Passwort zurück?", "Wie kann ich mein Passwort zurücksetzen?"),
            ("天气怎么样?", "天气怎么样"),
            ("Tell me about the French Revolution", "Tell me about the French revolution."),
        ],
    );
}

#[test]
fn numbers_units_and_dates_count() {
    check(
        Some(Guard::Numbers),
        &[
            ("How many days are there in 3 weeks?", "How many days are there in 4 weeks?"),
            ("How many days are there in three weeks?", "How many days are there in four weeks?"),
            ("Is 5 km far?", "Is 5 miles far?"),
            ("Is it open on Monday?", "Is it open on Tuesday?"),
            ("What happened in May 1968?", "What happened in June 1968?"),
            ("Who was the first president?", "Who was the second president?"),
            ("What changed in version 3.11?", "What changed in version 3.12?"),
            ("Add 3 to 5", "Add 5 to 3"),
            ("Is 2.5 enough?", "Is 25 enough?"),
            ("How much is 20% of it?", "How much is 30% of it?"),
            ("Was kosten fünfundzwanzig Eier?", "Was kosten fünfunddreißig Eier?"),
            ("How tall is it in feet?", "How tall is it in metres?"),
            ("Give me two examples", "Give me examples"),
        ],
    );
    // More than can be counted is not all the same.
    let hundreds = |count: usize| format!("What is {}?", vec!["hundred"; count].join(" "));
    for (one, other) in [(9, 10), (10, 11), (10, 12), (19, 20)] {
        check(Some(Guard::Numbers), &[(&hundreds(one), &hundreds(other))]);
    }
    let billions = |of: &str| format!("What is {of} billion billion hundred?");
    check(Some(Guard::Numbers), &[(&billions("one hundred"), &billions("two hundred"))]);
    check(None, &[(&hundreds(10), &hundreds(10).to_lowercase())]);
    for count in 0..64 {
        let large = "nineteen billion hundred ninety ".repeat(count);
        check(None, &[(&large, &format!("{large} "))]);
    }
}

#[test]
fn what_is_denied_counts() {
    check(
        Some(Guard::Negation),
        &[
            ("Does the warranty cover water damage?", "Does the warranty not cover water damage?"),
            ("Which foods contain gluten?", "Which foods don't contain gluten?"),
            ("Can I travel with a visa?", "Can I travel without a visa?"),
            ("Why is it possible?", "Why is it never possible?"),
            ("Warum geht das?", "Warum geht das nicht?"),
            ("Pourquoi il vient ?", "Pourquoi il ne vient pas ?"),
            ("¿Por qué funciona?", "¿Por qué no funciona?"),
            ("我可以吃吗?", "我不可以吃吗?"),
            ("Почему это работает?", "Почему это не работает?"),
        ],
    );
}

#[test]
fn opposites_quantities_and_questions_count() {
    check(
        Some(Guard::Opposites),
        &[
            ("How do I enable dark mode?", "How do I disable dark mode?"),
            ("Adding a user to a group", "Removing a user to a group"),
            ("What is the maximum speed?", "What is the minimum speed?"),
            ("Is it legal?", "Is it illegal?"),
            ("Is it safe to eat?", "Is it unsafe to eat?"),
            ("What should I do before surgery?", "What should I do after surgery?"),
            ("Is increased pressure bad?", "Is decreased pressure bad?"),
            ("What is my address?", "What is your address?"),
            ("Wie kann ich das aktivieren?", "Wie kann ich das deaktivieren?"),
        ],
    );
    check(
        Some(Guard::Quantity),
        &[
            ("Do all birds fly?", "Do birds fly?"),
            ("Do cats eat fish?", "Do cats only eat fish?"),
            ("Is it always blue?", "Is it blue?"),
        ],
    );
    check(
        Some(Guard::Question),
        &[
            ("Where was Einstein born?", "Who was Einstein born?"),
            ("Why is the sky blue?", "How is the sky blue?"),
            ("How much sugar is in it?", "Is sugar in it?"),
        ],
    );
}

#[test]
fn names_code_and_order_count() {
    check(
        Some(Guard::Names),
        &[
            ("What is the capital of France?", "What is the capital of Germany?"),
            ("Germany is where in Europe?", "France is where in Europe?"),
            ("Tell me about World War I", "Tell me about World War II"),
            ("What does HTTP mean?", "What does SMTP mean?"),
        ],
    );
    check(
        Some(Guard::Quoted),
        &[
            ("What does \"break a leg\" mean?", "What does \"spill the beans\" mean?"),
            ("What does `ls -l` do?", "What does `ls -a` do?"),
            ("How do I open main.rs?", "How do I open lib.rs?"),
            ("Fetch https://a.example/x", "Fetch https://a.example/y"),
            ("What is a + b?", "What is a * b?"),
            ("When to use to_string?", "When to use to_owned?"),
            ("Explain useState", "Explain useEffect"),
        ],
    );
    check(
        Some(Guard::Order),
        &[
            ("Convert words to images", "Convert images to words"),
            ("Did the dog bite the man?", "Did the man bite the dog?"),
            ("Is tea healthier than coffee?", "Is coffee healthier than tea?"),
        ],
    );
}

#[test]
fn language_and_length_count() {
    check(
        Some(Guard::Language),
        &[
            ("What is the capital of Peru?", "¿Cuál es la capital del Perú?"),
            ("Where is the station?", "Wo ist der Bahnhof?"),
            ("привет", "hello"),
        ],
    );
    check(
        Some(Guard::Length),
        &[("Why?", "Why does it take so long until the water in the kettle boils at last?")],
    );
}

#[test]
fn a_word_of_weight_in_a_long_text_counts() {
    let letter = |word: &str| {
        format!(
            "Write a short and friendly reply to a customer whose order of garden furniture arrived late, apologise for the \
             delay, offer a {word} on the next purchase, and sign as the support team of the online shop."
        )
    };
    check(Some(Guard::Words), &[(&letter("discount"), &letter("gift"))]);
    check(None, &[(&letter("discount"), &letter("small discount"))]);
}

#[test]
fn answers_are_held_to_their_numbers_and_denials() {
    assert!(states_the_same("It is 42 km.", "That is 42 kilometres"));
    assert!(!states_the_same("It is 42 km.", "It is 43 km."));
    assert!(!states_the_same("It does.", "It does not."));
}

proptest! {
    #[test]
    fn a_text_is_like_itself_and_both_ways_are_one(one in "\\PC{0,60}", other in "\\PC{0,60}") {
        prop_assert_eq!(guard(&one, &one), None);
        let spaced = format!(" {one}\n");
        prop_assert_eq!(guard(&one, &spaced), None);
        prop_assert_eq!(guard(&one, &other).is_some(), guard(&other, &one).is_some());
    }

    #[test]
    fn another_number_is_always_seen(before in "[a-z ]{0,30}", one in 0_u32..100_000, more in 1_u32..1_000, after in "[a-z ]{0,30}") {
        let text = |number: u32| format!("{before} {number} {after}");
        prop_assert!(guard(&text(one), &text(one + more)).is_some());
    }

    #[test]
    fn a_not_is_always_seen(before in "[a-z ]{1,30}", after in "[a-z ]{1,30}") {
        let (one, other) = (format!("{before} {after}"), format!("{before} not {after}"));
        prop_assert!(guard(&one, &other).is_some());
    }
}
