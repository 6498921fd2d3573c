//! JSON Web Tokens with ES256, as service-account tokens use them.
//!
//! Why by hand: one algorithm, one key, thirty lines; nothing here can be talked into `none` or
//! into another algorithm, because only one is known.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as BASE64;
use ring::rand::SystemRandom;
use ring::signature::{
    ECDSA_P256_SHA256_FIXED, ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair,
    UnparsedPublicKey,
};
use serde::{Deserialize, Serialize};
use serde_json::json;
use sha2::{Digest, Sha256};

use crate::object::Value;

/// The name and uid of an object that a token is bound to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reference {
    /// Its name.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub name: String,
    /// Its uid.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub uid: String,
}

/// The claims under `kubernetes.io`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Bindings {
    /// The namespace of the account.
    #[serde(default)]
    pub namespace: String,
    /// The account.
    pub serviceaccount: Reference,
    /// The pod that the token ends with.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pod: Option<Reference>,
    /// The secret that the token ends with.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret: Option<Reference>,
    /// The node that the token ends with, or that the pod runs on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node: Option<Reference>,
}

/// What a service-account token says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Claims {
    /// For whom the token is.
    #[serde(default, deserialize_with = "one_or_many")]
    pub aud: Vec<String>,
    /// The end, in seconds since 1970.
    pub exp: i64,
    /// When it was made.
    #[serde(default)]
    pub iat: i64,
    /// Who made it.
    pub iss: String,
    /// Its id.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub jti: String,
    /// Whose and how long.
    #[serde(rename = "kubernetes.io")]
    pub kubernetes: Bindings,
    /// The start.
    #[serde(default)]
    pub nbf: i64,
    /// The user's name.
    pub sub: String,
}

fn one_or_many<'de, D: serde::Deserializer<'de>>(from: D) -> Result<Vec<String>, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Audience {
        One(String),
        Many(Vec<String>),
    }
    Ok(match Audience::deserialize(from)? {
        Audience::One(one) => vec![one],
        Audience::Many(many) => many,
    })
}

#[derive(Deserialize)]
struct Header {
    alg: String,
    #[serde(default)]
    kid: String,
}

/// The pair of keys that signs tokens and checks them.
pub struct Signer {
    pair: EcdsaKeyPair,
    random: SystemRandom,
    id: String,
}

impl Signer {
    /// From a P-256 key in PKCS#8 and its public half as SubjectPublicKeyInfo.
    pub fn new(pkcs8: &[u8], spki: &[u8]) -> Result<Self, String> {
        let random = SystemRandom::new();
        let pair = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, pkcs8, &random)
            .map_err(|error| format!("token signing key: {error}"))?;
        let id = BASE64.encode(Sha256::digest(spki));
        Ok(Self { pair, random, id })
    }

    /// Signs claims.
    pub fn sign(&self, claims: &Claims) -> Result<String, String> {
        let header = json!({"alg": "ES256", "kid": self.id});
        let claims = serde_json::to_vec(claims).map_err(|error| error.to_string())?;
        let mut token = format!("{}.{}", BASE64.encode(header.to_string()), BASE64.encode(claims));
        let signature = self
            .pair
            .sign(&self.random, token.as_bytes())
            .map_err(|_| "the key did not sign".to_owned())?;
        token.push('.');
        token.push_str(&BASE64.encode(signature));
        Ok(token)
    }

    /// The issuer that a token names, unchecked; `None` for what is no token.
    pub fn issuer_of(token: &str) -> Option<String> {
        let mut parts = token.split('.');
        let (_, payload) = (parts.next()?, parts.next()?);
        (parts.next().is_some() && parts.next().is_none()).then_some(())?;
        let payload: Value = serde_json::from_slice(&BASE64.decode(payload).ok()?).ok()?;
        Some(payload.get("iss")?.as_str()?.to_owned())
    }

    /// The claims of a token with a good signature. What they say is for the caller to judge.
    pub fn verify(&self, token: &str) -> Result<Claims, String> {
        let malformed = || "malformed token".to_owned();
        let (signed, signature) = token.rsplit_once('.').ok_or_else(malformed)?;
        let (header, payload) = signed.split_once('.').ok_or_else(malformed)?;
        let decode = |text: &str| BASE64.decode(text).map_err(|_| malformed());
        let header: Header = serde_json::from_slice(&decode(header)?).map_err(|_| malformed())?;
        if header.alg != "ES256" {
            return Err(format!("unexpected signature algorithm {:?}", header.alg));
        }
        if !header.kid.is_empty() && header.kid != self.id {
            return Err("invalid signature, no keys found".to_owned());
        }
        UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, self.pair.public_key())
            .verify(signed.as_bytes(), &decode(signature)?)
            .map_err(|_| "invalid signature".to_owned())?;
        serde_json::from_slice(&decode(payload)?).map_err(|_| malformed())
    }

    /// The public key as a JSON Web Key Set.
    pub fn key_set(&self) -> Value {
        // An uncompressed point: 4, then 32 bytes each of x and y.
        let point = self.pair.public_key().as_ref();
        let (x, y) = point[1..].split_at((point.len() - 1) / 2);
        json!({"keys": [{
            "use": "sig", "kty": "EC", "kid": self.id, "crv": "P-256", "alg": "ES256",
            "x": BASE64.encode(x), "y": BASE64.encode(y),
        }]})
    }
}
