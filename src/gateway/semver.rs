//! Semantic versioning 2.0.0, as far as it can be written on one line: what a
//! version is, and which of two is newer.

use std::cmp::Ordering;

/// The longest version, in characters.
const VERSION_CHARS_MAX: usize = 64;

/// Whether the text is a version such as `1.2.3` or `1.2.3-beta.1`.
pub fn is_version(text: &str) -> bool {
    let (core, pre, build) = parts(text);
    let word = |part: &str| {
        !part.is_empty() && part.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
    };
    let pre_word =
        |part: &str| word(part) && (numeric(part) || !part.bytes().all(|b| b.is_ascii_digit()));
    text.len() <= VERSION_CHARS_MAX
        && core.split('.').count() == 3
        && core.split('.').all(numeric)
        && pre.is_none_or(|pre| pre.split('.').all(pre_word))
        && build.is_none_or(|build| build.split('.').all(word))
}

/// Whether it comes before its release.
pub fn is_prerelease(version: &str) -> bool {
    parts(version).1.is_some()
}

/// Precedence of two versions; what follows a `+` does not count.
pub fn compare(one: &str, other: &str) -> Ordering {
    let ((core, pre, _), (other_core, other_pre, _)) = (parts(one), parts(other));
    words(core, other_core).then_with(|| match (pre, other_pre) {
        (None, None) => Ordering::Equal,
        (None, Some(_)) => Ordering::Greater,
        (Some(_), None) => Ordering::Less,
        (Some(pre), Some(other)) => words(pre, other),
    })
}

fn parts(text: &str) -> (&str, Option<&str>, Option<&str>) {
    let (rest, build) = text
        .split_once('+')
        .map_or((text, None), |(a, b)| (a, Some(b)));
    let (core, pre) = rest
        .split_once('-')
        .map_or((rest, None), |(a, b)| (a, Some(b)));
    (core, pre, build)
}

fn numeric(part: &str) -> bool {
    !part.is_empty()
        && part.bytes().all(|b| b.is_ascii_digit())
        && (part == "0" || !part.starts_with('0'))
}

fn words(one: &str, other: &str) -> Ordering {
    let (mut ones, mut others) = (one.split('.'), other.split('.'));
    loop {
        let order = match (ones.next(), others.next()) {
            (None, None) => return Ordering::Equal,
            (None, Some(_)) => Ordering::Less,
            (Some(_), None) => Ordering::Greater,
            (Some(one), Some(other)) => match (numeric(one), numeric(other)) {
                // Without leading zeros the longer number is the larger one.
                (true, true) => one.len().cmp(&other.len()).then_with(|| one.cmp(other)),
                (true, false) => Ordering::Less,
                (false, true) => Ordering::Greater,
                (false, false) => one.cmp(other),
            },
        };
        if order.is_ne() {
            return order;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_version_is_a_semantic_version() {
        for good in ["0.1.0", "1.2.3-beta.1", "1.0.0-x-y.7+build.01", "10.20.30"] {
            assert!(is_version(good), "{good}");
        }
        for bad in [
            "", "1", "1.2", "1.2.3.4", "01.2.3", "v1.2.3", "1.2.3-", "1.2.3-01", "1.2.x", "1.2.3 ",
        ] {
            assert!(!is_version(bad), "{bad}");
        }
    }

    #[test]
    fn versions_have_the_order_of_the_standard() {
        let sorted = [
            "0.9.9",
            "1.0.0-alpha",
            "1.0.0-alpha.1",
            "1.0.0-alpha.beta",
            "1.0.0-beta",
            "1.0.0-beta.2",
            "1.0.0-beta.11",
            "1.0.0-rc.1",
            "1.0.0",
            "1.2.0",
            "1.10.0",
            "1.10.1",
        ];
        for pair in sorted.windows(2) {
            assert_eq!(compare(pair[0], pair[1]), Ordering::Less, "{pair:?}");
            assert_eq!(compare(pair[1], pair[0]), Ordering::Greater, "{pair:?}");
        }
        assert_eq!(compare("1.0.0+a", "1.0.0+b"), Ordering::Equal);
        assert!(is_prerelease("1.0.0-rc.1") && !is_prerelease("1.0.0+x-y"));
    }
}
