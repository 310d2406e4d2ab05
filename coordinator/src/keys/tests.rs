use std::collections::HashSet;

use super::*;
use crate::store::scratch::Scratch;
use crate::store::tests::{organization, unreachable};

fn master(text: &str) -> MasterKeys {
    MasterKeys::parse(text).unwrap()
}

fn fresh(id: &str) -> MasterKeys {
    master(MasterKeys::generate(id).expose_secret())
}

fn acme() -> OrganizationId {
    OrganizationId::new("acme")
}

#[test]
fn a_generated_key_names_its_mode_and_carries_43_base62_characters() {
    let key = generate(Mode::Live);
    let random = key.expose_secret().strip_prefix("sk_live_").unwrap();
    assert_eq!(random.len(), 43);
    assert!(random.bytes().all(|byte| byte.is_ascii_alphanumeric()));
    assert!(generate(Mode::Test).expose_secret().starts_with("sk_test_"));
    assert!(well_formed(key.expose_secret()));
}

#[test]
fn generated_keys_differ() {
    let keys: HashSet<String> = (0..100)
        .map(|_| generate(Mode::Test).expose_secret().to_owned())
        .collect();
    assert_eq!(keys.len(), 100);
}

#[test]
fn tokens_that_cannot_be_keys_are_refused_unread() {
    let long = format!("sk_live_{}", "a".repeat(1 << 20));
    for token in [
        "",
        "Bearer",
        "whsec_abc",
        "sk_liveabc",
        "sk_live_a b",
        "sk_live_\u{e9}",
        &long,
    ] {
        assert!(!well_formed(token), "{token:.20}");
    }
}

#[test]
fn a_sealed_key_opens_to_itself() {
    let (master, key) = (fresh("m1"), generate(Mode::Test));
    let sealed = master.seal(&acme(), key_id(), &key);
    assert_eq!(
        master.open(&sealed).unwrap().expose_secret(),
        key.expose_secret()
    );
    let plain = key.expose_secret().as_bytes();
    assert!(
        !sealed
            .sealed
            .windows(plain.len())
            .any(|window| window == plain)
    );
}

#[test]
fn a_key_sealed_twice_looks_different() {
    let (master, key, id) = (fresh("m1"), generate(Mode::Test), key_id());
    assert_ne!(
        master.seal(&acme(), id, &key).sealed,
        master.seal(&acme(), id, &key).sealed
    );
}

#[test]
fn a_sealed_key_moved_to_another_row_or_organization_does_not_open() {
    let (master, key) = (fresh("m1"), generate(Mode::Test));
    let sealed = master.seal(&acme(), key_id(), &key);
    let elsewhere = SealedKey {
        org_id: "other".into(),
        ..sealed.clone()
    };
    assert!(matches!(
        master.open(&elsewhere),
        Err(MasterKeyFault::Sealed { .. })
    ));
    let another_row = SealedKey {
        key_id: key_id(),
        ..sealed.clone()
    };
    assert!(matches!(
        master.open(&another_row),
        Err(MasterKeyFault::Sealed { .. })
    ));
}

#[test]
fn a_sealed_key_that_was_changed_or_cut_does_not_open() {
    let (master, key) = (fresh("m1"), generate(Mode::Test));
    let sealed = master.seal(&acme(), key_id(), &key);
    for index in 0..sealed.sealed.len() {
        let mut changed = sealed.clone();
        changed.sealed[index] ^= 1;
        assert!(master.open(&changed).is_err(), "byte {index}");
        let cut = SealedKey {
            sealed: sealed.sealed[..index].to_vec(),
            ..sealed.clone()
        };
        assert!(master.open(&cut).is_err(), "cut at {index}");
    }
}

#[test]
fn old_keys_open_after_a_new_master_key_was_put_in_front() {
    let (old, new) = (MasterKeys::generate("old"), MasterKeys::generate("new"));
    let key = generate(Mode::Live);
    let sealed = master(old.expose_secret()).seal(&acme(), key_id(), &key);
    let both = master(&format!("{},{}", new.expose_secret(), old.expose_secret()));
    assert!(both.open(&sealed).is_ok());
    assert_eq!(both.seal(&acme(), key_id(), &key).sealed_under, "new");
}

#[test]
fn a_missing_master_key_is_named() {
    let sealed = fresh("old").seal(&acme(), key_id(), &generate(Mode::Live));
    assert_eq!(
        fresh("new").open(&sealed).unwrap_err(),
        MasterKeyFault::Unknown("old".into())
    );
}

#[test]
fn another_key_under_the_same_id_does_not_open() {
    let sealed = fresh("m1").seal(&acme(), key_id(), &generate(Mode::Live));
    assert!(matches!(
        fresh("m1").open(&sealed),
        Err(MasterKeyFault::Sealed { .. })
    ));
}

#[test]
fn malformed_master_keys_are_named_by_place_and_never_shown() {
    let good = MasterKeys::generate("m1");
    let good = good.expose_secret();
    for (text, fault) in [
        ("", MasterKeyFault::None),
        (" , ", MasterKeyFault::None),
        ("c2VjcmV0", MasterKeyFault::Id(1)),
        (":c2VjcmV0", MasterKeyFault::Id(1)),
        (&format!("{good},a b"), MasterKeyFault::Id(2)),
        ("m1:c2VjcmV0", MasterKeyFault::Key("m1".into())),
        ("m1:!", MasterKeyFault::Key("m1".into())),
        (
            &format!("{good}\n{good}"),
            MasterKeyFault::Twice("m1".into()),
        ),
    ] {
        let found = MasterKeys::parse(text).unwrap_err();
        assert_eq!(found, fault);
        assert!(!found.to_string().contains("c2VjcmV0"));
    }
}

