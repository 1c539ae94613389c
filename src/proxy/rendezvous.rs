//! Weighted rendezvous hashing: each provider has a draw for each conversation, and the best draw serves it. If a
//! provider goes away, only its own conversations move, each to its next best draw. Pure.
//!
//! Every host must come to the same choice, whatever its processor and its version of evertoken, so the hash is SHA-256
//! and the logarithm is made of whole numbers: the last digit of `f64::ln` depends on the C library.

use ring::digest::{SHA256, digest};

/// Fraction bits of a cost, and those that a division by a weight adds.
const FRACTION_BITS: u32 = 32;
const WEIGHT_BITS: u32 = 20;

/// The draw of the provider `slug` for a conversation: the first 64 bits of the SHA-256 of `conversation` and `slug`.
pub(crate) fn draw(conversation: &[u8; 32], slug: &str) -> u64 {
    let hash = digest(&SHA256, &[conversation, slug.as_bytes()].concat());
    let first = hash.as_ref().first_chunk().copied().unwrap_or_default();
    u64::from_be_bytes(first)
}

/// The cost of a draw at a `weight`: `-log2(draw / 2^64) / weight`, in units of 2^-52. The lowest cost wins, which
/// happens in proportion to the weights.
pub(crate) fn cost(draw: u64, weight: u64) -> u64 {
    (negative_log2(draw) << WEIGHT_BITS) / weight.max(1)
}

/// `-log2(draw / 2^64)` in units of 2^-32, rounded up; at most 64.
fn negative_log2(draw: u64) -> u64 {
    let draw = draw.max(1);
    let zeros = draw.leading_zeros();
    // From 1 to 2, with 63 fraction bits. Each squaring doubles the logarithm: it shows one more of its bits.
    let mut power = u128::from(draw << zeros);
    let mut fraction = 0_u64;
    for _ in 0..FRACTION_BITS {
        power = (power * power) >> 63;
        fraction <<= 1;
        if power >= 1 << 64 {
            power >>= 1;
            fraction |= 1;
        }
    }
    (u64::from(zeros + 1) << FRACTION_BITS) - fraction
}

#[cfg(test)]
mod tests {
    use super::*;

    fn conversation(number: u32) -> [u8; 32] {
        let hash = digest(&SHA256, &number.to_be_bytes());
        *hash.as_ref().first_chunk().unwrap()
    }

    /// The winner of a conversation.
    fn chosen<'a>(number: u32, providers: &[(&'a str, u64)]) -> &'a str {
        let conversation = conversation(number);
        let cost = |(slug, weight): &&(&str, u64)| cost(draw(&conversation, slug), *weight);
        providers.iter().min_by_key(cost).unwrap().0
    }

    /// Another value here would move conversations at an update, and while hosts are updated one after the other.
    #[test]
    fn draws_and_costs_are_the_same_for_ever() {
        // printf '%064d' 0 | xxd -r -p | cat - <(printf 'claude-code-official') | sha256sum
        for (slug, expected) in [
            ("claude-code-official", 0xa8a5_f823_75b5_4197),
            ("work", 0xfb40_d1a2_1bb4_4aec),
            ("克劳德官方", 0x49f8_4b9d_b1f3_d608),
        ] {
            assert_eq!(draw(&[0; 32], slug), expected, "{slug}");
        }
        let one = 1 << 52;
        for (draw, weight, expected) in [
            (1 << 63, 1, one),
            (1 << 63, 4, one / 4),
            (1 << 60, 1, 4 * one),
            (1, 1, 64 * one),
            (0, 1, 64 * one),
            (u64::MAX, 1, 1 << 20),
            (u64::MAX, 1000, (1 << 20) / 1000),
            // 2^64 / 3, so log2(3) = 1.58496250072…
            (0x5555_5555_5555_5555, 1, 0x0019_5c01_a3a0_0000),
            // An absent weight would be a fault of the program; it must not end it.
            (1 << 63, 0, one),
        ] {
            assert_eq!(cost(draw, weight), expected, "{draw:#x} {weight}");
        }
    }

    #[test]
    fn the_logarithm_is_right() {
        let mut rng = fastrand::Rng::with_seed(7);
        for _ in 0..10_000 {
            let draw = rng.u64(1..) >> rng.u32(..64);
            #[expect(clippy::cast_precision_loss, reason = "the bound is far larger than the loss")]
            let (own, exact) =
                (negative_log2(draw) as f64 / 2_f64.powi(32), 64.0 - (draw.max(1) as f64).log2());
            assert!((own - exact).abs() < 1e-9, "{draw:#x}: {own} {exact}");
        }
    }

    #[test]
    fn shares_follow_the_weights() {
        let providers = [("a", 1), ("b", 2), ("c", 5)];
        let mut counts = [0_u64; 3];
        for number in 0..20_000 {
            let slug = chosen(number, &providers);
            counts[providers.iter().position(|one| one.0 == slug).unwrap()] += 1;
        }
        for (count, (slug, weight)) in counts.iter().zip(providers) {
            let expected = 20_000 * weight / 8;
            assert!(count.abs_diff(expected) < 20_000 * 2 / 100, "{slug}: {counts:?}");
        }
    }

    #[test]
    fn a_provider_that_comes_or_goes_moves_its_own_share_only() {
        let (few, more) =
            ([("a", 1), ("b", 2), ("c", 1)], [("a", 1), ("d", 1), ("b", 2), ("c", 1)]);
        let (mut moved, mut gained) = (0, [0; 3]);
        for number in 0..20_000 {
            let (before, after) = (chosen(number, &few), chosen(number, &more));
            if before != after {
                assert_eq!(after, "d", "a conversation moves to the new one alone");
                moved += 1;
                gained[few.iter().position(|one| one.0 == before).unwrap()] += 1;
            }
        }
        assert!(moved > 20_000 * 18 / 100 && moved < 20_000 * 22 / 100, "{moved}");
        // Seen from the other side: the conversations of one that goes spread in proportion to the weights.
        assert!(gained[1] > gained[0] * 8 / 5 && gained[1] > gained[2] * 8 / 5, "{gained:?}");
    }

    #[test]
    fn another_weight_moves_conversations_only_to_or_from_that_provider() {
        for number in 0..5_000 {
            let light = chosen(number, &[("a", 1), ("b", 1), ("c", 1)]);
            let heavy = chosen(number, &[("a", 1), ("b", 3), ("c", 1)]);
            assert!(light == heavy || heavy == "b", "{number}: {light} {heavy}");
        }
    }
}
