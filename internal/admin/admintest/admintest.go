// Package admintest asks the servers beside a proxy, for tests of whole
// proxies. It refuses to know what they should say.
package admintest

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"
)

// FreePort is one that nobody listens on.
func FreePort(t *testing.T) uint16 {
	t.Helper()
	l, err := net.Listen("tcp", ":0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return port(l)
}

// TakenPort is one that somebody listens on until the test ends.
func TakenPort(t *testing.T) uint16 {
	t.Helper()
	l, err := net.Listen("tcp", ":0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	return port(l)
}

func port(l net.Listener) uint16 { return uint16(l.Addr().(*net.TCPAddr).Port) }

// Get asks once.
func Get(port uint16, path string) (status int, body string, err error) {
	resp, err := http.Get(fmt.Sprintf("http://127.0.0.1:%d%s", port, path))
	if err != nil {
		return 0, "", err
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	return resp.StatusCode, string(b), err
}

// Until asks until the answer has the status and contains the text, and gives
// its body.
func Until(t *testing.T, port uint16, path string, status int, contains string) string {
	t.Helper()
	var last string
	for deadline := time.Now().Add(15 * time.Second); time.Now().Before(deadline); time.Sleep(5 * time.Millisecond) {
		code, body, err := Get(port, path)
		if err == nil && code == status && strings.Contains(body, contains) {
			return body
		}
		last = fmt.Sprint(code, body, err)
	}
	t.Fatalf("%s: %s; want %d with %q", path, last, status, contains)
	return ""
}

// Ends waits for the end of what runs, with an error that contains want; empty
// wants none. It puts the error back, so that a cleanup may ask again.
func Ends(t *testing.T, done chan error, want string) {
	t.Helper()
	select {
	case err := <-done:
		if want == "" && err != nil || want != "" && (err == nil || !strings.Contains(err.Error(), want)) {
			t.Errorf("ended with %v, want %q", err, want)
		}
		done <- err
	case <-time.After(20 * time.Second):
		t.Fatal("it does not end")
	}
}
