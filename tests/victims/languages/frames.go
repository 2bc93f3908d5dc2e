// SPDX-License-Identifier: Apache-2.0
// A Go program with an idle goroutine, and one that sleeps in a system call, in nested functions, on a thread of its own.
package main

import (
	"fmt"
	"runtime"
	"syscall"
	"time"
)

var guard int

//go:noinline
func inner(fds []int) int {
	data := make([]byte, 1)
	n, _ := syscall.Read(fds[0], data)
	return n + guard
}

//go:noinline
func middle(fds []int) int { return inner(fds) + guard }

//go:noinline
func outer(fds []int) int { return middle(fds) + guard }

func main() {
	fds := make([]int, 2)
	syscall.Pipe(fds)
	go func() {
		runtime.LockOSThread()
		guard += outer(fds)
	}()
	time.Sleep(100 * time.Millisecond)
	fmt.Println("ready")
	select {
	case <-time.After(time.Hour):
	}
}
