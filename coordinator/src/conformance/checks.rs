//! The checks, in the order in which an endpoint is usually built.

mod commits;
mod feed;
mod once;
mod reads;
mod requests;
mod signature;

use super::Check;

/// A row of the table: the sentence, the function, and what to change when it does not hold.
macro_rules! check {
    ($run:path, $name:literal, $mend:literal) => {
        Check {
            name: $name,
            mend: $mend,
            run: |probe| Box::pin($run(probe)),
        }
    };
}

/// Every check.
pub(super) fn all() -> impl Iterator<Item = &'static Check> {
    // The largest requests come last: they fill the feed, which the checks before them read.
    [SIGNATURE, COMMITS, ONCE, READS, FEED, REQUESTS]
        .into_iter()
        .flatten()
}

const SIGNATURE: &[Check] = &[
    check!(
        signature::another_key,
        "a commit that is signed with another key is refused and changes nothing",
        "verify webhook-signature over the raw body before anything else, and answer 401 \
         {\"error\": \"source_signature_invalid\"}"
    ),
    check!(
        signature::old,
        "a commit that was signed ten minutes ago is refused and changes nothing",
        "compare webhook-timestamp with the clock, and answer 401 \
         {\"error\": \"source_timestamp_expired\"} when they are five minutes apart"
    ),
    check!(
        signature::early,
        "a commit that is signed ten minutes ahead is refused and changes nothing",
        "compare webhook-timestamp with the clock in both directions, and answer 401 \
         {\"error\": \"source_timestamp_expired\"}"
    ),
    check!(
        signature::rotated,
        "one right signature among several is enough",
        "accept the request when any of the signatures in webhook-signature is right: while keys \
         are exchanged there are two"
    ),
];

const COMMITS: &[Check] = &[
    check!(
        commits::creates,
        "a CREATE is answered with the row as it is stored, and load finds it",
        "answer {\"rows\": [row]} or {\"deltas\": [delta]} with the row as the database returns it"
    ),
    check!(
        commits::updates,
        "an UPDATE changes the fields that it names and keeps the others",
        "write only the fields of the operation's input, and answer the whole row"
    ),
    check!(
        commits::deletes,
        "a DELETE removes the row, and deleting it again succeeds",
        "answer a DELETE of a missing row as if it had been there: {\"rows\": [{\"id\": …}]}"
    ),
    check!(
        commits::archives,
        "an archived row can be restored with its fields",
        "keep archived rows, or refuse ARCHIVE with a code, as 422 {\"error\": …}"
    ),
    check!(
        commits::refuses_existing,
        "a CREATE of a row that exists is refused with a code and leaves the row as it is",
        "answer 409 {\"error\": \"entity_exists\", \"message\": …}; a 5xx looks like an outage and is \
         retried for days"
    ),
    check!(
        commits::refuses_missing,
        "an UPDATE of a row that is missing is refused with a code and invents nothing",
        "look at the number of rows that were updated, and answer 404 \
         {\"error\": \"entity_not_found\"} when there was none"
    ),
    check!(
        commits::atomic,
        "a commit with one operation that fails applies none of them",
        "apply all operations of a commit in one transaction, and roll it back on the first failure"
    ),
    check!(
        commits::exact_numbers,
        "numbers keep every digit",
        "keep numbers out of binary doubles: parse and write JSON with exact decimals, and use \
         numeric columns"
    ),
    check!(
        commits::unicode,
        "text keeps every character",
        "read and write UTF-8, and store text as it came"
    ),
];

const ONCE: &[Check] = &[
    check!(
        once::repeated,
        "a commit that is sent again gets its first answer",
        "store the answer in the transaction that applies the commit, and answer it again for the \
         same clientTxId"
    ),
    check!(
        once::not_executed_again,
        "a commit that is sent again does not take effect again",
        "insert the clientTxId into a table with a unique key, in the transaction that applies the \
         commit, before its operations"
    ),
    check!(
        once::another_intent,
        "another intent under a used id is refused with a code",
        "store intentHash with the clientTxId, and answer 409 \
         {\"error\": \"idempotency_conflict\"} when it differs"
    ),
    check!(
        once::raced,
        "copies of a commit that arrive together take effect once",
        "let the second copy wait for the first one's transaction (INSERT … ON CONFLICT DO NOTHING \
         on the clientTxId does), then answer what that one stored"
    ),
];

const READS: &[Check] = &[
    check!(
        reads::loads,
        "load answers the row, or null when there is none",
        "answer 200 {\"row\": null} for a row that is missing, not 404"
    ),
    check!(
        reads::conditions,
        "list answers the rows that meet every condition",
        "translate `where` into the query: [field, value] and [field, operator, value]"
    ),
    check!(
        reads::order,
        "list answers in the order that is asked for",
        "translate `orderBy` and `order` into the query, with the id to break ties"
    ),
    check!(
        reads::pages,
        "list answers pages that together have every row once",
        "answer at most `limit` rows; while there are more, answer a nextCursor, and go on from it"
    ),
];

const FEED: &[Check] = &[
    check!(
        feed::own_writes,
        "the feed names the commit that made a change",
        "write the event in the transaction that applies the commit, with its clientTxId and \
         correlationId"
    ),
    check!(
        feed::stable_ids,
        "an event that is read again has the same id",
        "take the event's id from its row in the outbox"
    ),
    check!(
        feed::pages,
        "the feed goes on from its cursor and repeats nothing",
        "answer at most `limit` events after the cursor, and a nextCursor that names the last one"
    ),
    check!(
        feed::outside_writes,
        "a change that was made past the coordinator is in the feed",
        "write events by a trigger on the table, so that every program's changes are in the outbox; \
         leave clientTxId out when there is none"
    ),
];

const REQUESTS: &[Check] = &[
    check!(
        requests::unknown_kind,
        "a request of an unknown type is refused with a code",
        "answer 400 {\"error\": …} to a type that is not commit, load, list or events"
    ),
    check!(
        requests::unknown_model,
        "a commit on an unknown model is refused with a code",
        "answer 422 {\"error\": \"model_unknown\"}"
    ),
    check!(
        requests::unknown_fields,
        "fields that the endpoint does not know are ignored",
        "read the fields that you need and leave the others: later coordinators may send more"
    ),
    check!(
        requests::largest_commit,
        "a commit of 500 operations is applied",
        "raise the server's body limit (16 MiB is plenty), and the database's statement timeout"
    ),
    check!(
        requests::large_body,
        "a body of 4 MiB is taken",
        "raise the server's body limit: 16 MiB is plenty"
    ),
];
