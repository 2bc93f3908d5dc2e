// SPDX-License-Identifier: Apache-2.0
// A Rust program that sleeps in generic functions, a closure and a trait object, and in a thread that waits for a channel.
use std::io::Write;
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

trait Shape {
    fn area(&self, scale: u64) -> u64;
}

struct Square<T>(T);

impl<T: Into<u64> + Copy> Shape for Square<T> {
    #[inline(never)]
    fn area(&self, scale: u64) -> u64 {
        thread::sleep(Duration::from_secs(3600));
        let side: u64 = self.0.into();
        side * scale
    }
}

#[inline(never)]
fn middle(shape: &dyn Shape) -> u64 {
    shape.area(3) + std::hint::black_box(1)
}

#[inline(never)]
fn outer<F: Fn() -> u64>(f: F) -> u64 {
    f() + std::hint::black_box(1)
}

fn main() {
    let (sender, receiver) = mpsc::channel::<u64>();
    let waiter = thread::Builder::new().name("waiter".to_string()).spawn(move || receiver.recv().unwrap_or(0)).unwrap();
    let sleeper = thread::spawn(|| {
        let square = Square(7u32);
        outer(|| middle(&square))
    });
    thread::sleep(Duration::from_millis(100));
    println!("ready");
    std::io::stdout().flush().unwrap();
    let total = sleeper.join().unwrap();
    sender.send(total).unwrap();
    println!("{}", waiter.join().unwrap());
}
