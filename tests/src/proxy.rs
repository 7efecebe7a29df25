//! A TCP proxy in this process, between the server under test and a source: hangs, resets, cuts and slow links.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use anyhow::Result;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{ReadHalf, WriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{oneshot, watch};

/// Bytes that are passed on at once.
const CHUNK: usize = 16 * 1024;

/// What happens to every connection, those that are open included.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Link {
    Pass,
    /// Connections are taken, and nothing goes through.
    Hang,
    /// Connections are reset.
    Refuse,
    /// What the source sends comes at this many bytes a second.
    Slow(usize),
    /// Nothing goes through any more once the source has sent this many bytes on a connection.
    HangAfter(usize),
    /// A connection is reset once the source has sent this many bytes on it; then what follows goes through, or the next
    /// connection is cut too.
    CutAfter {
        bytes: usize,
        times: usize,
    },
}

/// A running proxy. Dropping it closes its port and its connections.
#[derive(Debug)]
pub struct Proxy {
    address: SocketAddr,
    shared: Arc<Shared>,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<std::thread::JoinHandle<()>>,
}

#[derive(Debug)]
struct Shared {
    link: watch::Sender<Link>,
    accepted: AtomicUsize,
    open: AtomicUsize,
    /// Connections that stand still after [`Link::HangAfter`].
    held: AtomicUsize,
    /// What is left of the times of [`Link::CutAfter`].
    cuts_left: AtomicUsize,
}

/// A connection is to be reset.
struct Cut;

impl Proxy {
    /// Starts a proxy of `target` on a free port of the loopback interface.
    ///
    /// # Errors
    /// No thread or port can be had.
    pub fn start(target: SocketAddr) -> Result<Self> {
        let listener = std::net::TcpListener::bind("127.0.0.1:0")?;
        listener.set_nonblocking(true)?;
        let address = listener.local_addr()?;
        let shared = Arc::new(Shared {
            link: watch::Sender::new(Link::Pass),
            accepted: AtomicUsize::new(0),
            open: AtomicUsize::new(0),
            held: AtomicUsize::new(0),
            cuts_left: AtomicUsize::new(0),
        });
        let (stop, stopped) = oneshot::channel();
        let serving = Arc::clone(&shared);
        // A thread of its own: a test that blocks its runtime doesn't block the link.
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let thread = std::thread::Builder::new().name("proxy".to_owned()).spawn(move || {
            runtime.block_on(async move {
                let listener = TcpListener::from_std(listener).expect("a listener that was just bound");
                tokio::select! {
                    () = serve(listener, target, serving) => (),
                    _ = stopped => (),
                }
            });
        })?;
        Ok(Self { address, shared, stop: Some(stop), thread: Some(thread) })
    }

    pub fn port(&self) -> u16 {
        self.address.port()
    }

    /// What happens from now on. Bytes are counted from here.
    pub fn set(&self, link: Link) {
        if let Link::CutAfter { times, .. } = link {
            self.shared.cuts_left.store(times, Ordering::Release);
        }
        self.shared.link.send_replace(link);
    }

    /// Connections that were ever taken.
    pub fn accepted(&self) -> usize {
        self.shared.accepted.load(Ordering::Acquire)
    }

    /// Connections that are open.
    pub fn open(&self) -> usize {
        self.shared.open.load(Ordering::Acquire)
    }

    /// Connections that stand still after [`Link::HangAfter`].
    pub fn held(&self) -> usize {
        self.shared.held.load(Ordering::Acquire)
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        if let Some(stop) = self.stop.take()
            && stop.send(()).is_err()
        {
            eprintln!("a proxy ended before it was told to");
        }
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            eprintln!("the thread of a proxy panicked");
        }
    }
}

async fn serve(listener: TcpListener, target: SocketAddr, shared: Arc<Shared>) {
    loop {
        let Ok((client, _)) = listener.accept().await else { continue };
        shared.accepted.fetch_add(1, Ordering::AcqRel);
        shared.open.fetch_add(1, Ordering::AcqRel);
        let shared = Arc::clone(&shared);
        tokio::spawn(async move {
            connect(client, target, &shared).await;
            shared.open.fetch_sub(1, Ordering::AcqRel);
        });
    }
}

async fn connect(mut client: TcpStream, target: SocketAddr, shared: &Shared) {
    let is_refused = *shared.link.borrow() == Link::Refuse;
    let mut source = if is_refused { None } else { TcpStream::connect(target).await.ok() };
    if let Some(source) = &mut source {
        let (mut from_client, mut to_client) = client.split();
        let (mut from_source, mut to_source) = source.split();
        let up = pump(&mut from_client, &mut to_source, shared, false);
        let down = pump(&mut from_source, &mut to_client, shared, true);
        if futures::future::try_join(up, down).await.is_ok() {
            return;
        }
    }
    for socket in source.iter().chain([&client]) {
        // A peer that has gone needs no reset.
        drop(socket.set_zero_linger());
    }
}

/// Passes bytes on until the sender is done.
async fn pump(
    from: &mut ReadHalf<'_>,
    to: &mut WriteHalf<'_>,
    shared: &Shared,
    is_downstream: bool,
) -> Result<(), Cut> {
    let mut link = shared.link.subscribe();
    let mut buffer = vec![0; CHUNK];
    // Since the link last changed.
    let mut passed = 0;
    loop {
        let size = tokio::select! {
            // What comes belongs to the link as it is now.
            biased;
            _ = link.changed() => {
                passed = 0;
                if *link.borrow_and_update() == Link::Refuse {
                    return Err(Cut);
                }
                continue;
            }
            size = from.read(&mut buffer) => size.map_err(|_| Cut)?,
        };
        if size == 0 {
            return to.shutdown().await.map_err(|_| Cut);
        }
        loop {
            if link.has_changed().map_err(|_| Cut)? {
                passed = 0;
            }
            let now = *link.borrow_and_update();
            match now {
                Link::Refuse => return Err(Cut),
                Link::Hang => {
                    hold(&mut link).await?;
                    passed = 0;
                }
                Link::HangAfter(bytes) if is_downstream && passed + size > bytes => {
                    shared.held.fetch_add(1, Ordering::AcqRel);
                    let held = hold(&mut link).await;
                    shared.held.fetch_sub(1, Ordering::AcqRel);
                    held?;
                    passed = 0;
                }
                Link::CutAfter { bytes, .. } if is_downstream && passed + size > bytes => {
                    // Others may have been cut so often that this one goes on.
                    let less = |left: usize| left.checked_sub(1);
                    if shared.cuts_left.fetch_update(Ordering::AcqRel, Ordering::Acquire, less).is_ok() {
                        return Err(Cut);
                    }
                    break;
                }
                Link::Slow(rate) if is_downstream => {
                    tokio::time::sleep(Duration::from_secs(1).mul_f64(size as f64 / rate as f64)).await;
                    break;
                }
                Link::Pass | Link::Slow(_) | Link::HangAfter(_) | Link::CutAfter { .. } => break,
            }
        }
        passed += size;
        to.write_all(&buffer[..size]).await.map_err(|_| Cut)?;
    }
}

/// Waits until the link changes.
async fn hold(link: &mut watch::Receiver<Link>) -> Result<(), Cut> {
    link.changed().await.map_err(|_| Cut)
}
