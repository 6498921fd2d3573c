//! The sample server: answers every request with its host name and version. Asked to end, it goes
//! on answering for a moment (until no Service sends to it any more), finishes what it has begun,
//! and ends with 0: a rolling update through it loses no request.

use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

/// How long it still takes new connections after SIGTERM.
const DRAIN: Duration = Duration::from_secs(3);
/// How long a connection may be silent.
const IDLE: Duration = Duration::from_secs(30);
const SIGINT: i32 = 2;
const SIGTERM: i32 = 15;
const SIG_BLOCK: i32 = 0;

static DRAINING: AtomicBool = AtomicBool::new(false);
static BUSY: AtomicUsize = AtomicUsize::new(0);

/// C's `sigset_t` on Linux.
type SignalSet = [u64; 16];

unsafe extern "C" {
    fn pthread_sigmask(how: i32, set: *const SignalSet, old: *mut SignalSet) -> i32;
    fn sigwait(set: *const SignalSet, signal: *mut i32) -> i32;
}

fn main() {
    let mut set: SignalSet = [0; 16];
    set[0] = 1 << (SIGINT - 1) | 1 << (SIGTERM - 1);
    unsafe { pthread_sigmask(SIG_BLOCK, &set, std::ptr::null_mut()) };
    let arguments: Vec<String> = std::env::args().collect();
    if let [_, verb, url] = arguments.as_slice()
        && verb == "get"
    {
        if let Err(error) = get(url) {
            eprintln!("{url}: {error}");
            std::process::exit(1);
        }
        return;
    }
    let port = std::env::var("PORT").unwrap_or_else(|_| "8080".to_owned());
    let address = format!("0.0.0.0:{port}");
    let listener = match TcpListener::bind(&address) {
        Ok(listener) => listener,
        Err(error) => {
            eprintln!("cannot listen on {address}: {error}");
            std::process::exit(1);
        }
    };
    println!("listening on {address}");
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            std::thread::spawn(move || serve(stream));
        }
    });
    let mut signal = 0;
    unsafe { sigwait(&set, &mut signal) };
    println!("signal {signal}: draining");
    DRAINING.store(true, Ordering::SeqCst);
    std::thread::sleep(DRAIN);
    while BUSY.load(Ordering::SeqCst) > 0 {
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// `sample get http://HOST[:PORT]/PATH`: a client for trying names and addresses from a pod.
fn get(url: &str) -> std::io::Result<()> {
    let rest = url.strip_prefix("http://").unwrap_or(url);
    let (host, path) = rest.split_once('/').unwrap_or((rest, ""));
    let address = if host.contains(':') { host.to_owned() } else { format!("{host}:80") };
    let mut stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(IDLE))?;
    write!(stream, "GET /{path} HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\n\r\n")?;
    let mut reader = BufReader::new(stream);
    let mut line = String::new();
    while reader.read_line(&mut line)? > 2 {
        line.clear();
    }
    std::io::copy(&mut reader, &mut std::io::stdout()).map(drop)
}

fn hostname() -> String {
    let text = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    text.trim().to_owned()
}

/// Answers requests on a connection until it ends.
fn serve(stream: TcpStream) {
    stream.set_read_timeout(Some(IDLE)).ok();
    stream.set_nodelay(true).ok();
    let Ok(mut out) = stream.try_clone() else { return };
    let mut reader = BufReader::new(stream);
    let version = std::env::var("SAMPLE_VERSION").unwrap_or_else(|_| "v1".to_owned());
    loop {
        let mut first = String::new();
        if reader.read_line(&mut first).unwrap_or(0) == 0 {
            return;
        }
        BUSY.fetch_add(1, Ordering::SeqCst);
        let mut length = 0;
        let mut keep = first.trim_end().ends_with("HTTP/1.1");
        loop {
            let mut line = String::new();
            if reader.read_line(&mut line).unwrap_or(0) <= 2 {
                break;
            }
            let line = line.to_ascii_lowercase();
            if let Some(text) = line.strip_prefix("content-length:") {
                length = text.trim().parse().unwrap_or(0);
            }
            keep &= !(line.starts_with("connection:") && line.contains("close"));
        }
        std::io::copy(&mut std::io::Read::take(&mut reader, length), &mut std::io::sink()).ok();
        keep &= !DRAINING.load(Ordering::SeqCst);
        let body = format!("{} {version}\n", hostname());
        let connection = if keep { "keep-alive" } else { "close" };
        let sent = write!(
            out,
            "HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\ncontent-length: {}\r\n\
             connection: {connection}\r\n\r\n{body}",
            body.len()
        );
        BUSY.fetch_sub(1, Ordering::SeqCst);
        if sent.is_err() || !keep {
            return;
        }
    }
}
