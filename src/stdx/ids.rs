//! Identifiers: object uids and the suffix of generated names.
//!
//! Why here: Raft apply may use no randomness, so ids are made before a command is proposed.

use rand::Rng;

/// Upstream's alphabet for generated names: no vowels, nothing that looks like another letter
/// (apimachinery `util/rand`).
const SUFFIX_ALPHABET: &[u8] = b"bcdfghjklmnpqrstvwxz2456789";

/// Characters that `generateName` appends.
pub const SUFFIX_LENGTH: usize = 5;

/// A new random uid.
pub fn uid() -> String {
    uuid::Uuid::new_v4().to_string()
}

/// A random suffix of `length` characters in upstream's alphabet.
pub fn suffix(length: usize) -> String {
    let mut random = rand::rng();
    (0..length)
        .map(|_| SUFFIX_ALPHABET[random.random_range(0..SUFFIX_ALPHABET.len())] as char)
        .collect()
}

/// Upstream's `SafeEncodeString`: maps any text onto the name alphabet, character by character.
/// Pod template hashes are written this way.
pub fn safe_encode(text: &str) -> String {
    text.bytes()
        .map(|byte| SUFFIX_ALPHABET[byte as usize % SUFFIX_ALPHABET.len()] as char)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn suffixes_use_only_the_alphabet() {
        let text = suffix(200);
        assert_eq!(text.len(), 200);
        assert!(text.bytes().all(|byte| SUFFIX_ALPHABET.contains(&byte)));
        assert_ne!(uid(), uid());
    }

    #[test]
    fn safe_encode_matches_upstream() {
        // '0' is 48, and 48 % 27 = 21 -> '5' is index 22; checked against upstream's table.
        assert_eq!(safe_encode("0"), "4");
        assert_eq!(safe_encode("6"), "b");
    }
}
