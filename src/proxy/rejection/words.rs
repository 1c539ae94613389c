//! Decides whether the words of a refusal say that the access token is dead. Pure.
//!
//! A code counts as a whole: `token_expired` is about the token, `invite_token_expired` about something else. A
//! message counts if it begins with the token: one that mentions a token later may be about anything.

use crate::quota::text::{sentences, words};

/// The credential, under its names at providers.
const TOKEN: [&str; 5] = ["token", "credential", "credentials", "jwt", "session"];
/// Words for a dead credential.
const OVER: [&str; 9] = [
    "expired", "revoked", "invalid", "invalidated", "bad", "inactive", "unrecognized", "malformed",
    "blacklisted",
];
/// Together with a word of [`VALID`]: `is no longer valid`, `could not be verified`.
const NOT: [&str; 8] = ["not", "cannot", "couldn", "isn", "longer", "unable", "failed", "failure"];
const VALID: [&str; 9] = [
    "valid", "validate", "validated", "verify", "verified", "recognized", "active", "accepted",
    "authenticate",
];
/// Other words that a code may contain, and a message before its token: words that name no other subject.
const AROUND: [&str; 69] = [
    "", "the", "your", "this", "that", "a", "an", "any", "given", "provided", "supplied",
    "presented", "incoming", "current", "access", "oauth", "oauth2", "auth", "authentication",
    "authorization", "authenticated", "authorized", "bearer", "security", "id", "identity", "user",
    "users", "login", "s", "t", "api", "key", "or", "and", "of", "in", "is", "was", "has", "had",
    "been", "be", "to", "with", "because", "error", "exception", "err", "code", "http",
    "forbidden", "unauthorized", "unauthenticated", "denied", "permission", "request", "required",
    "sorry", "could", "couldn", "can", "missing", "wrong", "validating", "verifying", "decode",
    "parse", "no",
];
/// Other subjects that may be dead or missing instead of the token.
const ELSE: [&str; 24] = [
    "scope", "scopes", "permission", "permissions", "quota", "credit", "credits", "balance",
    "limit", "limits", "rate", "plan", "trial", "subscription", "csrf", "xsrf", "captcha", "count",
    "length", "budget", "region", "country", "audience", "ip",
];
/// Words in a code for a refusal that is not about the token, whatever its message mentions.
const ELSE_IN_CODES: [&str; 12] = [
    "scope", "scopes", "quota", "billing", "csrf", "xsrf", "captcha", "content", "policy",
    "moderation", "safety", "region",
];
/// The longest sentence that may be about the token, in words.
const SENTENCE_MAX_WORDS: usize = 32;

/// True if the texts of a refusal, codes and messages, say that the token is dead. Codes come first.
pub(super) fn name_dead_token(texts: &[&str]) -> bool {
    let is_code = |text: &&&str| !text.contains(char::is_whitespace);
    let codes = || texts.iter().filter(is_code);
    if codes().any(|code| is_dead_token(code)) {
        return true;
    }
    let is_else = |code: &&str| contains_any(&words(code), &ELSE_IN_CODES);
    !codes().any(is_else) && texts.iter().any(|text| speaks_of_dead_token(text))
}

/// True if a code, such as `token_expired` or `ExpiredTokenException`, names a dead token and nothing else.
fn is_dead_token(code: &str) -> bool {
    // A name space before it: `unauthenticated:bad-credentials`.
    let own = code.trim().rsplit([':', '#', '/']).next().unwrap_or_default();
    let words = words(own);
    let is_known = |word: &String| {
        let lists = [&AROUND[..], &TOKEN, &OVER, &NOT, &VALID];
        lists.iter().any(|list| list.contains(&word.as_str()))
    };
    words.iter().all(is_known) && says_over(&words)
}

/// True if a message begins by saying that the token is dead. General sentences may come before: `Forbidden. The
/// access token has expired.`
fn speaks_of_dead_token(message: &str) -> bool {
    if !message.is_ascii() && east_asian::speaks_of_dead_token(message) {
        return true;
    }
    let is_general = |word: &String| {
        let lists = [&AROUND[..], &OVER, &NOT, &VALID];
        let is_status = word.bytes().all(|byte| byte.is_ascii_digit());
        is_status || lists.iter().any(|list| list.contains(&word.as_str()))
    };
    for sentence in sentences(message) {
        let words = words(sentence);
        let token = words.iter().position(|word| TOKEN.contains(&word.as_str()));
        if !words[..token.unwrap_or(words.len())].iter().all(is_general) {
            return false;
        }
        if let Some(token) = token {
            let is_else = contains_any(&words[token..], &ELSE);
            return words.len() <= SENTENCE_MAX_WORDS && says_over(&words) && !is_else;
        }
    }
    false
}

fn says_over(words: &[String]) -> bool {
    let has = |known: &[&str]| contains_any(words, known);
    has(&TOKEN) && (has(&OVER) || (has(&NOT) && has(&VALID)))
}

fn contains_any(words: &[String], known: &[&str]) -> bool {
    words.iter().any(|word| known.contains(&word.as_str()))
}

/// Chinese, Japanese and Korean, which have no blanks between words.
mod east_asian {
    const TOKEN: [&str; 20] = [
        "token", "令牌", "凭证", "凭据", "憑證", "权杖", "權杖", "登录", "登錄", "登入", "会话",
        "會話", "トークン", "認証情報", "資格情報", "セッション", "토큰", "자격 증명", "세션",
        "认证信息",
    ];
    const OVER: [&str; 13] = [
        "过期", "過期", "失效", "无效", "無效", "撤销", "撤銷", "吊销", "無効", "期限が切れ",
        "期限切れ", "만료", "유효하지 않",
    ];
    const ELSE: [&str; 29] = [
        "邀请", "邀請", "验证码", "驗證碼", "额度", "額度", "余额", "餘額", "套餐", "权限", "權限",
        "试用", "試用", "订阅", "訂閱", "刷新", "重置", "招待", "リフレッシュ", "초대", "갱신",
        "如何", "解释", "解釋", "是否", "检查", "檢查", "refresh", "csrf",
    ];
    /// The longest message that may be about the token.
    const MESSAGE_MAX_CHARS: usize = 80;
    const CLAUSE_ENDS: [char; 12] =
        ['。', '；', '！', '？', '，', '、', ',', ';', '!', '?', '.', '\n'];

    /// True if the first part of a short message names a token and says that it is dead.
    pub(super) fn speaks_of_dead_token(message: &str) -> bool {
        let message = message.to_ascii_lowercase();
        let has = |text: &str, known: &[&str]| known.iter().any(|word| text.contains(word));
        let clause = message.split(CLAUSE_ENDS).find(|clause| has(clause, &TOKEN));
        message.chars().count() <= MESSAGE_MAX_CHARS
            && clause.is_some_and(|clause| has(clause, &OVER) && !has(clause, &ELSE))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_length_of_a_message_on_both_sides_of_its_limit() {
        let english = |more: usize| format!("token expired{}", " x".repeat(more));
        assert!(name_dead_token(&[&english(SENTENCE_MAX_WORDS - 2)]));
        assert!(!name_dead_token(&[&english(SENTENCE_MAX_WORDS - 1)]));
        let chinese = |more: usize| format!("令牌已过期{}", "了".repeat(more));
        assert!(name_dead_token(&[&chinese(75)]) && !name_dead_token(&[&chinese(76)]));
    }
}
