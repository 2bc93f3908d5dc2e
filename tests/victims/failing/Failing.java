// SPDX-License-Identifier: Apache-2.0
// A Java program that prints an exception with its cause when a line with "fail" comes, and goes on, as servers do.
import java.io.BufferedReader;
import java.io.InputStreamReader;
import java.util.Map;
import java.util.NoSuchElementException;

public class Failing {
    static class AccountException extends RuntimeException {
        AccountException(String message, Throwable cause) {
            super(message, cause);
        }
    }

    static String find(Map<Integer, String> accounts, int number) {
        String found = accounts.get(number);
        if (found == null)
            throw new NoSuchElementException("key " + number);
        return found;
    }

    static String checkOut(int number) {
        try {
            return find(Map.of(1, "a"), number);
        } catch (NoSuchElementException e) {
            throw new AccountException("no such account: " + number, e);
        }
    }

    public static void main(String[] arguments) throws Exception {
        BufferedReader in = new BufferedReader(new InputStreamReader(System.in));
        for (String line = in.readLine(); line != null; line = in.readLine()) {
            try {
                if (line.startsWith("fail"))
                    checkOut(4711);
                throw new IllegalStateException("only a warm word");
            } catch (RuntimeException e) {
                e.printStackTrace();
            }
        }
    }
}
