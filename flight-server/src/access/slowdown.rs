//! Wrong credentials are answered later and later, by who tries from where. Nobody is locked out from elsewhere.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Failures that cost nothing.
const FREE: u32 = 5;
const FIRST: Duration = Duration::from_millis(250);
const LONGEST: Duration = Duration::from_secs(30);
/// Failures are forgotten after so long without another.
const FORGOTTEN_AFTER: Duration = Duration::from_secs(15 * 60);
/// Who tries is remembered for so many.
const MOST: usize = 10_000;

/// Who tries.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Trier {
    /// A user's name from a network: /24 of IPv4, /64 of IPv6.
    User(String, IpAddr),
    Address(IpAddr),
}

#[derive(Debug)]
struct Failures {
    count: u32,
    last: Instant,
}

#[derive(Debug, Default)]
pub(super) struct Slowdown(Mutex<HashMap<Trier, Failures>>);

impl Slowdown {
    /// How long to wait before this attempt is looked at. It counts as a failure until it has succeeded, so many at once wait
    /// like many in a row.
    pub(super) fn begin(&self, user: &str, address: IpAddr, now: Instant) -> Duration {
        let mut entries = self.lock();
        let mut wait = Duration::ZERO;
        for trier in triers(user, address) {
            if entries.len() >= MOST && !entries.contains_key(&trier) {
                let oldest = entries.iter().min_by_key(|(_, failures)| failures.last).map(|(trier, _)| trier.clone());
                oldest.and_then(|oldest| entries.remove(&oldest));
            }
            let failures = entries.entry(trier).or_insert(Failures { count: 0, last: now });
            if now.duration_since(failures.last) >= FORGOTTEN_AFTER {
                failures.count = 0;
            }
            if let Some(beyond) = failures.count.checked_sub(FREE) {
                wait = wait.max((FIRST * 2_u32.pow(beyond.min(10))).min(LONGEST));
            }
            failures.count = failures.count.saturating_add(1);
            failures.last = now;
        }
        wait
    }

    /// The attempt was no failure. Right credentials clear the name where they came from.
    pub(super) fn succeeded(&self, user: &str, address: IpAddr) {
        let [of_user, of_address] = triers(user, address);
        let mut entries = self.lock();
        entries.remove(&of_user);
        if let Some(failures) = entries.get_mut(&of_address) {
            failures.count = failures.count.saturating_sub(1);
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<Trier, Failures>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn triers(user: &str, address: IpAddr) -> [Trier; 2] {
    let address = address.to_canonical();
    let network = match address {
        IpAddr::V4(address) => IpAddr::V4(Ipv4Addr::from_bits(address.to_bits() & !0xff)),
        IpAddr::V6(address) => IpAddr::V6(Ipv6Addr::from_bits(address.to_bits() & !0 << 64)),
    };
    // A name is as long as whoever sends it likes.
    let user = user.chars().take(256).collect();
    [Trier::User(user, network), Trier::Address(address)]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_fails_waits_longer_and_nobody_else() {
        let (slowdown, now) = (Slowdown::default(), Instant::now());
        let begin = |user: &str, address: &str, now| slowdown.begin(user, address.parse().unwrap(), now).as_millis();
        let waits: Vec<u128> = (0..15).map(|_| begin("ann", "10.1.2.3", now)).collect();
        assert_eq!(waits, [0, 0, 0, 0, 0, 250, 500, 1000, 2000, 4000, 8000, 16000, 30000, 30000, 30000]);
        // The name from the same network, and any name from the same address.
        assert_ne!(begin("ann", "10.1.2.99", now), 0);
        assert_ne!(begin("bob", "10.1.2.3", now), 0);
        assert_eq!(begin("ann", "10.1.3.3", now), 0);
        slowdown.succeeded("ann", "10.1.2.99".parse().unwrap());
        assert_eq!(begin("ann", "10.1.2.99", now), 0);
        assert_eq!(begin("bob", "10.1.2.3", now + FORGOTTEN_AFTER), 0);
        // Who is right is never kept waiting, however often.
        for _ in 0..100 {
            assert_eq!(begin("eve", "10.9.9.9", now), 0);
            slowdown.succeeded("eve", "10.9.9.9".parse().unwrap());
        }
    }

    #[test]
    fn many_names_take_little_memory() {
        let (slowdown, now) = (Slowdown::default(), Instant::now());
        for name in 0..MOST as u64 + 100 {
            slowdown.begin(&name.to_string(), IpAddr::V4(Ipv4Addr::LOCALHOST), now + Duration::from_nanos(name));
        }
        assert_eq!(slowdown.lock().len(), MOST);
    }
}
