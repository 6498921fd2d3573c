//! The pause program: holds a pod's namespaces, reaps what its containers leave behind, and ends
//! at once when asked to. It needs no library at all, so its image is a few kilobytes.
#![no_std]
#![no_main]

use core::arch::{asm, global_asm};
use core::panic::PanicInfo;

// The kernel's signal set as the system calls take it: one bit a signal.
const SIGINT: u64 = 1 << (2 - 1);
const SIGTERM: u64 = 1 << (15 - 1);
const SIGCHLD: u64 = 1 << (17 - 1);
const SIGCHLD_NUMBER: isize = 17;
const SIG_BLOCK: usize = 0;
const WNOHANG: usize = 1;

#[cfg(target_arch = "x86_64")]
mod numbers {
    pub const SIGPROCMASK: usize = 14;
    pub const EXIT: usize = 60;
    pub const WAIT4: usize = 61;
    pub const SIGTIMEDWAIT: usize = 128;
}
#[cfg(target_arch = "aarch64")]
mod numbers {
    pub const SIGPROCMASK: usize = 135;
    pub const EXIT: usize = 93;
    pub const WAIT4: usize = 260;
    pub const SIGTIMEDWAIT: usize = 137;
}

#[cfg(target_arch = "x86_64")]
global_asm!(".globl _start", "_start:", "and rsp, -16", "call {main}", main = sym main);
#[cfg(target_arch = "aarch64")]
global_asm!(".globl _start", "_start:", "bl {main}", main = sym main);

/// One system call.
unsafe fn call(number: usize, a: usize, b: usize, c: usize, d: usize) -> isize {
    let result;
    #[cfg(target_arch = "x86_64")]
    unsafe {
        asm!("syscall", inlateout("rax") number as isize => result, in("rdi") a, in("rsi") b,
            in("rdx") c, in("r10") d, lateout("rcx") _, lateout("r11") _, options(nostack));
    }
    #[cfg(target_arch = "aarch64")]
    unsafe {
        asm!("svc 0", in("x8") number, inlateout("x0") a as isize => result, in("x1") b,
            in("x2") c, in("x3") d, options(nostack));
    }
    result
}

extern "C" fn main() -> ! {
    // A blocked signal is never ignored, not even by the first process of a namespace.
    let signals = SIGINT | SIGTERM | SIGCHLD;
    let set = &raw const signals as usize;
    unsafe { call(numbers::SIGPROCMASK, SIG_BLOCK, set, 0, size_of::<u64>()) };
    loop {
        match unsafe { call(numbers::SIGTIMEDWAIT, set, 0, 0, size_of::<u64>()) } {
            SIGCHLD_NUMBER => {
                while unsafe { call(numbers::WAIT4, usize::MAX, 0, WNOHANG, 0) } > 0 {}
            }
            signal if signal > 0 => {
                unsafe { call(numbers::EXIT, 0, 0, 0, 0) };
            }
            // Interrupted: wait again.
            _ => {}
        }
    }
}

#[panic_handler]
fn panic(_: &PanicInfo<'_>) -> ! {
    loop {
        unsafe { call(numbers::EXIT, 1, 0, 0, 0) };
    }
}
