//! Structural defaults and pruning.
//!
//! Why here: both follow the table alone. Defaults that need thought (a Deployment's strategy) are
//! the kind's own strategy, in the API server.

use super::{Root, Schemas, Struct, Type};
use crate::object::Value;

impl Root<'_> {
    /// Fills in the defaults of the table, also inside lists and maps.
    pub fn default(&self, value: &mut Value) {
        default_struct(self.schemas, self.get(), value);
    }

    /// Drops fields that the table does not know.
    pub fn prune(&self, value: &mut Value) {
        prune_struct(self.schemas, self.get(), value);
    }
}

fn default_struct(schemas: &Schemas, of: &Struct, value: &mut Value) {
    let Value::Object(map) = value else { return };
    for field in &of.fields {
        if let Some(default) = &field.default {
            // A required text or number stays absent: validation must see that it is missing.
            let is_zero = match &**default {
                Value::String(text) => text.is_empty(),
                Value::Number(number) => number.as_i64() == Some(0),
                Value::Bool(value) => !value,
                _ => false,
            };
            let absent = map.get(field.name.as_ref()).is_none_or(Value::is_null);
            if absent && !is_zero {
                map.insert(field.name.clone().into_owned(), (**default).clone());
            }
        }
        if let Some(inner) = map.get_mut(field.name.as_ref()) {
            walk(schemas, &field.ty, inner, default_struct);
        }
    }
}

fn prune_struct(schemas: &Schemas, of: &Struct, value: &mut Value) {
    let Value::Object(map) = value else { return };
    if !of.preserve {
        map.retain(|name, _| {
            of.field(name).is_some()
                || (of.embedded && matches!(name.as_str(), "apiVersion" | "kind" | "metadata"))
        });
    }
    for (name, inner) in map.iter_mut() {
        if let Some(field) = of.field(name) {
            walk(schemas, &field.ty, inner, prune_struct);
        }
    }
}

fn walk(schemas: &Schemas, ty: &Type, value: &mut Value, each: fn(&Schemas, &Struct, &mut Value)) {
    match (ty, value) {
        (Type::Struct(id), value) => each(schemas, schemas.get(*id), value),
        (Type::SchemaOr(_, id), value @ Value::Object(_)) => each(schemas, schemas.get(*id), value),
        (Type::SchemaOr(_, id), Value::Array(items)) => {
            for item in items {
                each(schemas, schemas.get(*id), item);
            }
        }
        (Type::List(list), Value::Array(items)) => {
            for item in items {
                walk(schemas, &list.item, item, each);
            }
        }
        (Type::Map(map), Value::Object(values)) => {
            for item in values.values_mut() {
                walk(schemas, &map.item, item, each);
            }
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use crate::object::Gvk;
    use crate::object::schema::builtin;
    use serde_json::json;

    #[test]
    fn defaults_reach_into_lists_and_unknown_fields_go() {
        let root = builtin().root(&Gvk::new("", "v1", "Service")).unwrap();
        let mut value = json!({"spec": {"ports": [{"port": 80, "what": 1}], "x": {}}});
        root.default(&mut value);
        root.prune(&mut value);
        assert_eq!(
            value,
            json!({"metadata": {}, "status": {"loadBalancer": {}},
                   "spec": {"ports": [{"port": 80, "protocol": "TCP"}]}})
        );
    }
}
