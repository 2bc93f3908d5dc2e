// SPDX-License-Identifier: Apache-2.0
// A node program that waits in its event loop ("idle"), sleeps in nested functions ("wait") or computes in them ("spin").
'use strict';
const how = process.argv[2];

function inner(n) {
    if (how === 'wait')
        Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0);
    let x = n;
    for (;;)
        x = (x * 31 + 7) | 0;
    return x;
}

function middle(n) {
    return inner(n) + 1;
}

function outer(n) {
    return middle(n) + 1;
}

require('fs').writeSync(1, 'ready\n');
if (how === 'idle')
    setInterval(() => {}, 3600000);
else
    outer(3);
