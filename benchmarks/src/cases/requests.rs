//! Requests that reach S3.

use std::sync::Arc;

use anyhow::Result;
use thermocline_tests::client::Client;
use thermocline_tests::lake::Lake;
use thermocline_tests::s3::{self, S3Request, S3Server};
use thermocline_tests::server::run;

use super::{AGGREGATE, Bench, ask, start_server};
use crate::data::{self, Place, SCHEMA_ID};
use crate::duck;
use crate::report::Target;
use crate::samples::Samples;

impl Bench<'_> {
    pub(super) async fn s3_requests(&mut self) -> Result<()> {
        let name = "S3 requests of the aggregate";
        if !self.options.wants(name) {
            return Ok(());
        }
        let mut case = self.case(name);
        let s3 = Arc::new(S3Server::start()?);
        let lake = Lake::s3(&s3)?;
        for tier in ["base", "delta"] {
            let directory = format!("{tier}/{SCHEMA_ID}");
            for entry in std::fs::read_dir(self.folder.join(&directory))? {
                let entry = entry?;
                let path = format!("{directory}/{}", entry.file_name().to_string_lossy());
                lake.put_bytes(&path, std::fs::read(entry.path())?).await?;
            }
        }
        let mut section = lake.config();
        let server = start_server(&self.database, section.clone()).await?;
        let client = Client::connect(server.endpoint()).await?;

        let plain = duck::open()?;
        let paths: Vec<String> = lake
            .list()
            .await?
            .iter()
            .filter(|path| path.starts_with("base/"))
            .map(|path| duck::quoted(&format!("{}/{path}", lake.url())))
            .collect();
        plain.execute_batch(&format!(
            "LOAD httpfs; CREATE SECRET (TYPE s3, KEY_ID '{}', SECRET '{}', REGION '{}', ENDPOINT '{}', USE_SSL false, \
             URL_STYLE 'path'); CREATE VIEW events AS SELECT * FROM read_parquet([{}])",
            s3::ACCESS_KEY,
            s3::SECRET_KEY,
            s3::REGION,
            s3.endpoint().trim_start_matches("http://"),
            paths.join(", ")
        ))?;
        let count = |requests: &[S3Request], tier: &str| -> f64 {
            let reads = requests.iter().filter(|request| request.is_read() && request.path.contains(tier));
            reads.count() as f64
        };
        let lists =
            |requests: &[S3Request]| -> f64 { requests.iter().filter(|request| request.is_list()).count() as f64 };
        // What a first query asks for, footers included; then what later ones do, with both caches of blocks in force.
        let asked_twice = async |client: &Client| -> Result<(Vec<S3Request>, Vec<S3Request>)> {
            s3.forget_requests();
            ask(client, AGGREGATE).await?;
            let first = s3.requests();
            s3.forget_requests();
            ask(client, AGGREGATE).await?;
            Ok((first, s3.requests()))
        };
        let (first, second) = asked_twice(&client).await?;
        s3.forget_requests();
        duck::run(&plain, AGGREGATE)?;
        let plain_requests = s3.requests();
        s3.forget_requests();
        let cold_id = data::some_ids(&self.plain, self.rows, self.ids, Place::Cold, 1)?.remove(0);
        ask(&client, &format!("SELECT carrier FROM events WHERE row_id = '{cold_id}'")).await?;
        let lookup = s3.requests();
        let base = "/base/";
        case.ratio(
            "first query: base reads / plain's",
            count(&first, base) / count(&plain_requests, base),
            Target::AtMost(1.2),
        );
        case.series("plain, base reads", "requests", Samples::of([count(&plain_requests, base)]));
        case.series("first query, base reads", "requests", Samples::of([count(&first, base)]));
        case.series("first query, delta reads", "requests", Samples::of([count(&first, "/delta/")]));
        case.series("second query, base reads", "requests", Samples::of([count(&second, base)]));
        case.series("second query, delta reads", "requests", Samples::of([count(&second, "/delta/")]));
        case.series("second query, lists", "requests", Samples::of([lists(&second)]));
        let mut files: Vec<&str> =
            lookup.iter().filter(|request| request.is_read()).map(|request| request.path.as_str()).collect();
        files.sort_unstable();
        files.dedup();
        case.note(format!("a lookup of one cold row read {} of 30 files", files.len()));

        // The same with the manifest as the lake's catalog: nothing is listed. Health probes list now and then, so that the
        // least of some queries counts.
        drop(server);
        section.insert("catalog".to_owned(), "manifest".into());
        let server = start_server(&self.database, section).await?;
        let client = Client::connect(server.endpoint()).await?;
        let config = server.config_path().display().to_string();
        let imported = run(&["manifest", "import", "--config", &config]).await?;
        anyhow::ensure!(imported.success, "the manifest was not imported: {}", imported.stderr);
        let (first, second) = asked_twice(&client).await?;
        case.ratio(
            "manifest, first query: base reads / plain's",
            count(&first, base) / count(&plain_requests, base),
            Target::AtMost(1.2),
        );
        let mut least = lists(&first).min(lists(&second));
        for _ in 0..3 {
            least = least.min(lists(&asked_twice(&client).await?.1));
        }
        case.ratio("manifest: lists", least, Target::AtMost(0.0));
        case.series("manifest, first query, base reads", "requests", Samples::of([count(&first, base)]));
        case.series("manifest, second query, base reads", "requests", Samples::of([count(&second, base)]));
        self.done(case);
        Ok(())
    }
}
