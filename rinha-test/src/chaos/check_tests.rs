use super::*;
use crate::chaos::journals::Journaled;

const AMOUNT: Cents = Cents::new(1990);

fn id(number: u8) -> CorrelationId {
    CorrelationId::from_bytes([number; 16])
}

fn at(ms: i64) -> TimestampMs {
    TimestampMs::clamped(ms)
}

fn attempt(told: Told) -> Attempt {
    Attempt { amount: AMOUNT, told }
}

fn settlement(number: u8) -> Settlement {
    let processor = if number < 3 { Processor::Default } else { Processor::Fallback };
    Settlement { processor, requested_at: at(i64::from(number)), amount: AMOUNT }
}

/// Payments 1 and 2 at the default processor, 3 at the other one, 4 refused, all books right.
fn right() -> Evidence {
    let mut posted = Posted::default();
    let mut journals = Journals::default();
    let mut recorded = [Vec::new(), Vec::new()];
    let mut lookups = Vec::new();
    for number in 1..=4 {
        posted.announce(id(number), AMOUNT);
        let told = [Told::Accepted, Told::Nothing, Told::Accepted, Told::Refused(503)];
        posted.add(id(number), attempt(told[usize::from(number) - 1]));
        if number == 4 {
            continue;
        }
        let settled = settlement(number);
        let journaled = Journaled {
            accepted_count: 1,
            closed_count: 1,
            refused_count: 0,
            settled: vec![settled],
        };
        journals.payments.insert(id(number), journaled);
        recorded[settled.processor.index()].push(Recorded {
            id: id(number),
            amount: AMOUNT,
            requested_at: settled.requested_at,
            attempts: 1,
        });
        lookups.push((id(number), Some(settled)));
    }
    let summaries = [RangeMs::ALL, RangeMs { from: at(2), to: at(3) }]
        .map(|range| {
            let theirs = [0, 1].map(|side: usize| sum(&recorded[side], range));
            Summaries { range, ours: theirs, theirs }
        })
        .to_vec();
    Evidence { posted, recorded, journals, summaries, lookups, refusals_are_open: false }
}

/// What is found once the right evidence is altered.
fn found(alter: impl FnOnce(&mut Evidence)) -> Vec<Finding> {
    let mut evidence = right();
    alter(&mut evidence);
    check(&evidence)
}

fn journaled(evidence: &mut Evidence, number: u8) -> &mut Journaled {
    evidence.journals.payments.get_mut(&id(number)).unwrap()
}

#[test]
fn right_books_have_no_findings() {
    assert_eq!(check(&right()), []);
}

#[test]
fn a_lost_payment_is_found_and_one_without_an_answer_may_be_missing() {
    let lose = |number: u8| {
        found(|evidence| {
            evidence.recorded[0].retain(|recorded| recorded.id != id(number));
            evidence.journals.payments.remove(&id(number));
            evidence.lookups.clear();
            evidence.summaries.clear();
        })
    };
    assert_eq!(lose(1), [Finding::Lost(id(1))]);
    assert_eq!(lose(2), []);
}

#[test]
fn a_payment_that_both_recorded_is_found() {
    let findings = found(|evidence| {
        let twice = evidence.recorded[0][0];
        evidence.recorded[1].push(twice);
        evidence.summaries.clear();
    });
    assert_eq!(findings, [Finding::PaidTwice(id(1))]);
}

#[test]
fn what_nobody_posted_is_found_in_the_books_and_in_the_journals() {
    let findings = found(|evidence| {
        evidence.recorded[0][0].id = id(9);
        evidence.summaries.clear();
    });
    assert!(findings.contains(&Finding::NeverPosted(id(9))), "{findings:?}");
    assert!(findings.contains(&Finding::Lost(id(1))), "{findings:?}");
    let findings = found(|evidence| {
        evidence.journals.payments.insert(id(9), Journaled::default());
    });
    assert_eq!(findings, [Finding::NeverPosted(id(9))]);
}

#[test]
fn a_wrong_amount_is_found_even_where_the_journals_agree() {
    let wrong = Cents::new(1991);
    let alter = |evidence: &mut Evidence| {
        evidence.recorded[0][0].amount = wrong;
        journaled(evidence, 1).settled[0].amount = wrong;
        evidence.lookups.clear();
        evidence.summaries.clear();
    };
    assert_eq!(found(alter), [Finding::WrongAmount(id(1), wrong)]);
    // Either amount that was accepted will do, and none that was refused.
    for (told, expected) in
        [(Told::Accepted, vec![]), (Told::Refused(409), vec![Finding::WrongAmount(id(1), wrong)])]
    {
        let findings = found(|evidence| {
            alter(evidence);
            evidence.posted.add(id(1), Attempt { amount: wrong, told });
        });
        assert_eq!(findings, expected);
    }
}

