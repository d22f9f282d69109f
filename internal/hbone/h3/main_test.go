package h3

import (
	"fmt"
	"os"
	"runtime"
	"strings"
	"testing"
	"time"
)

// TestMain fails the package if a goroutine of ours is left behind.
func TestMain(m *testing.M) {
	code := m.Run()
	for end := time.Now().Add(10 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		left := ours()
		if left == "" {
			os.Exit(code)
		}
		if time.Now().After(end) {
			fmt.Fprintf(os.Stderr, "goroutines are left behind:\n%s\n", left)
			os.Exit(1)
		}
	}
}

// ours are the stacks of goroutines in this module, but for the one that asks.
func ours() string {
	b := make([]byte, 4<<20)
	stacks := strings.Split(string(b[:runtime.Stack(b, true)]), "\n\n")
	var found []string
	for _, s := range stacks[1:] {
		if strings.Contains(s, "ambit/internal/") {
			found = append(found, s)
		}
	}
	return strings.Join(found, "\n\n")
}
