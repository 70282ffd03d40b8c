//! JSON as far as tokens and key sets need it, read strictly: no member twice (readers differ in which one they take),
//! nothing nested deeper than any honest token is, nothing behind the value.

use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, Error as _, MapAccess, SeqAccess, Visitor};

/// How deep values may be nested.
const MAX_DEPTH: usize = 8;

/// A value.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Json {
    /// A whole number from 0 to 2^64 - 1.
    Whole(u64),
    Text(String),
    List(Vec<Json>),
    Map(Map),
    /// `null`, `true`, `false`, and every other number: nothing here is any of them.
    Other,
}

/// An object's members.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Map(Vec<(String, Json)>);

impl Map {
    /// A whole text that is one object; `None` if it is not, by the rules of this module.
    pub(super) fn parse(bytes: &[u8]) -> Option<Self> {
        let mut reader = serde_json::Deserializer::from_slice(bytes);
        let value = Depth(0).deserialize(&mut reader).ok()?;
        reader.end().ok()?;
        match value {
            Json::Map(map) => Some(map),
            _ => None,
        }
    }

    pub(super) fn get(&self, name: &str) -> Option<&Json> {
        self.0.iter().find(|(member, _)| member == name).map(|(_, value)| value)
    }

    pub(super) fn text(&self, name: &str) -> Option<&str> {
        match self.get(name) {
            Some(Json::Text(text)) => Some(text),
            _ => None,
        }
    }

    pub(super) fn has(&self, name: &str) -> bool {
        self.get(name).is_some()
    }

    pub(super) const fn len(&self) -> usize {
        self.0.len()
    }
}

struct Depth(usize);

impl<'de> DeserializeSeed<'de> for Depth {
    type Value = Json;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Json, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Depth {
    type Value = Json;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_unit<E>(self) -> Result<Json, E> {
        Ok(Json::Other)
    }

    fn visit_bool<E>(self, _: bool) -> Result<Json, E> {
        Ok(Json::Other)
    }

    fn visit_i64<E>(self, _: i64) -> Result<Json, E> {
        Ok(Json::Other)
    }

    fn visit_f64<E>(self, _: f64) -> Result<Json, E> {
        Ok(Json::Other)
    }

    fn visit_u64<E>(self, number: u64) -> Result<Json, E> {
        Ok(Json::Whole(number))
    }

    fn visit_str<E>(self, text: &str) -> Result<Json, E> {
        Ok(Json::Text(text.to_owned()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Json, A::Error> {
        let mut list = Vec::new();
        while let Some(item) = items.next_element_seed(self.below()?)? {
            list.push(item);
        }
        Ok(Json::List(list))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<Json, A::Error> {
        let mut map = Map(Vec::new());
        while let Some(name) = members.next_key::<String>()? {
            if map.has(&name) {
                return Err(A::Error::custom("a member twice"));
            }
            let value = members.next_value_seed(self.below()?)?;
            map.0.push((name, value));
        }
        Ok(Json::Map(map))
    }
}

impl Depth {
    fn below<E: serde::de::Error>(&self) -> Result<Self, E> {
        if self.0 + 1 < MAX_DEPTH { Ok(Self(self.0 + 1)) } else { Err(E::custom("nested too deeply")) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn members_are_found_and_numbers_are_whole() {
        let map =
            Map::parse(br#" {"a": 1, "b": "x", "c": [1.0, -1, null, true, {"d": 18446744073709551615}]} "#).unwrap();
        assert_eq!((map.get("a"), map.text("b"), map.len()), (Some(&Json::Whole(1)), Some("x"), 3));
        let Some(Json::List(list)) = map.get("c") else { panic!() };
        assert_eq!(list[..4], [Json::Other, Json::Other, Json::Other, Json::Other]);
        assert!(map.text("a").is_none() && !map.has("d"));
    }

    #[test]
    fn what_readers_could_read_differently_is_refused() {
        let deep = |n: usize| format!("{}1{}", "{\"a\":".repeat(n), "}".repeat(n));
        assert!(Map::parse(deep(MAX_DEPTH - 1).as_bytes()).is_some());
        for bad in [
            r#"{"a":1,"a":1}"#.to_owned(),
            // The same name, written otherwise.
            r#"{"a":1,"\u0061":1}"#.to_owned(),
            r#"{"x":{"a":1,"a":1}}"#.to_owned(),
            r#"{"a":1} {}"#.to_owned(),
            r#"{"a":1}x"#.to_owned(),
            r#"{"a":1,}"#.to_owned(),
            r#"{"a":"\ud800"}"#.to_owned(),
            "[]".to_owned(),
            "\"a\"".to_owned(),
            String::new(),
            deep(MAX_DEPTH),
            deep(5000),
            format!("{{\"a\":{}1{}}}", "[".repeat(100), "]".repeat(100)),
        ] {
            assert!(Map::parse(bad.as_bytes()).is_none(), "{bad}");
        }
        assert!(Map::parse(b"{\"a\":\"\xff\"}").is_none() && Map::parse(b"\xef\xbb\xbf{}").is_none());
    }
}