#[test]
fn an_answer_that_nothing_explains_is_found() {
    for (status, amount, expected) in [
        (503, AMOUNT, vec![]),
        (500, AMOUNT, vec![Finding::WrongAnswer(id(1), 500)]),
        (409, AMOUNT, vec![Finding::WrongAnswer(id(1), 409)]),
        (409, Cents::new(1), vec![]),
    ] {
        let findings = found(|evidence| {
            evidence.posted.add(id(1), Attempt { amount, told: Told::Refused(status) });
        });
        assert_eq!(findings, expected);
    }
}

#[test]
fn a_refused_payment_that_is_recorded_is_found_unless_the_refusal_left_it_open() {
    let alter = |evidence: &mut Evidence| {
        let settled = settlement(4);
        journaled(evidence, 3);
        evidence.journals.payments.insert(
            id(4),
            Journaled {
                accepted_count: 1,
                closed_count: 1,
                refused_count: 0,
                settled: vec![settled],
            },
        );
        evidence.recorded[1].push(Recorded {
            id: id(4),
            amount: AMOUNT,
            requested_at: settled.requested_at,
            attempts: 1,
        });
        evidence.summaries.clear();
    };
    assert_eq!(found(alter), [Finding::RefusedAndPaid(id(4))]);
    let findings = found(|evidence| {
        alter(evidence);
        evidence.refusals_are_open = true;
    });
    assert_eq!(findings, []);
}

#[test]
fn journals_that_say_another_moment_amount_or_processor_are_found() {
    let alterations: [fn(&mut Settlement); 3] = [
        |settled| settled.requested_at = at(77),
        |settled| settled.amount = Cents::new(1),
        |settled| settled.processor = settled.processor.other(),
    ];
    for alter in alterations {
        let mut wrong = settlement(1);
        alter(&mut wrong);
        let findings = found(|evidence| {
            journaled(evidence, 1).settled[0] = wrong;
            evidence.lookups.clear();
        });
        assert_eq!(findings, [Finding::JournalsDiffer(id(1), wrong)]);
    }
}

#[test]
fn journals_that_miss_a_settlement_repeat_it_or_leave_it_open_are_found() {
    let findings = found(|evidence| {
        journaled(evidence, 1).settled.clear();
        evidence.lookups.clear();
    });
    assert_eq!(findings, [Finding::NotInJournals(id(1))]);
    let findings = found(|evidence| {
        let settled = &mut journaled(evidence, 1).settled;
        settled.push(settled[0]);
    });
    assert_eq!(findings, [Finding::SettledTwice(id(1))]);
    let findings = found(|evidence| journaled(evidence, 1).accepted_count = 2);
    assert_eq!(findings, [Finding::Open(id(1))]);
}

#[test]
fn a_lookup_that_says_something_else_or_nothing_is_found() {
    let wrong = Settlement { requested_at: at(5), ..settlement(1) };
    for told in [Some(wrong), None] {
        let findings = found(|evidence| evidence.lookups[0].1 = told);
        assert_eq!(findings, [Finding::LookupDiffers(id(1), told)]);
    }
}

#[test]
fn a_summary_that_is_a_cent_or_a_request_off_is_found() {
    let alterations: [fn(&mut Totals); 2] =
        [|totals| totals.count += 1, |totals| totals.amount = Cents::new(totals.amount.get() - 1)];
    for alter in alterations {
        for (place, processor) in [(0, Processor::Default), (1, Processor::Fallback)] {
            let mut evidence = right();
            alter(&mut evidence.summaries[place].ours[processor.index()]);
            let wrong = evidence.summaries[place];
            assert_eq!(check(&evidence), [Finding::SummaryDiffers(processor, wrong)]);
        }
        // Both may agree and be wrong all the same.
        let findings = found(|evidence| {
            alter(&mut evidence.summaries[1].ours[0]);
            alter(&mut evidence.summaries[1].theirs[0]);
        });
        assert!(matches!(findings[..], [Finding::ProcessorDiffers(Processor::Default, _)]));
    }
}

#[test]
fn after_a_purge_what_came_before_it_is_not_looked_at() {
    let findings = found(|evidence| {
        evidence.posted.purged();
        evidence.recorded[0].clear();
        evidence.summaries.clear();
        evidence.lookups.clear();
    });
    assert_eq!(findings, []);
}

#[test]
fn spans_of_time_begin_and_end_around_payments() {
    let evidence = right();
    let mut random = crate::faults::random::Random::new(1);
    let spans = ranges(&evidence.recorded, 10, |end| random.below(end));
    assert_eq!(spans.len(), 11);
    assert_eq!(spans[0], RangeMs::ALL);
    assert!(spans[1..].iter().all(|span| span.from <= span.to && span.from >= at(0)));
    assert_eq!(ranges(&[Vec::new(), Vec::new()], 10, |_| 0), [RangeMs::ALL]);
}
