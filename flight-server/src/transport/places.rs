//! How many connections there are, of all and of each address.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

/// The places of connections.
#[derive(Debug)]
pub(crate) struct Places {
    max: usize,
    max_per_address: usize,
    taken: Mutex<Taken>,
    /// For whoever measures.
    open: Arc<AtomicI64>,
}

#[derive(Debug, Default)]
struct Taken {
    all: usize,
    by_address: HashMap<IpAddr, usize>,
}

/// Why there is no place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Full {
    All,
    Address,
}

/// The place of one connection, given up on drop.
#[derive(Debug)]
pub(crate) struct Place {
    places: Arc<Places>,
    address: IpAddr,
}

impl Places {
    /// `open` always holds the number of places that are taken.
    pub(crate) fn new(max: usize, max_per_address: usize, open: Arc<AtomicI64>) -> Self {
        Self { max, max_per_address, taken: Mutex::default(), open }
    }

    /// A place for a connection from `address`.
    pub(crate) fn enter(self: &Arc<Self>, address: IpAddr) -> Result<Place, Full> {
        let address = network(address);
        let mut taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        let of_address = taken.by_address.get(&address).copied().unwrap_or_default();
        if taken.all >= self.max {
            return Err(Full::All);
        }
        if of_address >= self.max_per_address {
            return Err(Full::Address);
        }
        taken.all += 1;
        taken.by_address.insert(address, of_address + 1);
        self.open.fetch_add(1, Ordering::Relaxed);
        Ok(Place { places: Arc::clone(self), address })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut taken = self.places.taken.lock().unwrap_or_else(PoisonError::into_inner);
        taken.all = taken.all.saturating_sub(1);
        self.places.open.fetch_sub(1, Ordering::Relaxed);
        if let Some(count) = taken.by_address.get_mut(&self.address) {
            *count -= 1;
            if *count == 0 {
                taken.by_address.remove(&self.address);
            }
        }
    }
}

/// What counts as one address: a client of IPv6 has the whole /64 to itself.
fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => {
            let [a, b, c, d, ..] = address.segments();
            IpAddr::V6(Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0))
        }
        address @ IpAddr::V4(_) => address,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_limited_and_given_back() {
        let open = Arc::new(AtomicI64::new(0));
        let places = Arc::new(Places::new(3, 2, Arc::clone(&open)));
        let enter = |text: &str| places.enter(text.parse::<IpAddr>().unwrap());
        let first = enter("10.0.0.1").unwrap();
        let _second = enter("::ffff:10.0.0.1").unwrap();
        assert_eq!(enter("10.0.0.1").unwrap_err(), Full::Address);
        let third = enter("2001:db8::1").unwrap();
        assert_eq!(enter("10.0.0.2").unwrap_err(), Full::All);
        drop(first);
        let _again = enter("2001:db8::ffff:2").unwrap();
        assert_eq!(open.load(Ordering::Relaxed), 3);
        drop(third);
        let _last = enter("2001:db8::3").unwrap();
        assert_eq!(enter("2001:db8::4").unwrap_err(), Full::All);
    }
}
