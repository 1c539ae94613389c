//! A log line as a JSON object: time, level and message, and the facts of a request as fields. Pure.

use std::io;

use log::Record;
use log::kv::{Error, Key, Value, VisitSource, VisitValue};
use serde::ser::{Serialize, SerializeMap, Serializer};

use crate::clock::Timestamp;

/// Appends `record` as one object to `line`, with its keys in this order.
pub(super) fn append(record: &Record<'_>, now: Timestamp, line: &mut String) {
    serde_json::to_writer(Text(line), &Object { record, now })
        .expect("names and plain values are always JSON");
}

struct Object<'a> {
    record: &'a Record<'a>,
    now: Timestamp,
}

impl Serialize for Object<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut members = Members { map: serializer.serialize_map(None)?, failed: None };
        members.map.serialize_entry("time", &self.now)?;
        members.map.serialize_entry("level", self.record.level().as_str())?;
        members.map.serialize_entry("message", self.record.args())?;
        // Its own error says nothing of what failed.
        let _ = self.record.key_values().visit(&mut members);
        members.failed.map_or(Ok(()), Err)?;
        members.map.end()
    }
}

/// Writes each field that it visits.
struct Members<M: SerializeMap> {
    map: M,
    failed: Option<M::Error>,
}

impl<'kvs, M: SerializeMap> VisitSource<'kvs> for Members<M> {
    fn visit_pair(&mut self, key: Key<'kvs>, value: Value<'kvs>) -> Result<(), Error> {
        let mut field = Field { key: key.as_str(), members: self };
        value.visit(&mut field)
    }
}

/// Writes a field's value as JSON: numbers and booleans as they are, everything else as text.
struct Field<'a, M: SerializeMap> {
    key: &'a str,
    members: &'a mut Members<M>,
}

impl<M: SerializeMap> Field<'_, M> {
    fn write(&mut self, value: &(impl Serialize + ?Sized)) -> Result<(), Error> {
        self.members.map.serialize_entry(self.key, value).map_err(|error| {
            self.members.failed = Some(error);
            Error::msg("not written")
        })
    }
}

impl<M: SerializeMap> VisitValue<'_> for Field<'_, M> {
    fn visit_any(&mut self, value: Value<'_>) -> Result<(), Error> {
        self.write(&value.to_string())
    }

    fn visit_null(&mut self) -> Result<(), Error> {
        self.write(&())
    }

    fn visit_u64(&mut self, value: u64) -> Result<(), Error> {
        self.write(&value)
    }

    fn visit_i64(&mut self, value: i64) -> Result<(), Error> {
        self.write(&value)
    }

    fn visit_f64(&mut self, value: f64) -> Result<(), Error> {
        self.write(&value)
    }

    fn visit_bool(&mut self, value: bool) -> Result<(), Error> {
        self.write(&value)
    }

    fn visit_str(&mut self, value: &str) -> Result<(), Error> {
        self.write(value)
    }
}

/// Appends JSON to a text.
struct Text<'a>(&'a mut String);

impl io::Write for Text<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let text = std::str::from_utf8(bytes).map_err(|_| io::ErrorKind::InvalidData)?;
        self.0.push_str(text);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
