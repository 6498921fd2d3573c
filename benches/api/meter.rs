//! Medians, and what `/proc` says of a process.
//!
//! Why a process's own processor time: with client and server on the same cores, work per
//! processor second shows a loss that the shared client would hide.

use std::time::Duration;

/// Clock ticks of `/proc/PID/stat` per second (`USER_HZ`, the same on every Linux).
const TICKS_PER_SECOND: f64 = 100.0;

/// The middle of the values, or the mean of the two in the middle.
pub fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    match sorted.len() {
        0 => f64::NAN,
        odd if odd % 2 == 1 => sorted[odd / 2],
        even => f64::midpoint(sorted[even / 2 - 1], sorted[even / 2]),
    }
}

/// "median (least-most)".
pub fn spread(values: &[f64], digits: usize) -> String {
    let least = values.iter().copied().fold(f64::INFINITY, f64::min);
    let most = values.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    format!("{:.digits$} ({least:.digits$}-{most:.digits$})", median(values))
}

/// The share's percentile of the times, in milliseconds.
pub fn percentile(times: &mut [Duration], share: f64) -> f64 {
    times.sort();
    let at = (times.len().saturating_sub(1) as f64 * share) as usize;
    times.get(at).map_or(f64::NAN, |time| time.as_secs_f64() * 1000.0)
}

/// A field of `/proc/PID/status` that is given in kB, in MB (2^20 bytes).
fn status_mb(pid: u32, field: &str) -> f64 {
    let text = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix(field));
    let kb = line.and_then(|rest| rest.trim_matches([':', ' ', '\t']).strip_suffix(" kB"));
    kb.and_then(|kb| kb.parse::<f64>().ok()).map_or(f64::NAN, |kb| kb / 1024.0)
}

/// Resident memory now, in MB.
pub fn resident_mb(pid: u32) -> f64 {
    status_mb(pid, "VmRSS")
}

/// The most memory that was resident since the start, or since [`forget_peak`], in MB.
pub fn peak_mb(pid: u32) -> f64 {
    status_mb(pid, "VmHWM")
}

/// Lets the kernel count the peak from now on (`/proc/PID/clear_refs`).
pub fn forget_peak(pid: u32) -> std::io::Result<()> {
    std::fs::write(format!("/proc/{pid}/clear_refs"), "5")
}

/// Processor time of a process so far, in seconds.
pub fn processor_seconds(pid: u32) -> f64 {
    let text = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    // The name in parentheses may hold spaces; the two times are fields 14 and 15.
    let rest = text.rsplit_once(')').map_or("", |(_, rest)| rest);
    let ticks: f64 = rest
        .split_whitespace()
        .skip(11)
        .take(2)
        .filter_map(|field| field.parse::<f64>().ok())
        .sum();
    ticks / TICKS_PER_SECOND
}

/// The machine's load averages, to be read beside every figure.
pub fn load_averages() -> String {
    let text = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    text.split(' ').take(2).collect::<Vec<_>>().join(" ")
}
