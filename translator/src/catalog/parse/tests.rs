use super::*;

/// Asserts all faults of a file: one `line N: …` a line.
fn check_faults(text: &str, expected: &[&str]) {
    let faults = Catalog::parse(text).expect_err("the file has faults").to_string();
    assert_eq!(faults.lines().collect::<Vec<_>>(), expected, "{faults}");
}

/// Asserts the one fault of an attribute that stands alone in an entity; its `name` is on line 5.
fn check_attribute(body: &str, expected: &str) {
    let text = format!("[[entity]]\nname = \"e\"\nschema_id = 1\n[[entity.attribute]]\nname = \"a\"\n{body}\n");
    check_faults(&text, &[expected]);
}

fn attribute(body: &str) -> Attribute {
    let text = format!("[[entity]]\nname = \"e\"\nschema_id = 1\n[[entity.attribute]]\nname = \"a\"\n{body}\n");
    let catalog = Catalog::parse(&text).unwrap();
    catalog.entity("e").unwrap().attributes[0].clone()
}

#[test]
fn reads_the_whole_form() {
    let catalog = Catalog::parse(
        r#"
[[entity]]
name = "flights"
schema_id = 100
description = "Departures"

[[entity.attribute]]
name = "carrier"
type = "text"
column = "text_01"

[[entity.attribute]]
name = "delay.minutes of arrival"
type = "double"
attr_id = 205
description = "Late by"

[[entity.attribute]]
name = "stops"
type = "decimal(9, 2)"
attr_id = 0x10
list = true

[[entity.attribute]]
name = "day"
type = "date"
column = "text_02"
encoding = "iso8601"

[[entity]]
name = "airlines"
schema_id = 101
"#,
    )
    .unwrap();
    assert_eq!(catalog.entities().len(), 2);
    let flights = catalog.entity("FLIGHTS").unwrap();
    assert_eq!((flights.schema_id, flights.description.as_deref()), (100, Some("Departures")));
    let [carrier, delay, stops, day] = flights.attributes.as_slice() else { panic!("four attributes") };
    assert_eq!(carrier.storage, Storage::Main { column: "text_01".to_owned(), kind: MainColumnKind::Text });
    assert_eq!((delay.name.as_str(), delay.column.as_str()), ("delay.minutes of arrival", "delay_minutes_of_arrival"));
    assert_eq!(delay.storage, Storage::Eav { attr_id: 205 });
    assert_eq!(delay.description.as_deref(), Some("Late by"));
    assert_eq!(stops.scalar, ScalarType::Decimal { precision: 9, scale: 2 });
    assert_eq!((stops.list, &stops.storage), (true, &Storage::Eav { attr_id: 16 }));
    assert_eq!((day.scalar, day.encoding), (ScalarType::Date, TimeEncoding::Iso8601));
    assert_eq!(carrier.encoding, TimeEncoding::UnixMs);
    assert_eq!(catalog.entity_by_schema_id(101).unwrap().name, "airlines");
}

#[test]
fn reports_all_faults_together() {
    check_faults(
        r#"
[[entity]]
name = "a"
schema_id = 1
colour = "red"

[[entity.attribute]]
name = "x"
type = "txt"
column = "text_01"

[[entity.attribute]]
name = "y"
type = "text"
column = "text_01"

[[entity]]
name = "A"
schema_id = 1

[[entities]]
"#,
        &[
            "line 5: entity `a`: unknown key `colour`; expected name, schema_id, description, classified, table, attribute",
            "line 9: attribute `x` of entity `a`: unknown type `txt`; expected text, smallint, integer, bigint, real, \
             double, decimal(p,s), boolean, uuid, date, time, timestamp, timestamp_naive, json or blob",
            "line 15: attribute `y` of entity `a`: column `text_01` is already used on line 10",
            "line 18: entity `A` is already defined on line 3",
            "line 19: schema_id 1 is already used on line 4",
            "line 21: the catalog: unknown key `entities`; expected entity",
        ],
    );
}

