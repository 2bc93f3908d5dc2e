// SPDX-License-Identifier: Apache-2.0
// A node program that logs an error with its stack when a line with "fail" comes, and goes on, as servers do.
'use strict';

class AccountError extends Error {
    constructor(number) {
        super(`no such account: ${number}`);
        this.name = 'AccountError';
    }
}

function find(accounts, number) {
    if (!accounts.has(number))
        throw new AccountError(number);
    return accounts.get(number);
}

function checkOut(number) {
    return find(new Map([[1, 'a']]), number);
}

require('readline').createInterface({ input: process.stdin }).on('line', (line) => {
    try {
        if (line.startsWith('fail'))
            checkOut(4711);
        throw new RangeError('only a warm word');
    } catch (e) {
        console.error(e.stack);
    }
});
