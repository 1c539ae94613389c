//! Decides whether the texts of a refusal say that credit or a quota is used up. Pure.
//!
//! A code counts as a whole. A message counts if a sentence near its start names credit or a quota, and beside it that
//! it is used up. Quoted parts do not count, nor a message about a part of the request, because both may hold the
//! user's own words.

use crate::quota::text::{sentences, words};

/// The thing that is used up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum UsedUp {
    /// Money: somebody has to pay, or to raise a limit.
    Credit,
    /// A share of a period, which comes again.
    Quota,
    /// A rate of requests, which comes again soon.
    Rate,
}

const CREDIT_CODES: [&str; 33] = [
    "insufficient_quota",
    "insufficient_user_quota",
    "insufficient_balance",
    "insufficient_credits",
    "insufficient_credit",
    "insufficient_funds",
    "credits_error",
    "credit_error",
    "credit_balance_too_low",
    "credits_exhausted",
    "credit_exhausted",
    "out_of_credits",
    "out_of_extra_usage",
    "no_credits",
    "not_enough_credits",
    "balance_not_enough",
    "account_balance_insufficient",
    "billing_hard_limit_reached",
    "billing_limit_reached",
    "billing_not_active",
    "billing_error",
    "payment_required",
    "payment_required_error",
    "account_overdue_error",
    "account_overdue",
    "arrearage",
    "exceeded_current_quota",
    "exceeded_current_quota_error",
    "pre_consume_token_quota_failed",
    "quota_not_enough",
    "user_quota_not_enough",
    "spending_limit_reached",
    "budget_exceeded",
];
const QUOTA_CODES: [&str; 20] = [
    "quota_exceeded",
    "quota_exceeded_error",
    "quota_exhausted",
    "quota_limit_exceeded",
    "token_quota_exceeded",
    "request_quota_exceeded",
    "daily_limit_exceeded",
    "monthly_limit_exceeded",
    "monthly_limit_error",
    "weekly_limit_error",
    "usage_limit_reached",
    "usage_limit_exceeded",
    "usage_limit_error",
    "free_usage_limit_error",
    "subscription_usage_limit_error",
    "usage_not_included",
    "key_limit_exceeded",
    "free_tier_only",
    "resource_exhausted",
    "service_quota_exceeded_exception",
];
const RATE_CODES: [&str; 16] = [
    "rate_limit_error",
    "rate_limit_exceeded",
    "rate_limit_reached",
    "rate_limit_reached_error",
    "user_rate_limit_exceeded",
    "user_rate_limited",
    "rate_limited",
    "ratelimited",
    "too_many_requests",
    "too_many_requests_error",
    "too_many_requests_exception",
    "throttling_exception",
    "throttling_error",
    "throttling",
    "throttled",
    "request_limit_exceeded",
];
/// Words that may stand before a colon in a message about credit: `Error code 402: …`.
const PREFIX: [&str; 24] = [
    "", "error", "exception", "failed", "failure", "request", "upstream", "api", "http", "https",
    "bad", "forbidden", "unauthorized", "denied", "payment", "required", "billing", "code",
    "status", "provider", "returned", "from", "the", "account",
];
/// A message with one of these, up to the sentence about credit, is about the request, another resource or a right, or
/// it is a model's own, in the first person.
const ELSE: [&str; 32] = [
    "prompt", "content", "parameter", "parameters", "param", "field", "value", "schema", "max",
    "invalid", "storage", "file", "files", "upload", "card", "permission", "permissions", "scope",
    "scopes", "role", "context", "unknown", "unsupported", "unrecognized", "property", "tool",
    "tools", "messages", "help", "assist", "thinking", "i",
];
const CREDIT: [&str; 8] =
    ["credit", "credits", "balance", "funds", "billing", "spending", "spend", "payment"];
const QUOTA: [&str; 3] = ["quota", "quotas", "allowance"];
/// Before `limit`: a limit over a period.
const LIMITED: [&str; 8] =
    ["usage", "key", "monthly", "weekly", "daily", "hour", "plan", "session"];
