//! Texts of refusals, and what each says is used up.

use super::UsedUp::{Credit, Quota, Rate};
use super::*;

#[test]
fn texts_that_say_what_is_used_up() {
    let cases = [
        ("insufficient_quota", Credit),
        ("CreditsError", Credit),
        ("Arrearage", Credit),
        ("billing_hard_limit_reached", Credit),
        ("exceeded_current_quota_error", Credit),
        ("usage_limit_reached", Quota),
        ("usage_not_included", Quota),
        ("quotaExceeded", Quota),
        ("RESOURCE_EXHAUSTED", Quota),
        ("AllocationQuota.FreeTierOnly", Quota),
        ("UserRateLimitExceeded", Rate),
        ("rate_limit_exceeded", Rate),
        ("com.amazon.coral#ThrottlingException", Rate),
        ("TooManyRequestsException", Rate),
        ("You have exceeded a secondary rate limit. Please wait a few minutes.", Rate),
        ("Requests limit reached", Rate),
        ("您的账户已达到速率限制", Rate),
        (
            "Your credit balance is too low to access the Anthropic API. Please go to Plans & Billing to upgrade.",
            Credit,
        ),
        ("Your credit balance is too low to access the API.", Credit),
        ("Insufficient balance", Credit),
        (
            "Insufficient USD or Diem balance to complete request. Visit the page to add credits.",
            Credit,
        ),
        ("Error code: 402: Insufficient credits", Credit),
        (
            "Your team 1a2b-3c has either used all available credits or reached its monthly spending limit. To continue making API requests, please purchase more credits or raise your spending limit.",
            Credit,
        ),
        (
            "Your account org-x <ak-y> is suspended due to insufficient balance, please recharge your account or check your plan and billing details",
            Credit,
        ),
        ("Billing hard limit has been reached", Credit),
        ("You're out of extra usage. Add more in your settings and keep going.", Credit),
        (
            "Third-party apps now draw from your extra usage, not your plan limits. Add more in your settings and keep going.",
            Credit,
        ),
        ("budget_exceeded", Credit),
        ("You have run out of credits.", Credit),
        ("You don't have enough credits to make this request", Credit),
        ("You have no credits left", Credit),
        ("You exceeded your current quota, please check your plan and billing details.", Quota),
        (
            "You have reached your specified API usage limits. You will regain access on 2026-12-01 at 00:00 UTC.",
            Quota,
        ),
        ("Key limit exceeded (total limit). Manage it using your settings", Quota),
        (
            "The free tier of the model has been exhausted. If you wish to continue, please disable the mode.",
            Quota,
        ),
        ("API rate limit exceeded for user ID 1.", Rate),
        (
            "Your newly created team doesn't have any credits yet. You can purchase credits on the page.",
            Credit,
        ),
        ("The team does not have credits", Credit),
        ("Access was blocked due to insufficient balance", Credit),
        ("The request was rejected because your balance is negative", Credit),
        ("You have reached the daily limit of our fair use policy", Quota),
        ("Insufficient credits. See our policy on refunds.", Credit),
        ("Quota exceeded for quota metric 'Requests' of service 'x.example'", Quota),
        ("Your organization's monthly limit was reached", Quota),
        ("余额不足或无可用资源包,请充值。", Credit),
        ("该令牌额度已用尽", Quota),
        ("用户额度不足, 剩余额度: ＄0.00", Quota),
    ];
    for (text, expected) in cases {
        assert_eq!(used_up(&[text]), Some(expected), "{text}");
    }
    for (texts, expected) in [
        (["rate_limit_error", "Insufficient balance"], Credit),
        (["Quota exceeded for quota metric Queries", "rateLimitExceeded"], Rate),
        (["Your rate limit is reached", "usage_limit_reached"], Quota),
        (["Your request was blocked by a policy", "insufficient_quota"], Credit),
    ] {
        assert_eq!(used_up(&texts), Some(expected), "{texts:?}");
    }
}

#[test]
fn texts_about_something_else() {
    for text in [
        "",
        "invalid_request_error",
        "permission_error",
        "credit",
        "quota",
        "max_tokens: too large",
        "max_tokens: 300000 > 64000, which is the maximum allowed number of output tokens",
        "Request not allowed",
        "I can't help with that request.",
        "I can't help with getting around an exceeded quota.",
        "Invalid value: 'credit balance is too low'. Supported values are: 'a' and 'b'.",
        "messages.0.content.0.text: your credit balance is too low is not allowed here",
        "Unknown parameter: 'quota_exceeded'.",
        "Unknown name \"credit balance is too low\" at 'contents[0]': Cannot find field.",
        "The prompt says that your quota is exceeded",
        "Invalid JSON body. My credit balance is too low",
        "Could not parse the body: my credit balance is too low",
        "The text «your quota is exceeded» is not allowed",
        "The thinking budget of 20000 exceeds the limit of 16384",
        "budget_tokens of 20000 exceeds 16384",
        "I will not explain how to spend more once a quota is exceeded.",
        "The text “your credit balance is too low” was flagged by our content filter",
        "The word `insufficient_quota` is reserved",
        "You do not have permission to see the credit balance, which is too low",
        "Your account's storage quota was exceeded",
        "File quota exceeded",
        "This API method requires billing to be enabled.",
        "Please check your plan and billing details.",
        "This model's maximum context length is 8192 tokens, which your quota of words exceeds",
        "Model gpt-x does not exist, or you do not have access to it. See the page on quotas.",
        "Your credit card was declined: expired",
        "Your request was blocked because it hit our policy on payment fraud.",
        "The request was refused. Texts about unpaid bills and credit fraud are not allowed.",
        "This request violates the usage policies; requests about how to hit a spending limit are refused",
        "Sorry, exceeding daily limits of alcohol (reached) is a topic we do not discuss",
        "Number of batch requests reached daily limit per request",
        "Your input was flagged: an exceeded spending limit",
        "Questions about unpaid credit are not allowed",
        "余额",
        "请解释什么是余额",
    ] {
        assert_eq!(used_up(&[text]), None, "{text}");
    }
}

#[test]
fn the_lengths_on_both_sides_of_their_limits() {
    let apart = |words: usize| format!("credit {}exceeded", "x ".repeat(words - 1));
    assert!(used_up(&[&apart(APART_MAX)]).is_some());
    assert!(used_up(&[&apart(APART_MAX + 1)]).is_none());
    let late = |words: usize| format!("{}quota exceeded", "x ".repeat(words - 2));
    assert!(used_up(&[&late(WORDS_MAX)]).is_some());
    assert!(used_up(&[&late(WORDS_MAX + 1)]).is_none());
    let after = |count: usize| format!("{}Quota exceeded", "x. ".repeat(count - 1));
    assert!(used_up(&[&after(SENTENCES_MAX)]).is_some());
    assert!(used_up(&[&after(SENTENCES_MAX + 1)]).is_none());
    let chinese = |chars: usize| format!("余额不足{}", "了".repeat(chars - 4));
    assert!(used_up(&[&chinese(120)]).is_some() && used_up(&[&chinese(121)]).is_none());
}
