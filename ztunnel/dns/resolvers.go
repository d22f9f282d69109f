package dns

import (
	"fmt"
	"net/netip"
	"os"
	"strings"
	"sync"
	"time"
)

// Resolvers are the name servers of a resolv.conf, read again when it changes.
type Resolvers struct {
	path string

	mu      sync.Mutex
	looked  time.Time
	changed time.Time
	servers []netip.AddrPort
	err     error
}

// NewResolvers reads the file at path; empty is /etc/resolv.conf.
func NewResolvers(path string) *Resolvers {
	if path == "" {
		path = "/etc/resolv.conf"
	}
	return &Resolvers{path: path}
}

// Servers are whom to ask, in order; the error says why there is nobody.
func (r *Resolvers) Servers() ([]netip.AddrPort, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if now := time.Now(); r.looked.IsZero() || now.Sub(r.looked) >= time.Second {
		r.looked = now
		r.readLocked()
	}
	return r.servers, r.err
}

// readLocked keeps what was read before while the file cannot be read: it is
// being replaced.
func (r *Resolvers) readLocked() {
	stat, err := os.Stat(r.path)
	if err == nil && stat.ModTime().Equal(r.changed) {
		return
	}
	var text []byte
	if err == nil {
		text, err = os.ReadFile(r.path)
	}
	if err != nil {
		if len(r.servers) == 0 {
			r.err = fmt.Errorf("reading the name servers: %w", err)
		}
		return
	}
	r.changed = stat.ModTime()
	r.servers = parseResolvers(string(text))
	if r.err = nil; len(r.servers) == 0 {
		r.err = fmt.Errorf("%s names no name server that can be reached from a pod", r.path)
	}
}

// parseResolvers leaves out loopback, which inside a pod is the pod's own.
func parseResolvers(text string) []netip.AddrPort {
	var out []netip.AddrPort
	for line := range strings.Lines(text) {
		word := strings.Fields(line)
		if len(word) < 2 || word[0] != "nameserver" {
			continue
		}
		if a, err := netip.ParseAddr(word[1]); err == nil && !a.Unmap().IsLoopback() && !a.IsUnspecified() {
			out = append(out, netip.AddrPortFrom(a.Unmap(), 53))
		}
	}
	return out
}
