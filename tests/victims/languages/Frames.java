// SPDX-License-Identifier: Apache-2.0
// A Java program whose main thread sleeps in nested methods; another waits for a lock.
public class Frames {
    static volatile int guard;

    static int inner(int n) throws Exception {
        Thread.sleep(3600000);
        return n + guard;
    }

    static int middle(int n) throws Exception {
        return inner(n) + guard;
    }

    static int outer(int n) throws Exception {
        return middle(n) + guard;
    }

    public static void main(String[] arguments) throws Exception {
        final Object lock = new Object();
        Thread waiter = new Thread(() -> {
            synchronized (lock) {
                try {
                    lock.wait();
                } catch (InterruptedException e) {
                    guard++;
                }
            }
        }, "waiter");
        waiter.setDaemon(true);
        waiter.start();
        Thread.sleep(200);
        System.out.println("ready");
        System.out.flush();
        guard += outer(1);
    }
}
