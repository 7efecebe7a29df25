use super::*;

#[test]
fn a_tail_tells_of_an_encrypted_footer() {
    assert_eq!(read_tail(*b"\x10\0\0\0PARE"), Tail::EncryptedFooter);
    assert_eq!(read_tail(*b"\x10\x01\0\0PAR1"), Tail::Footer(0x110));
}

#[test]
fn a_plain_footer_tells_of_encrypted_columns() {
    // version: 1, schema: [{name: "a"}], num_rows: 0, row_groups: []
    let plain = [0x15, 0x02, 0x19, 0x1c, 0x48, 0x01, b'a', 0x00, 0x16, 0x00, 0x19, 0x0c];
    let end = [0x00];
    // encryption_algorithm, four fields later: an empty union.
    let algorithm = [0x4c, 0x00, 0x00];
    assert!(has_encrypted_columns(&[&plain[..], &algorithm].concat()));
    assert!(!has_encrypted_columns(&[&plain[..], &end].concat()));
    // What makes no sense is none.
    for cut in 0..plain.len() {
        assert!(!has_encrypted_columns(&plain[..cut]));
    }
    assert!(!has_encrypted_columns(&[0x1c; 100]));
    assert!(!has_encrypted_columns(&[0x19, 0xf8, 0xff, 0xff, 0xff, 0xff, 0x0f]));
}
