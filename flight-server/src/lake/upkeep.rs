//! What compacting an entity's files would gain, from statistics alone.

use translator::lake::LakeFile;
use translator::options::Tier;
use translator::planner::window_reason;

/// From this many delta files on compaction is due.
const MANY_DELTA_FILES: usize = 10;
/// Delta rows, in percent of the base rows, from which on compaction is due.
const LARGE_DELTA: u64 = 10;
/// Superseded versions, in percent of all versions, from which on compaction is due.
const LARGE_SUPERSEDED: u64 = 20;

/// Versions that newer ones in delta files hide, and that a compaction removes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Superseded {
    /// At most so many of each file, in the order of the files.
    pub by_file: Vec<u64>,
    pub warm: u64,
    pub cold: u64,
}

impl Superseded {
    /// Bounds the number of superseded versions: a delta file hides at most as many as it has rows, and only in files
    /// whose range of ids meets its own and that aren't wholly newer.
    pub fn of(files: &[LakeFile]) -> Self {
        let mut this = Self { by_file: Vec::with_capacity(files.len()), warm: 0, cold: 0 };
        // Whether each file hides anything, by the tier of what it hides.
        let mut hides = vec![(false, false); files.len()];
        for file in files {
            let mut newer = 0_u64;
            for (other, hides) in files.iter().zip(&mut hides) {
                if file.row_count > 0 && may_hide(other, file) {
                    newer = newer.saturating_add(other.row_count);
                    *(if file.tier == Tier::Warm { &mut hides.0 } else { &mut hides.1 }) = true;
                }
            }
            this.by_file.push(newer.min(file.row_count));
        }
        let total = |tier: Tier, hides_tier: fn(&(bool, bool)) -> bool| {
            let bounds = files.iter().zip(&this.by_file).filter(|(file, _)| file.tier == tier);
            let hiding = files.iter().zip(&hides).filter(|(_, hides)| hides_tier(hides));
            let hiding: u64 = hiding.map(|(file, _)| file.row_count).sum();
            bounds.map(|(_, bound)| bound).sum::<u64>().min(hiding)
        };
        (this.warm, this.cold) = (total(Tier::Warm, |hides| hides.0), total(Tier::Cold, |hides| hides.1));
        this
    }

    pub fn of_tier(&self, tier: Tier) -> u64 {
        match tier {
            Tier::Hot => 0,
            Tier::Warm => self.warm,
            Tier::Cold => self.cold,
        }
    }
}

fn may_hide(newer: &LakeFile, older: &LakeFile) -> bool {
    let meet = |left: Option<(u128, u128)>, right: Option<(u128, u128)>| {
        left.zip(right).is_none_or(|(left, right)| left.0 <= right.1 && right.0 <= left.1)
    };
    let is_older = newer.changed_at_range.zip(older.changed_at_range).is_none_or(|(newer, older)| newer.1 >= older.0);
    newer.tier == Tier::Warm && newer.path != older.path && is_older && meet(newer.row_id_range, older.row_id_range)
}

/// Why compaction is due; `None` while it isn't. The first of these that holds:
/// queries can only merge these files by `window`; ten delta files; delta rows are a tenth of the base rows; a fifth of
/// all versions may be superseded.
pub fn compaction_due(files: &[LakeFile]) -> Option<String> {
    let rows = |tier: Tier| files.iter().filter(|file| file.tier == tier).map(|file| file.row_count).sum::<u64>();
    let (delta_rows, base_rows) = (rows(Tier::Warm), rows(Tier::Cold));
    let delta_files = files.iter().filter(|file| file.tier == Tier::Warm).count();
    let percent = |part: u64, whole: u64| part.saturating_mul(100).checked_div(whole).unwrap_or(0);
    if let Some(reason) = window_reason(files) {
        return Some(format!("queries merge by `window`: {reason}"));
    }
    if delta_files >= MANY_DELTA_FILES {
        return Some(format!("{delta_files} delta files"));
    }
    let share = percent(delta_rows, base_rows);
    if share >= LARGE_DELTA {
        return Some(format!("delta files hold {share} % as many rows as base files"));
    }
    let superseded = Superseded::of(files);
    let share = percent(superseded.warm + superseded.cold, delta_rows + base_rows);
    (share >= LARGE_SUPERSEDED).then(|| format!("up to {share} % of the versions in files are superseded"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(tier: Tier, path: &str, ids: (u128, u128), changed: (i64, i64), row_count: u64) -> LakeFile {
        LakeFile {
            etag: None,
            path: path.to_owned(),
            tier,
            bytes: row_count,
            row_count,
            row_id_range: Some(ids),
            changed_at_range: Some(changed),
            unique_rows: true,
            may_hold_tombstones: false,
            row_groups: std::sync::Arc::default(),
            columns: Vec::new(),
        }
    }

    fn base() -> Vec<LakeFile> {
        vec![
            file(Tier::Cold, "a", (0, 99), (0, 9), 500),
            file(Tier::Cold, "b", (100, 199), (0, 9), 500),
            file(Tier::Cold, "c", (200, 299), (0, 9), 500),
        ]
    }

    #[test]
    fn what_delta_files_reach_may_be_superseded() {
        let of = |delta: Vec<LakeFile>| Superseded::of(&[base(), delta].concat());
        let none = of(vec![file(Tier::Warm, "d", (300, 400), (10, 19), 50)]);
        assert_eq!((none.warm, none.cold), (0, 0));
        // It reaches into two files, and hides no more than it has.
        let spread = of(vec![file(Tier::Warm, "d", (50, 150), (10, 19), 50)]);
        assert_eq!((spread.warm, spread.cold, &spread.by_file), (0, 50, &vec![50, 50, 0, 0]));
        // The second delta file hides rows of the first one, not the other way round.
        let both =
            of(vec![file(Tier::Warm, "d", (300, 400), (10, 19), 50), file(Tier::Warm, "e", (390, 500), (20, 29), 20)]);
        assert_eq!((both.warm, both.cold, &both.by_file[3..]), (20, 0, &[20, 0][..]));
    }

    #[test]
    fn compaction_is_due_by_rule() {
        let due = |delta: Vec<LakeFile>| compaction_due(&[base(), delta].concat());
        let small = |number: i64| file(Tier::Warm, &format!("d{number}"), (0, 299), (10 + number, 10 + number), 1);
        assert_eq!(due(vec![]), None);
        assert_eq!(due((0..9).map(small).collect()), None);
        assert_eq!(due((0..10).map(small).collect()).as_deref(), Some("10 delta files"));
        let large = file(Tier::Warm, "d", (300, 400), (10, 19), 150);
        assert_eq!(due(vec![large]).as_deref(), Some("delta files hold 10 % as many rows as base files"));
        let older = file(Tier::Warm, "d", (0, 99), (0, 5), 1);
        assert!(due(vec![older]).unwrap().starts_with("queries merge by `window`: "));
        let again = |number: i64| file(Tier::Warm, &format!("d{number}"), (0, 9), (number, number), 10);
        let delta_only: Vec<LakeFile> = (0..3).map(again).collect();
        let expected = "up to 66 % of the versions in files are superseded";
        assert_eq!(compaction_due(&delta_only).as_deref(), Some(expected));
        assert_eq!(compaction_due(&delta_only[..1]), None);
    }
}
