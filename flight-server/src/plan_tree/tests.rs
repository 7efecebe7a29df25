use serde_json::json;

use super::*;

#[test]
fn a_plan_is_drawn() {
    let plan = json!({
        "version": 1, "query_id": "q-1", "route": "federated", "route_reason": "dirty rows", "consistency": "strict",
        "tiers": ["hot", "cold"],
        "references": [{
            "entity": "flights", "alias": "f", "dirty_rows": 50_000,
            "merge": {"strategy": "layered", "proof": "manifest"},
            "sources": [
                {"tier": "hot", "engine": "postgres", "row_estimate": 50_000, "pushed": ["a = 1"],
                 "residual": ["b LIKE 'x%'"], "sql": "SELECT 1\nFROM t"},
                {"tier": "cold", "engine": "parquet", "files_total": 10, "files_scanned": 3, "bytes": 2048,
                 "row_estimate": 1, "pushed": [], "residual": [], "anti_join_files": 1}]}],
        "statement": "WITH x",
        "degraded": {"is_degraded": true, "missing_tiers": ["warm"], "reasons": ["lake down"]},
        "warnings": ["be careful"],
        "timings_ms": {"planning": 3.12},
        "execution": {"rows": 5, "bytes": 100, "execution_ms": 1.0, "streaming_ms": 2.0, "truncated": false,
                      "sources": [{"tier": "hot", "rows_scanned": 9, "rows_returned": 5, "ms": 1.5}]}
    });
    let expected = "\
federated (dirty rows) · strict · tiers hot, cold · query q-1
├─ flights as f · 50,000 dirty rows · merge layered (manifest)
│  ├─ hot from postgres: about 50,000 rows
│  │  ├─ pushed: a = 1
│  │  ├─ left to DuckDB: b LIKE 'x%'
│  │  └─ sql
│  │     └─ SELECT 1
│  │        FROM t
│  └─ cold from parquet: 3 of 10 files, 2.00 KiB, about 1 rows, anti-join in 1
├─ executed: 5 rows, 100 B, 1.0 ms executing, 2.0 ms streaming
│  └─ hot: 9 rows scanned, 5 returned, 1.5 ms
├─ warning: be careful
├─ warning: the answer is degraded, without warm: lake down
├─ planning 3.1 ms
└─ statement
   └─ WITH x
";
    assert_eq!(render(&plan), expected);
}

#[test]
fn an_unknown_plan_is_survived() {
    assert_eq!(render(&json!({})), "\n");
    assert_eq!(render(&json!({"references": 3, "route": "hot"})), "hot\n");
}
