package dns

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/net/dns/dnsmessage"
)

func dialHere(ctx context.Context, network string, to netip.AddrPort) (net.Conn, error) {
	var d net.Dialer
	return d.DialContext(ctx, network, to.String())
}

func servers(at ...netip.AddrPort) func() ([]netip.AddrPort, error) {
	return func() ([]netip.AddrPort, error) { return at, nil }
}

func TestLookup(t *testing.T) {
	for _, tt := range []struct {
		sentence string
		answer   func(string, []byte) [][]byte
		want     string // addresses, or is in the error
	}{
		{"both families", says(dnsmessage.RCodeSuccess, false, "192.0.2.1", "2001:db8::1"), "[192.0.2.1 2001:db8::1]"},
		{"one family", says(dnsmessage.RCodeSuccess, false, "192.0.2.1"), "[192.0.2.1]"},
		{"an answer that comes whole by TCP only", says(dnsmessage.RCodeSuccess, true, "192.0.2.1", "192.0.2.2"), "[192.0.2.1 192.0.2.2]"},
		{"no address", says(dnsmessage.RCodeSuccess, false), "it has no address"},
		{"no such name", says(dnsmessage.RCodeNameError, false), "the resolver says NameError"},
	} {
		up := newResolver(t, tt.answer)
		got, err := NewLookup(servers(up.at), dialHere).Addresses(t.Context(), "api.example.com")
		slices.SortFunc(got, netip.Addr.Compare)
		text := fmt.Sprint(got)
		if err != nil {
			text = err.Error()
		}
		if !strings.Contains(text, tt.want) {
			t.Errorf("%s: %s, want %s", tt.sentence, text, tt.want)
		}
	}
	if _, err := NewLookup(servers(), dialHere).Addresses(t.Context(), "a..b"); err == nil {
		t.Error("a name that is none was asked for")
	}
}

// pipes is a name server in memory, for tests with a clock of their own.
func pipes(answer func(string, []byte) [][]byte) (Dial, *int) {
	asked := new(int)
	var mu sync.Mutex
	return func(context.Context, string, netip.AddrPort) (net.Conn, error) {
		near, far := net.Pipe()
		go func() {
			defer far.Close()
			buf := make([]byte, 4096)
			n, err := far.Read(buf)
			if err != nil {
				return
			}
			mu.Lock()
			*asked++
			mu.Unlock()
			for _, b := range answer("udp", buf[:n]) {
				far.Write(b)
			}
		}()
		return near, nil
	}, asked
}

func TestALookupIsRememberedNoLongerThanAllowed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dial, asked := pipes(says(dnsmessage.RCodeSuccess, false, "192.0.2.1"))
		l := NewLookup(servers(netip.MustParseAddrPort("192.0.2.53:53")), dial)
		var all sync.WaitGroup
		for range 10 { // at one time
			all.Go(func() { l.Addresses(t.Context(), "api.example.com") })
		}
		all.Wait()
		synctest.Wait()
		if *asked != 2 { // A and AAAA
			t.Errorf("asked %d times for callers at one time", *asked)
		}
		time.Sleep(ttl*time.Second - time.Millisecond)
		l.Addresses(t.Context(), "api.example.com")
		if *asked != 2 {
			t.Errorf("asked %d times while the answer lasts", *asked)
		}
		time.Sleep(time.Millisecond)
		l.Addresses(t.Context(), "api.example.com")
		if *asked != 4 {
			t.Errorf("asked %d times, want anew once the answer is over", *asked)
		}
	})
}

func TestAFailureIsNotRemembered(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dial, asked := pipes(func(string, []byte) [][]byte { return nil })
		l := NewLookup(servers(netip.MustParseAddrPort("192.0.2.53:53")), dial)
		for range 2 {
			if a, err := l.Addresses(t.Context(), "api.example.com"); err == nil {
				t.Errorf("found %v", a)
			}
		}
		if want := 2 * 2 * maxTries; *asked != want {
			t.Errorf("asked %d times, want %d", *asked, want)
		}
	})
}

func TestLookupsAreBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dial, _ := pipes(says(dnsmessage.RCodeSuccess, false, "192.0.2.1"))
		l := NewLookup(servers(netip.MustParseAddrPort("192.0.2.53:53")), dial)
		for i := range maxKept + 100 {
			l.Addresses(t.Context(), fmt.Sprintf("n%d.example.com", i))
		}
		if n := len(l.kept); n > maxKept {
			t.Errorf("%d names are kept", n)
		}
		synctest.Wait()
	})
}

func TestResolversAreReadFromTheFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "resolv.conf")
	write := func(text string, at time.Time) {
		t.Helper()
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Chtimes(path, at, at); err != nil {
			t.Fatal(err)
		}
	}
	r := NewResolvers(path)
	if _, err := r.Servers(); err == nil {
		t.Error("a file that is not there has no error")
	}
	start := time.Now()
	look := func() string {
		r.looked = time.Time{}
		all, err := r.Servers()
		if err != nil {
			return err.Error()
		}
		return fmt.Sprint(all)
	}
	write("# comment\nsearch a.b\nnameserver 10.96.0.10\nnameserver fd00::10\noptions ndots:5\nnameserver 127.0.0.53\nnameserver ::1\nnameserver x\nnameserver\n", start)
	if got := look(); got != "[10.96.0.10:53 [fd00::10]:53]" {
		t.Errorf("read %s", got)
	}
	write("nameserver 10.96.0.11\n", start.Add(time.Minute))
	if got := look(); got != "[10.96.0.11:53]" {
		t.Errorf("after a change: %s", got)
	}
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	if got := look(); got != "[10.96.0.11:53]" {
		t.Errorf("while it is being replaced: %s", got)
	}
	write("nameserver 127.0.0.53\n", start.Add(2*time.Minute))
	if got := look(); !strings.Contains(got, "names no name server that can be reached from a pod") {
		t.Errorf("with loopback alone: %s", got)
	}
}
