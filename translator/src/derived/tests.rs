use super::*;
use crate::catalog::{Catalog, Column};

fn entity(key: &[(&str, &str)]) -> std::sync::Arc<Entity> {
    let names: Vec<String> = key.iter().map(|(name, _)| format!("\"{name}\"")).collect();
    let mut toml = format!(
        "[[entity]]\nname = \"t\"\nschema_id = 1\n[entity.table]\nname = \"public.t\"\nkey = [{}]\n",
        names.join(", ")
    );
    for (name, kind) in key {
        toml.push_str(&format!("[[entity.attribute]]\nname = \"{name}\"\ntype = \"{kind}\"\ncolumn = \"{name}\"\n"));
    }
    std::sync::Arc::clone(&Catalog::parse(&toml).unwrap().entities()[0])
}

fn id_of(entity: &Entity, key: &[Value]) -> Option<u128> {
    row_id(entity, entity.own_table().unwrap(), key)
}

#[test]
fn integers_keep_their_order() {
    let entity = entity(&[("id", "bigint")]);
    let numbers = [i64::MIN, -7, -1, 0, 1, 255, 256, i64::MAX];
    let ids: Vec<u128> =
        numbers.iter().map(|number| id_of(&entity, &[Value::Int((*number).into())]).unwrap()).collect();
    assert!(ids.is_sorted(), "{ids:x?}");
    assert_eq!(ids[3], 0x7468_726d_636c_8000_8000_0000_0000_0000);
    assert_eq!(id_of(&entity, &[Value::Int(1 << 70)]), None);
}

#[test]
fn parts_of_a_key_do_not_run_together() {
    let entity = entity(&[("a", "text"), ("b", "text")]);
    let id = |a: &str, b: &str| id_of(&entity, &[Value::Text(a.to_owned()), Value::Text(b.to_owned())]).unwrap();
    assert_ne!(id("ab", "c"), id("a", "bc"));
    assert_ne!(id("", "a"), id("a", ""));
}

#[test]
fn conditions_on_the_key_speak_of_row_ids() {
    let single = entity(&[("id", "integer")]);
    let on = |op, value| Predicate::Compare { column: Column::Attribute(0), op, value };
    let seven = Value::Uuid(id_of(&single, &[Value::Int(7)]).unwrap());
    let condition = |predicate: Predicate| row_id_condition(&single, &[&predicate]);
    let expected =
        |op| Some(Predicate::And(vec![Predicate::Compare { column: Column::RowId, op, value: seven.clone() }]));
    assert_eq!(condition(on(CompareOp::Equal, Value::Int(7))), expected(CompareOp::Equal));
    assert_eq!(
        condition(on(CompareOp::Less, Value::Decimal { unscaled: 75, scale: 1 })),
        expected(CompareOp::LessOrEqual)
    );
    assert_eq!(condition(on(CompareOp::Greater, Value::Double(7.0))), None);
    assert_eq!(condition(Predicate::Not(Box::new(on(CompareOp::Equal, Value::Int(7))))), None);

    let composite = entity(&[("a", "integer"), ("b", "text")]);
    let of = |column, value| Predicate::Compare { column: Column::Attribute(column), op: CompareOp::Equal, value };
    let both = [of(0, Value::Int(1)), of(1, Value::Text("x".to_owned()))];
    let id = id_of(&composite, &[Value::Int(1), Value::Text("x".to_owned())]).unwrap();
    assert_eq!(
        row_id_condition(&composite, &[&both[0], &both[1]]),
        Some(Predicate::In { column: Column::RowId, values: vec![Value::Uuid(id)] })
    );
    assert_eq!(row_id_condition(&composite, &[&both[0]]), None);
}
