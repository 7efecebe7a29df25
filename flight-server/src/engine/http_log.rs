//! Requests to S3 as DuckDB's log tells of them.

use crate::s3_requests::S3Requests;

/// Counts one attempt of httpfs. A failure after which DuckDB retries is logged without a status: it counts as `failed`.
pub(super) fn count(requests: &S3Requests, message: &str) {
    // {'request': {'type': GET, 'url': 'http://…', …}, 'response': {'status': PartialContent_206, …}}
    let Some((method, rest)) =
        message.strip_prefix("{'request': {'type': ").and_then(|rest| rest.split_once(", 'url': '"))
    else {
        return;
    };
    let url = rest.split('\'').next().unwrap_or_default();
    let status = message.rsplit_once("'response': {'status': ").and_then(|(_, response)| {
        let status = response.split(',').next()?;
        status.rsplit_once('_')?.1.parse().ok()
    });
    requests.count(method, url, status);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_log_entry_is_a_request() {
        let requests = S3Requests::default();
        for (method, response) in [
            ("HEAD", "{'status': OK_200, 'reason': OK, 'headers': {Content-Length=401199}}"),
            ("GET", "{'status': PartialContent_206, 'reason': Partial Content, 'headers': {}}"),
            ("HEAD", "{'status': NotFound_404, 'reason': Not Found, 'headers': {}}"),
            ("GET", "NULL"),
            ("GET", "{'status': INVALID, 'reason': Could not connect to server, 'headers': {}}"),
        ] {
            let request =
                format!("{{'type': {method}, 'url': 'http://h:1/b/k.parquet', 'headers': {{Range='bytes=0-1'}}}}");
            count(&requests, &format!("{{'request': {request}, 'response': {response}}}"));
        }
        count(&requests, "something else");
        let found: Vec<_> =
            requests.counts().iter().map(|count| (count.operation, count.outcome, count.count)).collect();
        assert_eq!(found, [("get", "ok", 1), ("get", "failed", 2), ("head", "ok", 1), ("head", "not_found", 1)]);
    }
}
