package cni_test

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/ambit-mesh/ambit/cni/event"
	"github.com/ambit-mesh/ambit/cni/netnstest"
)

// TestThePluginsSocketIsBounded: what is too large or too slow is cut, and
// however many hang, a pod starts.
func TestThePluginsSocketIsBounded(t *testing.T) {
	w := newWorld(t)
	w.agent()
	netnstest.NewZtunnel(t, w.cfg.ZtunnelSocket, nil)
	dial := func() net.Conn {
		t.Helper()
		c, err := net.Dial("unix", filepath.Join(w.cfg.RunDir, "pluginevent.sock"))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { c.Close() })
		c.SetDeadline(time.Now().Add(2 * netnstest.Patience))
		return c
	}
	head := func(length int) string {
		return fmt.Sprintf("POST %s HTTP/1.1\r\nHost: agent\r\nContent-Length: %d\r\n\r\n", event.AddPath, length)
	}
	answer := func(what string, c net.Conn) {
		t.Helper()
		r, err := http.ReadResponse(bufio.NewReader(c), nil)
		if err != nil {
			t.Fatalf("%s: %v", what, err)
		}
		if r.StatusCode != http.StatusBadRequest {
			t.Errorf("%s: status %d, want 400", what, r.StatusCode)
		}
	}
	large := dial()
	go io.WriteString(large, head(1<<30)+`{"PodName":"`+strings.Repeat("x", 128<<10))
	answer("a body without end", large)

	slow := dial()
	if _, err := io.WriteString(slow, head(100)+"{"); err != nil {
		t.Fatal(err)
	}
	answer("a body that does not come", slow)

	for range 300 {
		dial() // and says nothing
	}
	net := w.network()
	if err := w.add("ADD", w.pod(1, "shop", nil), net); err != nil {
		t.Errorf("beside 300 that hang: %v", err)
	}
	if way := w.way(net); way != "by 15001" {
		t.Errorf("its first connection went %q", way)
	}
}
