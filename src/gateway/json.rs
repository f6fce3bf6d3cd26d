//! JSON as a client wrote it: objects keep the order of their keys, which user
//! code can see. And a body's fields, taken out one by one with a sentence for
//! each that does not fit.

use serde::de::{MapAccess, SeqAccess, Visitor};
use serde::ser::SerializeMap;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::gateway::error::ApiError;

#[derive(Debug, Clone, PartialEq)]
pub enum Json {
    Null,
    Bool(bool),
    Number(serde_json::Number),
    Text(String),
    List(Vec<Json>),
    Object(Vec<(String, Json)>),
}

/// The fields of one request's body.
pub struct Fields {
    fields: Vec<(String, Json)>,
}

// === impl Json ===

impl Json {
    pub fn to_bytes(&self) -> Vec<u8> {
        serde_json::to_vec(self).expect("JSON values have string keys")
    }

    pub fn get(&self, key: &str) -> Option<&Json> {
        match self {
            Self::Object(fields) => fields.iter().find(|(k, _)| k == key).map(|(_, v)| v),
            _ => None,
        }
    }

    pub fn as_str(&self) -> Option<&str> {
        match self {
            Self::Text(text) => Some(text),
            _ => None,
        }
    }
}

impl Serialize for Json {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Null => serializer.serialize_unit(),
            Self::Bool(value) => serializer.serialize_bool(*value),
            Self::Number(number) => number.serialize(serializer),
            Self::Text(text) => serializer.serialize_str(text),
            Self::List(items) => items.serialize(serializer),
            Self::Object(fields) => {
                let mut map = serializer.serialize_map(Some(fields.len()))?;
                for (key, value) in fields {
                    map.serialize_entry(key, value)?;
                }
                map.end()
            }
        }
    }
}

impl<'de> Deserialize<'de> for Json {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Reader)
    }
}

struct Reader;

impl<'de> Visitor<'de> for Reader {
    type Value = Json;

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("JSON")
    }

    fn visit_unit<E>(self) -> Result<Json, E> {
        Ok(Json::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Json, E> {
        Ok(Json::Bool(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Json, E> {
        Ok(Json::Number(value.into()))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Json, E> {
        Ok(Json::Number(value.into()))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Json, E> {
        Ok(serde_json::Number::from_f64(value).map_or(Json::Null, Json::Number))
    }

    fn visit_str<E>(self, value: &str) -> Result<Json, E> {
        Ok(Json::Text(value.to_owned()))
    }

    fn visit_string<E>(self, value: String) -> Result<Json, E> {
        Ok(Json::Text(value))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Json, A::Error> {
        let mut list = Vec::new();
        while let Some(item) = items.next_element()? {
            list.push(item);
        }
        Ok(Json::List(list))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Json, A::Error> {
        let mut fields = Vec::new();
        while let Some(entry) = entries.next_entry()? {
            fields.push(entry);
        }
        Ok(Json::Object(fields))
    }
}

// === impl Fields ===

impl Fields {
    /// Reads a body, which must be one JSON object; nothing at all is an empty one.
    pub fn read(body: &[u8]) -> Result<Self, ApiError> {
        if body.is_empty() {
            return Ok(Self { fields: Vec::new() });
        }
        match serde_json::from_slice(body) {
            Ok(Json::Object(fields)) => Ok(Self { fields }),
            Ok(_) => Err(ApiError::bad("the body is not a JSON object")),
            Err(error) => Err(ApiError::bad(format!("the body is not JSON: {error}"))),
        }
    }

    /// Takes a field out; null counts as missing.
    pub fn take(&mut self, name: &str) -> Option<Json> {
        let at = self.fields.iter().position(|(key, _)| key == name)?;
        let (_, value) = self.fields.swap_remove(at);
        (value != Json::Null).then_some(value)
    }

    pub fn text(&mut self, name: &str) -> Result<Option<String>, ApiError> {
        match self.take(name) {
            None => Ok(None),
            Some(Json::Text(text)) => Ok(Some(text)),
            Some(_) => Err(ApiError::bad(format!("`{name}` is not a string"))),
        }
    }

    pub fn required_text(&mut self, name: &str) -> Result<String, ApiError> {
        self.text(name)?
            .ok_or_else(|| ApiError::bad(format!("`{name}` is missing")))
    }

    pub fn whole(&mut self, name: &str) -> Result<Option<u64>, ApiError> {
        match self.take(name) {
            None => Ok(None),
            Some(Json::Number(number)) if number.is_u64() => Ok(number.as_u64()),
            Some(_) => Err(ApiError::bad(format!("`{name}` is not a whole number"))),
        }
    }

    pub fn object(&mut self, name: &str) -> Result<Option<Json>, ApiError> {
        match self.take(name) {
            None => Ok(None),
            Some(object @ Json::Object(_)) => Ok(Some(object)),
            Some(_) => Err(ApiError::bad(format!("`{name}` is not an object"))),
        }
    }

    pub fn texts(&mut self, name: &str) -> Result<Option<Vec<String>>, ApiError> {
        let wrong = || ApiError::bad(format!("`{name}` is not a list of strings"));
        match self.take(name) {
            None => Ok(None),
            Some(Json::List(items)) => items
                .iter()
                .map(|item| item.as_str().map(str::to_owned).ok_or_else(wrong))
                .collect::<Result<_, _>>()
                .map(Some),
            Some(_) => Err(wrong()),
        }
    }

    /// Refuses what nobody has taken: a misspelt field must not be silently ignored.
    pub fn finish(self) -> Result<(), ApiError> {
        match self.fields.first() {
            None => Ok(()),
            Some((name, _)) => Err(ApiError::bad(format!(
                "`{name}` is not a field of this request"
            ))),
        }
    }
}

/// A name people give: present, trimmed and short.
pub fn name(text: &str) -> Result<String, ApiError> {
    /// Long enough for any name, short enough for every view.
    const NAME_CHARS_MAX: usize = 100;
    let text = text.trim();
    if text.is_empty()
        || text.chars().count() > NAME_CHARS_MAX
        || text.chars().any(char::is_control)
    {
        return Err(ApiError::bad(format!(
            "`name` must have 1 to {NAME_CHARS_MAX} characters and no line breaks"
        )));
    }
    Ok(text.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn objects_keep_their_order_and_numbers_their_value() {
        let text = r#"{"b":1,"a":[null,true,1.5,-3,"x"],"n":18446744073709551615}"#;
        let json: Json = serde_json::from_str(text).expect("JSON");
        assert_eq!(String::from_utf8(json.to_bytes()).expect("UTF-8"), text);
    }

    #[test]
    fn a_field_that_does_not_fit_is_named() {
        let mut fields = Fields::read(br#"{"name":3,"nmae":"x"}"#).expect("an object");
        assert!(
            fields
                .text("name")
                .expect_err("a number")
                .message
                .contains("`name`")
        );
        assert!(
            fields
                .required_text("kind")
                .expect_err("missing")
                .message
                .contains("`kind`")
        );
        assert!(
            fields
                .finish()
                .expect_err("misspelt")
                .message
                .contains("`nmae`")
        );
    }
}