/// Before `limit`: a limit of a rate.
const RATES: [&str; 2] = ["rate", "requests"];
/// A sentence with one of these refuses the content of the request. A fair use policy is about its amount.
const POLICY: [&str; 14] = [
    "policy", "policies", "violates", "violate", "violation", "violating", "fraud", "flagged",
    "moderation", "safety", "topic", "topics", "discuss", "prohibited",
];
/// These do so too, unless the sentence names the balance as the reason.
const REFUSED: [&str; 3] = ["blocked", "refused", "rejected"];
const REFUSED_PAIRS: [(&str, &str); 2] = [("not", "allowed"), ("per", "request")];
/// Words for used up, in one word.
const OVER: [&str; 14] = [
    "exceeded", "exceeds", "exceed", "exhausted", "depleted", "reached", "overdue", "insufficient",
    "negative", "hit", "surpassed", "consumed", "empty", "unpaid",
];
/// The same in two words.
const OVER_PAIRS: [(&str, &str); 15] = [
    ("too", "low"),
    ("out", "of"),
    ("ran", "out"),
    ("run", "out"),
    ("not", "enough"),
    ("t", "enough"),
    ("used", "up"),
    ("used", "all"),
    ("no", "remaining"),
    ("no", "credits"),
    ("no", "credit"),
    ("no", "balance"),
    ("not", "sufficient"),
    ("past", "due"),
    ("draw", "from"),
];
/// The most words between the two.
const APART_MAX: usize = 8;
/// The most sentences and words at the start of a message that are read.
const SENTENCES_MAX: usize = 4;
const WORDS_MAX: usize = 40;

/// The thing that a refusal with these `texts` says is used up; None if it says nothing like that.
pub(super) fn used_up(texts: &[&str]) -> Option<UsedUp> {
    // A code is clearer than a message.
    let (mut by_code, mut by_message) = (None, None);
    for text in texts {
        let is_message = text.contains(char::is_whitespace) || !text.is_ascii();
        let said = if is_message { of_message(text) } else { of_code(text) };
        if said == Some(UsedUp::Credit) {
            return said;
        }
        let found = if is_message { &mut by_message } else { &mut by_code };
        *found = found.or(said);
    }
    by_code.or(by_message)
}

/// A code such as `insufficient_quota`, `CreditsError` or `AllocationQuota.FreeTierOnly`.
pub(super) fn of_code(code: &str) -> Option<UsedUp> {
    let own = code.trim().rsplit([':', '#', '/', '.']).next().unwrap_or_default();
    let own = normal(own);
    if CREDIT_CODES.contains(&own.as_str()) {
        return Some(UsedUp::Credit);
    }
    if QUOTA_CODES.contains(&own.as_str()) {
        return Some(UsedUp::Quota);
    }
    RATE_CODES.contains(&own.as_str()).then_some(UsedUp::Rate)
}

/// A code in lower case with underscores: `CreditsError` is `credits_error`.
pub(super) fn normal(code: &str) -> String {
    let upper = |one: char| one.is_ascii_uppercase() || !one.is_alphabetic();
    if code.chars().all(upper) { code.to_ascii_lowercase() } else { words(code).join("_") }
}

fn of_message(message: &str) -> Option<UsedUp> {
    let message = without_quotes(message);
    if !message.is_ascii()
        && let Some(found) = east_asian::used_up(&message)
    {
        return Some(found);
    }
    for sentence in sentences(&message).take(SENTENCES_MAX) {
        match of_sentence(sentence) {
            Sentence::SaysUsedUp(what) => return Some(what),
            Sentence::IsAboutElse => return None,
            Sentence::SaysNothing => {}
        }
    }
    None
}

/// The meaning of a sentence.
enum Sentence {
    SaysUsedUp(UsedUp),
    IsAboutElse,
    SaysNothing,
}

fn of_sentence(sentence: &str) -> Sentence {
    let clause = match sentence.split_once(": ") {
        Some((before, after)) if words(before).iter().all(|word| is_prefix(word)) => after,
        Some((before, _)) => before,
        None => sentence,
    };
    let words: Vec<String> =
        words(clause).into_iter().filter(|word| !word.is_empty()).take(WORDS_MAX).collect();
    if words.iter().any(|word| ELSE.contains(&word.as_str())) || refuses_content(&words) {
        return Sentence::IsAboutElse;
    }
    let over: Vec<usize> = (0..words.len()).filter(|at| is_over(&words[*at..])).collect();
    let is_near = |at: usize| over.iter().any(|over| over.abs_diff(at) <= APART_MAX);
    let subjects = (0..words.len()).filter(|at| is_near(*at));
    let mut found = None;
    for at in subjects {
        match subject(&words[at..]) {
            Some(UsedUp::Credit) => return Sentence::SaysUsedUp(UsedUp::Credit),
            quota => found = found.or(quota),
        }
    }
    found.map_or(Sentence::SaysNothing, Sentence::SaysUsedUp)
}