#[test]
fn each_fault_of_an_attribute() {
    for (body, expected) in [
        ("column = \"text_01\"", "line 4: attribute `a` of entity `e`: `type` is missing"),
        (
            "type = \"text\"",
            "line 4: attribute `a` of entity `e`: neither `column` nor `attr_id`; expected one of them",
        ),
        (
            "type = \"text\"\ncolumn = \"text_01\"\nattr_id = 1",
            "line 8: attribute `a` of entity `e`: both `column` and `attr_id`; expected one of them",
        ),
        (
            "type = \"decimal(16,2)\"\nattr_id = 1",
            "line 6: attribute `a` of entity `e`: entity_main and eav_data hold decimals of at most 15 digits; a table of its \
             own holds 38",
        ),
        (
            "type = \"decimal(3,4)\"\nattr_id = 1",
            "line 6: attribute `a` of entity `e`: type `decimal(3,4)`: expected a scale of at most the precision 3",
        ),
        (
            "type = \"decimal\"\nattr_id = 1",
            "line 6: attribute `a` of entity `e`: type `decimal`: expected decimal(p,s) such as decimal(9,2)",
        ),
        (
            "type = \"text\"\ncolumn = \"varchar_01\"",
            "line 7: attribute `a` of entity `e`: `varchar_01` is no column of entity_main; expected text_NN, \
             smallint_NN, integer_NN, bigint_NN, double_NN or uuid_NN",
        ),
        (
            "type = \"bigint\"\ncolumn = \"integer_01\"",
            "line 7: attribute `a` of entity `e`: column `integer_01` cannot store a bigint; expected a bigint_NN column",
        ),
        (
            "type = \"timestamp\"\ncolumn = \"text_01\"",
            "line 7: attribute `a` of entity `e`: column `text_01` cannot store a timestamp as unix_ms; expected a \
             bigint_NN column, or encoding = \"iso8601\"",
        ),
        (
            "type = \"date\"\ncolumn = \"bigint_01\"\nencoding = \"iso8601\"",
            "line 7: attribute `a` of entity `e`: column `bigint_01` cannot store a date as iso8601; expected a \
             text_NN column, or encoding = \"unix_ms\"",
        ),
        (
            "type = \"date\"\nattr_id = 1\nencoding = \"rfc3339\"",
            "line 8: attribute `a` of entity `e`: unknown encoding `rfc3339`; expected unix_ms or iso8601",
        ),
        (
            "type = \"double\"\nattr_id = 1\nencoding = \"unix_ms\"",
            "line 8: attribute `a` of entity `e`: only date and timestamp have an encoding",
        ),
        (
            "type = \"text\"\ncolumn = \"text_01\"\nlist = true",
            "line 8: attribute `a` of entity `e`: a list is stored in eav_data; expected `attr_id` instead of `column`",
        ),
        (
            "type = \"text\"\nattr_id = 32768",
            "line 7: attribute `a` of entity `e`: `attr_id` is out of range; expected a SMALLINT",
        ),
        (
            "type = \"text\"\nattr_id = \"1\"",
            "line 7: attribute `a` of entity `e`: `attr_id` is a string; expected an integer",
        ),
        (
            "type = \"text\"\nattr_id = 1\nlsit = true",
            "line 8: attribute `a` of entity `e`: unknown key `lsit`; did you mean `list`?",
        ),
    ] {
        check_attribute(body, expected);
    }
}

#[test]
fn a_wider_column_is_allowed() {
    for (scalar, column) in [
        ("smallint", "bigint_02"),
        ("integer", "bigint_01"),
        ("boolean", "smallint_01"),
        ("decimal(15,15)", "double_03"),
        ("uuid", "text_09"),
        ("uuid", "uuid_01"),
        ("json", "text_01"),
    ] {
        let read = attribute(&format!("type = \"{scalar}\"\ncolumn = \"{column}\""));
        assert!(matches!(read.storage, Storage::Main { column: name, .. } if name == column));
    }
}

