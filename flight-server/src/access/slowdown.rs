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
    /// How long to wait before this attempt is looked at.
    pub(super) fn wait(&self, user: &str, address: IpAddr, now: Instant) -> Duration {
        let entries = self.lock();
        let of = |trier: &Trier| {
            let failures = entries.get(trier).filter(|failures| now.duration_since(failures.last) < FORGOTTEN_AFTER)?;
            let beyond = failures.count.checked_sub(FREE)?;
            Some((FIRST * 2_u32.pow(beyond.min(10))).min(LONGEST))
        };
        triers(user, address).iter().filter_map(of).max().unwrap_or_default()
    }

    pub(super) fn failed(&self, user: &str, address: IpAddr, now: Instant) {
        let mut entries = self.lock();
        for trier in triers(user, address) {
            if entries.len() >= MOST && !entries.contains_key(&trier) {
                let oldest = entries.iter().min_by_key(|(_, failures)| failures.last).map(|(trier, _)| trier.clone());
                oldest.and_then(|oldest| entries.remove(&oldest));
            }
            let failures = entries.entry(trier).or_insert(Failures { count: 0, last: now });
            if now.duration_since(failures.last) >= FORGOTTEN_AFTER {
                failures.count = 0;
            }
            failures.count = failures.count.saturating_add(1);
            failures.last = now;
        }
    }

    /// Right credentials clear the name where they came from; the address stays as it is.
    pub(super) fn succeeded(&self, user: &str, address: IpAddr) {
        let [of_user, _] = triers(user, address);
        self.lock().remove(&of_user);
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
        let at = |text: &str| text.parse::<IpAddr>().unwrap();
        let waits: Vec<u128> = (0..14)
            .map(|_| {
                slowdown.failed("ann", at("10.1.2.3"), now);
                slowdown.wait("ann", at("10.1.2.3"), now).as_millis()
            })
            .collect();
        assert_eq!(waits, [0, 0, 0, 0, 250, 500, 1000, 2000, 4000, 8000, 16000, 30000, 30000, 30000]);
        // The name from the same network, and any name from the same address.
        assert!(!slowdown.wait("ann", at("10.1.2.99"), now).is_zero());
        assert!(!slowdown.wait("bob", at("10.1.2.3"), now).is_zero());
        assert!(slowdown.wait("ann", at("10.1.3.3"), now).is_zero());
        slowdown.succeeded("ann", at("10.1.2.99"));
        assert!(slowdown.wait("ann", at("10.1.2.99"), now).is_zero());
        assert!(slowdown.wait("bob", at("10.1.2.3"), now + FORGOTTEN_AFTER).is_zero());
    }

    #[test]
    fn many_names_take_little_memory() {
        let (slowdown, now) = (Slowdown::default(), Instant::now());
        for name in 0..MOST as u64 + 100 {
            slowdown.failed(&name.to_string(), IpAddr::V4(Ipv4Addr::LOCALHOST), now + Duration::from_nanos(name));
        }
        assert_eq!(slowdown.lock().len(), MOST);
    }
}
