use super::*;

const CATALOG: &str = "[[entity]]\nname = \"flights\"\nschema_id = 1\n[[entity.attribute]]\nname = \"fare\"\ntype = \"text\"\ncolumn = \"text_01\"";
/// Of the password `secret`.
const HASH: &str = "$argon2id$v=19$m=8,t=1,p=1$c2FsdHNhbHQ$4PETl7RlHJ0QSV7Sz0CwIA";

fn parse(text: &str) -> Result<Access, AccessFaults> {
    Access::parse(text, "access.toml", &Catalog::parse(CATALOG).unwrap())
}

#[test]
fn roles_combine() {
    let access = parse(&format!(
        "[[user]]\nname = \"ann\"\npassword_hash = \"{HASH}\"\nroles = [\"a\", \"b\"]\n\
         [[role]]\nname = \"a\"\nplan = \"none\"\nsystem = [\"files\"]\n\
         [[role.table]]\nname = \"flights\"\ncolumns = [\"Fare\"]\n\
         [[role]]\nname = \"b\"\nadmin = true\n[[role.table]]\nname = \"*\"\nexcept = []\n"
    ))
    .unwrap();
    let (_, ann) = access.user("ann", None).unwrap();
    assert!(ann.rights.admin && ann.rights.system.covers("files") && !ann.rights.system.covers("tiers"));
    assert_eq!(ann.rights.plan, PlanDetail::Summary);
    let Sees::Granted(grants) = &ann.sees else { panic!("ann sees everything") };
    assert_eq!(grants.len(), 2);
    // Nobody gets anything by silence.
    let nobody = access.anonymous();
    assert_eq!(nobody.sees, Sees::Granted(Arc::default()));
    assert_eq!(nobody.rights.plan, PlanDetail::None);
}

#[test]
fn networks_bound_where_a_user_calls_from() {
    let access = parse("[[user]]\nname = \"ann\"\nroles = []\nnetworks = [\"10.0.0.0/8\", \"fd00::/8\"]\n").unwrap();
    let from = |address: &str| access.user("ann", Some(address.parse().unwrap())).is_some();
    assert!(from("10.1.2.3") && from("::ffff:10.1.2.3") && from("fd00::1"));
    assert!(!from("11.0.0.1") && access.user("ann", None).is_none());
}

#[test]
fn every_fault_has_its_line() {
    let text = "[[user]]\nname = \"a:b\"\nroles = [\"none\"]\n[[user]]\nname = \"ann\"\npassword_hash = \"hunter2\"\nroles = []\n\
         not_before = 2026-11-01\n[[user]]\nname = \"ann\"\nroles = []\nnetworks = [\"here\"]\n\
         [[key]]\nid = \"k\"\nsha256 = \"12\"\nuser = \"bob\"\n\
         [[role]]\nname = \"r\"\nlimits = { max_rows = 1 }\nsystem = [\"secrets\"]\n\
         [[role.table]]\nname = \"nights\"\ncolumns = []\n[[role.table]]\nname = \"flights\"\n\
         [[role.table]]\nname = \"flights\"\nexcept = [\"far\"]\nrows = \"true\"\n[[restrict]]\ntable = \"flights\"\n";
    let faults = parse(text).unwrap_err().to_string();
    for expected in [
        ":2: expected a name without",
        ":3: there is no role `none`",
        ":6: expected an argon2 hash",
        ":8: expected a time with its offset",
        ":10: user `ann` is defined twice",
        ":12: `here` is no network",
        ":15: expected a SHA-256 digest",
        ":16: there is no user `bob`",
        ":19: `limits` of a role isn't enforced by this version",
        ":20: there is no system.secrets",
        ":22: the catalog has no entity `nights`",
        ":25: `flights`: expected one of `columns` and `except`",
        ":28: `flights` has no column `far`",
        ":29: `rows` of a table isn't enforced by this version",
        ":30: [[restrict]] isn't enforced by this version",
    ] {
        assert!(faults.contains(&format!("access.toml{expected}")), "{expected} is not in\n{faults}");
    }
    assert!(!faults.contains("hunter2"));
    let unknown = parse("[[user]]\nname = \"ann\"\nrole = []\n").unwrap_err().to_string();
    assert!(unknown.starts_with("access.toml:3: unknown field `role`"), "{unknown}");
}