/// True if a sentence of these words refuses the content of the request, or its size.
fn refuses_content(words: &[String]) -> bool {
    let has = |known: &[&str]| words.iter().any(|word| known.contains(&word.as_str()));
    let is_pair = |pair: &[String]| REFUSED_PAIRS.contains(&(pair[0].as_str(), pair[1].as_str()));
    let is_refused = has(&REFUSED) || words.windows(2).any(is_pair);
    (has(&POLICY) && !has(&["fair"])) || (is_refused && !has(&["insufficient", "balance"]))
}

fn is_prefix(word: &str) -> bool {
    PREFIX.contains(&word) || word.bytes().all(|byte| byte.is_ascii_digit())
}

fn subject(words: &[String]) -> Option<UsedUp> {
    let [first, rest @ ..] = words else { return None };
    let first = first.as_str();
    let second = rest.first().map(String::as_str);
    let pair = (first, second.unwrap_or_default());
    if CREDIT.contains(&first) || pair == ("extra", "usage") {
        return Some(UsedUp::Credit);
    }
    let is_limit_of =
        |known: &[&str]| matches!(second, Some("limit" | "limits")) && known.contains(&first);
    if is_limit_of(&RATES) {
        return Some(UsedUp::Rate);
    }
    let is_tier = matches!(pair, ("free", "tier" | "trial" | "quota"));
    (QUOTA.contains(&first) || is_limit_of(&LIMITED) || is_tier).then_some(UsedUp::Quota)
}

fn is_over(words: &[String]) -> bool {
    let [first, rest @ ..] = words else { return false };
    let word = |at: usize| rest.get(at).map(String::as_str).unwrap_or_default();
    let second = word(0);
    let is_denied = matches!(first.as_str(), "not" | "t") && second == "have";
    (is_denied && matches!(word(1), "enough" | "sufficient" | "any" | "credit" | "credits"))
        || OVER.contains(&first.as_str())
        || OVER_PAIRS.contains(&(first.as_str(), second))
}

/// `text` without its quoted parts. An apostrophe within a word is no quote.
fn without_quotes(text: &str) -> String {
    const PAIRS: [(char, char); 7] =
        [('"', '"'), ('\'', '\''), ('`', '`'), ('“', '”'), ('‘', '’'), ('「', '」'), ('«', '»')];
    let mut kept = String::with_capacity(text.len());
    let mut rest = text;
    let mut before = ' ';
    while let Some(one) = rest.chars().next() {
        rest = &rest[one.len_utf8()..];
        let pair = PAIRS.iter().find(|(open, _)| *open == one && !before.is_alphanumeric());
        if let Some((_, close)) = pair
            && let Some(end) = quote_end(rest, *close)
        {
            rest = &rest[end..];
            kept.push(' ');
            before = ' ';
            continue;
        }
        kept.push(one);
        before = one;
    }
    kept
}

/// The place after the quote that ends with `close`.
fn quote_end(text: &str, close: char) -> Option<usize> {
    let mut from = 0;
    loop {
        let end = from + text[from..].find(close)? + close.len_utf8();
        let is_within = text[end..].chars().next().is_some_and(char::is_alphanumeric);
        if !is_within {
            return Some(end);
        }
        from = end;
    }
}

/// Chinese, Japanese and Korean, which have no blanks between words.
mod east_asian {
    use super::UsedUp;

    const CREDIT: [&str; 10] = [
        "余额", "餘額", "欠费", "欠費", "资源包", "账户额度", "残高", "クレジット", "잔액",
        "크레딧",
    ];
    const QUOTA: [&str; 7] = ["额度", "額度", "配额", "配額", "使用上限", "クォータ", "할당량"];
    const RATE: [&str; 1] = ["速率限制"];
    const OVER: [&str; 17] = [
        "不足", "用尽", "用盡", "用完", "耗尽", "耗盡", "超出", "超过", "超過", "欠费", "欠費",
        "达到", "達到", "已达", "上限に達", "부족", "초과",
    ];
    /// A longer message may quote the request.
    const MESSAGE_MAX_CHARS: usize = 120;

    pub(super) fn used_up(message: &str) -> Option<UsedUp> {
        // The rest of a quota, whose second and third sign mean a balance.
        let message = message.replace("剩余额度", "额度").replace("剩餘額度", "額度");
        let has = |known: &[&str]| known.iter().any(|word| message.contains(word));
        if message.chars().count() > MESSAGE_MAX_CHARS || !has(&OVER) {
            return None;
        }
        if has(&CREDIT) {
            return Some(UsedUp::Credit);
        }
        if has(&QUOTA) {
            return Some(UsedUp::Quota);
        }
        has(&RATE).then_some(UsedUp::Rate)
    }
}

#[cfg(test)]
mod tests;
