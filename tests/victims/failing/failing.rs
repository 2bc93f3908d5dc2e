// SPDX-License-Identifier: Apache-2.0
// A Rust program whose main thread panics when a line with "fail" comes (exit code 101); "warm": a panic that is caught.
use std::io::BufRead;

#[derive(Debug)]
struct Account(u32);

#[inline(never)]
fn find(accounts: &[Account], number: u32) -> &Account {
    accounts.iter().find(|a| a.0 == number).unwrap_or_else(|| panic!("no such account: {}", number))
}

#[inline(never)]
fn check_out(number: u32) -> u32 {
    find(&[Account(1), Account(2)], number).0
}

fn main() {
    for line in std::io::stdin().lock().lines() {
        match line.unwrap_or_default().as_str() {
            "fail" => {
                check_out(4711);
            }
            _ => {
                let _ = std::panic::catch_unwind(|| panic!("only a warm word"));
            }
        }
    }
}
