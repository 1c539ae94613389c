//! Tests of the token endpoint.

use super::*;

fn issuer(change: impl FnOnce(&mut Manners)) -> Issuer {
    let mut manners = Manners::own();
    manners.tokens.lifetime_seconds = 30;
    change(&mut manners);
    Issuer::new(manners, fastrand::Rng::with_seed(1))
}

fn ask(issuer: &mut Issuer, pairs: &[(&str, &str)], now_ms: u64) -> Outcome {
    let body = form_urlencoded::Serializer::new(String::new()).extend_pairs(pairs).finish();
    let request = TokenRequest::read("", "", body.as_bytes());
    issuer.token(&request, |_| true, now_ms)
}

fn refresh(issuer: &mut Issuer, token: &str, now_ms: u64) -> Outcome {
    let secret = issuer.client_secret().to_owned();
    let pairs = [
        ("grant_type", "refresh_token"),
        ("refresh_token", token),
        ("client_id", CLIENT_ID),
        ("client_secret", &secret),
    ];
    ask(issuer, &pairs, now_ms)
}

#[track_caller]
fn granted(outcome: Outcome) -> (String, Option<String>) {
    let Outcome::Granted(values) = outcome else { panic!("{outcome:?}") };
    (values.access_token.unwrap(), values.refresh_token)
}

#[test]
fn tokens_rotate_and_expire() {
    let mut issuer = issuer(|_| ());
    let first = issuer.login(0);
    let (access, next) = granted(refresh(&mut issuer, &first, 0));
    assert!(issuer.is_valid(&access, 29_999));
    assert!(!issuer.is_valid(&access, 30_000));
    let next = next.unwrap();
    assert_ne!(next, first);
    granted(refresh(&mut issuer, &next, 1));
    assert!(issuer.is_valid(&access, 1));
    issuer.revoke_access_tokens();
    assert!(!issuer.is_valid(&access, 1));
}

#[test]
fn reuse_revokes_the_family() {
    let mut issuer = issuer(|_| ());
    let first = issuer.login(0);
    let other = issuer.login(0);
    let (access, next) = granted(refresh(&mut issuer, &first, 0));
    assert_eq!(refresh(&mut issuer, &first, 0), Outcome::Used);
    assert!(!issuer.is_valid(&access, 1));
    assert_eq!(refresh(&mut issuer, &next.unwrap(), 0), Outcome::Dead);
    granted(refresh(&mut issuer, &other, 0));
    assert_eq!(
        issuer.counts,
        Counts { granted: 2, refused: 2, reused: 1, overlapped: 0, revoked: 0 }
    );
}

#[test]
fn a_used_token_is_refused_and_nothing_else_or_works() {
    let mut issuer = issuer(|manners| manners.rotation.used_token = UsedToken::IsRefused);
    let first = issuer.login(0);
    let (_, next) = granted(refresh(&mut issuer, &first, 0));
    assert_eq!(refresh(&mut issuer, &first, 0), Outcome::Used);
    granted(refresh(&mut issuer, &next.unwrap(), 0));
    issuer.manners.rotation.used_token = UsedToken::Works;
    granted(refresh(&mut issuer, &first, 0));
    assert_eq!(issuer.counts.reused, 1);
}

#[test]
fn within_the_overlap_a_lost_answer_costs_nothing() {
    let mut issuer = issuer(|manners| manners.rotation.overlap_seconds = 1);
    let first = issuer.login(0);
    for at in [5, 6, 1004] {
        granted(refresh(&mut issuer, &first, at));
    }
    assert_eq!(refresh(&mut issuer, &first, 1005), Outcome::Used);
    assert_eq!((issuer.counts.overlapped, issuer.counts.reused), (2, 1));
}

#[test]
fn without_rotation_a_token_can_be_used_again() {
    let mut issuer = issuer(|manners| manners.rotation.rotates = false);
    let first = issuer.login(0);
    for _ in 0..3 {
        assert_eq!(granted(refresh(&mut issuer, &first, 0)).1, None);
    }
}