#[test]
fn master_keys_show_their_ids_alone() {
    let entry = MasterKeys::generate("m1");
    assert_eq!(format!("{:?}", master(entry.expose_secret())), r#"["m1"]"#);
}

#[test]
fn derived_keys_differ_by_purpose_and_by_master_key() {
    let both = master(&format!(
        "{},{}",
        MasterKeys::generate("a").expose_secret(),
        MasterKeys::generate("b").expose_secret()
    ));
    let (pages, other) = (both.derive("pages"), both.derive("other"));
    assert_eq!(pages.len(), 2);
    assert_ne!(pages[0].expose_secret(), pages[1].expose_secret());
    assert_ne!(pages[0].expose_secret(), other[0].expose_secret());
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_in_the_database_authenticate_sign_and_fail_closed() {
    let scratch = Scratch::start().await;
    let (acme, other) = (acme(), organization(&scratch.store, "other").await);
    let text = MasterKeys::generate("m1");
    let ring = || KeyRing::new(scratch.store.clone(), master(text.expose_secret()));
    let (one, two) = (make(&ring(), &acme).await, make(&ring(), &acme).await);
    make(&ring(), &other).await;

    let caller = ring().authenticate(one.key.expose_secret()).await.unwrap();
    assert_eq!(
        (caller.organization, caller.mode),
        (acme.clone(), Mode::Test)
    );
    let unknown = ring()
        .authenticate(generate(Mode::Test).expose_secret())
        .await
        .unwrap_err();
    assert_eq!(unknown, unauthenticated());
    assert_eq!(
        signing(&ring(), &acme).await,
        [two.key.expose_secret(), one.key.expose_secret()]
    );
    ring().check_master_keys().await.unwrap();

    let stale = ring();
    stale.authenticate(one.key.expose_secret()).await.unwrap();
    api_keys::revoke(&scratch.store, acme.clone(), one.record.key_id)
        .await
        .unwrap();
    assert!(
        stale.authenticate(one.key.expose_secret()).await.is_ok(),
        "believed for 4 s"
    );
    let revoked = ring()
        .authenticate(one.key.expose_secret())
        .await
        .unwrap_err();
    assert_eq!(revoked, unauthenticated());
    assert_eq!(signing(&ring(), &acme).await, [two.key.expose_secret()]);

    wrong_master_keys_are_found_at_start(&scratch).await;
    scratch
        .run(
            "UPDATE api_keys SET sealed = (
                 SELECT sealed FROM api_keys AS theirs WHERE theirs.org_id = 'other'
             ) WHERE org_id = 'acme'",
        )
        .await;
    let swapped = ring().signing_keys(&acme).await;
    assert!(matches!(
        swapped,
        Err(store::Error::Corrupt {
            column: "sealed",
            ..
        })
    ));
}

async fn wrong_master_keys_are_found_at_start(scratch: &Scratch) {
    let missing = KeyRing::new(scratch.store.clone(), fresh("m2"))
        .check_master_keys()
        .await;
    let message = missing.unwrap_err().to_string();
    assert!(message.contains("`m1`"), "{message}");
    let wrong = KeyRing::new(scratch.store.clone(), fresh("m1"))
        .check_master_keys()
        .await;
    assert!(matches!(
        wrong,
        Err(KeyFault::Master(MasterKeyFault::Sealed { .. }))
    ));
}

async fn make(ring: &KeyRing, organization: &OrganizationId) -> MadeKey {
    ring.create(organization, Mode::Test, "test".to_owned())
        .await
        .unwrap()
        .unwrap()
}

async fn signing(ring: &KeyRing, organization: &OrganizationId) -> Vec<String> {
    let keys = ring.signing_keys(organization).await.unwrap();
    keys.iter()
        .map(|key| key.0.expose_secret().to_owned())
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_are_sealed_anew_until_the_old_master_key_can_be_given_up() {
    let scratch = Scratch::start().await;
    let ring = |text: &str| KeyRing::new(scratch.store.clone(), master(text));
    let (old, new) = (MasterKeys::generate("old"), MasterKeys::generate("new"));
    let (old, new) = (old.expose_secret(), new.expose_secret());
    let made = make(&ring(old), &acme()).await;
    assert!(ring(new).check_master_keys().await.is_err());
    let both = ring(&format!("{new},{old}"));
    assert_eq!(both.reseal().await.unwrap(), 1);
    assert_eq!(both.reseal().await.unwrap(), 0);
    ring(new).check_master_keys().await.unwrap();
    assert_eq!(
        signing(&ring(new), &acme()).await,
        [made.key.expose_secret()]
    );
    assert!(ring(old).check_master_keys().await.is_err());
}

#[tokio::test]
async fn a_key_ring_shows_no_key() {
    let entry = MasterKeys::generate("m1");
    let secret = entry.expose_secret().split_once(':').unwrap().1.to_owned();
    let ring = KeyRing::new(unreachable(), master(entry.expose_secret()));
    assert!(!format!("{ring:?}").contains(&secret));
}