#[test]
fn folded_names_collide() {
    check_faults(
        r#"[[entity]]
name = "e"
schema_id = 1
[[entity.attribute]]
name = "delay.minutes"
type = "double"
attr_id = 1
[[entity.attribute]]
name = "Delay Minutes"
type = "double"
attr_id = 2
[[entity.attribute]]
name = "Updated.At"
type = "double"
attr_id = 3
[[entity.attribute]]
name = "deleted_at"
type = "double"
attr_id = 3
[[entity.attribute]]
name = "  "
type = "double"
attr_id = 4
"#,
        &[
            "line 9: attribute `Delay Minutes` of entity `e`: the column name `Delay_Minutes` is already taken by the \
             attribute on line 5 (dots and spaces fold to `_`, letter case doesn't count)",
            "line 13: attribute `Updated.At` of entity `e`: the column name `Updated_At` is reserved; every entity has \
             that column",
            "line 17: attribute `deleted_at` of entity `e`: the column name `deleted_at` is reserved; every entity has \
             that column",
            "line 19: attribute `deleted_at` of entity `e`: attr_id 3 is already used on line 15",
            "line 21: the name of an attribute is empty",
        ],
    );
}

#[test]
fn entity_names_are_plain_and_not_reserved() {
    for (name, expected) in [
        ("", "line 2: the name of an entity is empty"),
        ("a/b", "line 2: entity name `a/b`: expected a letter and then letters, digits, `_` or `-`"),
        ("_staging", "line 2: entity name `_staging`: expected a letter and then letters, digits, `_` or `-`"),
        ("Information_Schema", "line 2: entity name `Information_Schema` is reserved; choose another one"),
        ("system", "line 2: entity name `system` is reserved; choose another one"),
        ("unified", "line 2: entity name `unified` is reserved; choose another one"),
    ] {
        check_faults(&format!("[[entity]]\nname = \"{name}\"\nschema_id = 1\n"), &[expected]);
    }
}

#[test]
fn a_missing_name_is_reported_where_the_entity_starts() {
    check_faults(
        "\n[[entity]]\n[[entity.attribute]]\ntype = \"text\"\nattr_id = 1\n",
        &[
            "line 2: this entity: `name` is missing",
            "line 2: this entity: `schema_id` is missing",
            "line 3: this attribute of this entity: `name` is missing",
        ],
    );
}

#[test]
fn syntax_errors_have_their_lines() {
    let faults = Catalog::parse("[[entity]]\nname = \nschema_id = = 2\n").unwrap_err();
    assert_eq!(faults.faults.iter().map(|fault| fault.line).collect::<Vec<_>>(), [2, 3], "{faults}");
    check_faults("entity = 3\n", &["line 1: the catalog: `entity` is an integer; expected tables headed [[entity]]"]);
}

#[test]
fn tables_of_their_own_have_columns_and_a_key() {
    let head = "[[entity]]\nname = \"o\"\nschema_id = 1\n[entity.table]\nname = \"public.orders\"\n";
    let attribute = "[[entity.attribute]]\nname = \"id\"\ntype = \"bigint\"\ncolumn = \"id\"\n";
    let catalog = Catalog::parse(&format!("{head}key = [\"id\"]\n{attribute}")).unwrap();
    let entity = &catalog.entities()[0];
    assert_eq!(entity.own_table().unwrap().name, "public.orders");
    // What is printed reads back as the same entity.
    let printed = crate::catalog::print::entity_toml(entity);
    assert_eq!(Catalog::parse(&printed).unwrap().entities()[0], *entity);
    for (key, attribute, expected) in [
        ("key = [\"other\"]", attribute, "line 6: the table of entity `o`: no attribute has the key's column `other`"),
        ("key = []", attribute, "line 6: the table of entity `o`: the key has no column"),
        ("", attribute, "line 4: the table of entity `o`: `key` is missing"),
        ("key = [\"id\", \"id\"]", attribute, "line 6: the table of entity `o`: `id` is in the key twice"),
        (
            "key = [\"id\"]",
            "[[entity.attribute]]\nname = \"id\"\ntype = \"bigint\"\nattr_id = 1\n",
            "line 10: attribute `id` of entity `o`: the rows are in a table of its own, which has no `attr_id`; expected \
             `column`",
        ),
        (
            "key = [\"id\"]",
            "[[entity.attribute]]\nname = \"id\"\ntype = \"double\"\ncolumn = \"id\"\n",
            "line 6: the table of entity `o`: `id` is a double, which can't be part of a key",
        ),
    ] {
        let faults = Catalog::parse(&format!("{head}{key}\n{attribute}")).unwrap_err().to_string();
        assert!(faults.lines().any(|fault| fault == expected), "{faults}");
    }
}