#[test]
fn refresh_tokens_and_sessions_end() {
    let mut issuer = issuer(|manners| {
        manners.tokens.refresh_token_lifetime_seconds = Some(10);
        manners.tokens.session_seconds = Some(15);
    });
    let left = |outcome: Outcome| match outcome {
        Outcome::Granted(values) => {
            (values.refresh_expires_in.unwrap(), values.refresh_token.unwrap())
        }
        other => panic!("{other:?}"),
    };
    let unused = issuer.login(0);
    let first = issuer.login(0);
    let (seconds, next) = left(refresh(&mut issuer, &first, 1_000));
    assert_eq!(seconds, 10);
    let (seconds, next) = left(refresh(&mut issuer, &next, 9_000));
    assert_eq!(seconds, 6, "the session ends before the refresh token");
    assert_eq!(refresh(&mut issuer, &unused, 10_000), Outcome::Dead);
    assert_eq!(refresh(&mut issuer, &next, 15_000), Outcome::Dead);
}

#[test]
fn a_token_is_repeated_until_its_end() {
    let mut issuer = issuer(|manners| {
        manners.tokens.repeats = true;
        manners.rotation.rotates = false;
    });
    let first = issuer.login(0);
    let mut at = |now_ms: u64| match refresh(&mut issuer, &first, now_ms) {
        Outcome::Granted(values) => (values.access_token.unwrap(), values.expires_in.unwrap()),
        other => panic!("{other:?}"),
    };
    let (token, seconds) = at(0);
    assert_eq!(seconds, 30);
    assert_eq!(at(20_000), (token.clone(), 10));
    assert_eq!(at(29_999), (token.clone(), 0));
    let (other, seconds) = at(30_000);
    assert_ne!(other, token);
    assert_eq!(seconds, 30);
}

#[test]
fn a_refresh_may_end_the_access_token_before() {
    let mut issuer = issuer(|manners| manners.rotation.ends_access_token = true);
    let first = issuer.login(0);
    let (old, next) = granted(refresh(&mut issuer, &first, 0));
    let (new, _) = granted(refresh(&mut issuer, &next.unwrap(), 1));
    assert!(!issuer.is_valid(&old, 2) && issuer.is_valid(&new, 2));
    issuer.revoke_logins();
    assert!(!issuer.is_valid(&new, 2));
}

#[test]
fn a_jwt_says_when_it_ends_and_what_the_manners_claim() {
    let more = json!({ "account": { "id": "a" } });
    let token = jwt("id", 7, more.as_object().unwrap());
    let claims = BASE64_URL_SAFE_NO_PAD.decode(token.split('.').nth(1).unwrap()).unwrap();
    let claims: Value = serde_json::from_slice(&claims).unwrap();
    assert_eq!(claims["exp"], 7);
    assert_eq!(claims["account"]["id"], "a");
    assert!(token.starts_with("eyJ"));
}

#[test]
fn clients_and_grants_are_checked() {
    let mut issuer = issuer(|_| ());
    let secret = issuer.client_secret().to_owned();
    let mut with = |grant: &str, secret: &str| {
        let pairs = [("grant_type", grant), ("client_id", CLIENT_ID), ("client_secret", secret)];
        ask(&mut issuer, &pairs, 0)
    };
    granted(with("client_credentials", &secret));
    assert_eq!(with("client_credentials", "x"), Outcome::WrongClient);
    assert_eq!(with("password", &secret), Outcome::Other(refusal(400, "unsupported_grant_type")));
    assert_eq!(with("", &secret), Outcome::WrongRequest);
    assert_eq!(with("refresh_token", &secret), Outcome::Dead);
    // A public client has no secret, and sends none.
    issuer.manners.request.client_auth = vec![ClientAuth::None];
    let pairs = [("grant_type", "client_credentials"), ("client_id", CLIENT_ID)];
    granted(ask(&mut issuer, &pairs, 0));
    let with_secret = [pairs[0], pairs[1], ("client_secret", secret.as_str())];
    assert_eq!(ask(&mut issuer, &with_secret, 0), Outcome::WrongClient);
}
