//! Nodes that break a promise on purpose: each is found out, by the invariant that it breaks.

use integration::history::Rule;

use super::chaos;

/// One run with a broken node finds one of these.
async fn is_caught(control: &str, by: &[Rule]) {
    let flags = ["--seconds", "25", "--seed", "5", "--rate", "60"];
    let report = chaos(&[&flags[..], &["--broken", control]].concat()).await;
    let violated = report.violated();
    assert!(by.iter().any(|it| violated.contains(it)), "{report}");
}

/// One test for each, so that they can be run one by one.
macro_rules! controls {
    ($($test:ident: $control:literal by $($rule:ident),+;)+) => {
        $(
            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $test() {
                is_caught($control, &[$(Rule::$rule),+]).await;
            }
        )+

        #[test]
        fn each_control_has_a_test() {
            assert_eq!([$($control),+], coordinator::broken::CONTROLS);
        }
    };
}

controls! {
    a_reader_that_moves_past_what_it_has_not_seen_is_caught: "skip-unseen" by Gap;
    a_row_that_moves_on_before_its_answer_is_recorded_is_caught: "settle-later" by Reordered;
    a_receipt_that_leaves_before_its_append_is_caught: "acknowledge-early" by Lost;
    a_retry_under_another_id_is_caught: "fresh-id" by Doubled;
    a_record_without_an_epoch_is_caught: "no-epoch" by Doubled, OffRecord, Lost;
    commits_that_do_not_wait_for_others_of_their_rows_are_caught: "no-lanes" by Reordered;
    work_on_futures_that_are_dropped_is_caught: "request-future" by Lost;
    a_refusal_that_does_not_wait_for_earlier_copies_is_caught: "refuse-early" by Phantom, Reordered;
    a_feed_that_is_not_swept_is_caught: "no-sweep" by Missed;
    an_attempt_that_is_not_on_record_is_caught: "off-record" by OffRecord;
}
