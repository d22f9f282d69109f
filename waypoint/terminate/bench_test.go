package terminate

import (
	"io"
	"net"
	"testing"

	"github.com/ambit-mesh/ambit/internal/mesh"
	"github.com/ambit-mesh/ambit/waypoint/backendtest"
)

// BenchmarkBytes carries 1 MiB from tunnel to tunnel.
func BenchmarkBytes(b *testing.B) {
	r := newRig(b)
	r.service("db", 1, mesh.AppTCP, r.pod("db", backendtest.TCP(func(c *net.TCPConn) { io.Copy(io.Discard, c); c.Close() })))
	s := r.mustOpen("10.96.0.1:80")
	p := make([]byte, 1<<20)
	b.SetBytes(int64(len(p)))
	for b.Loop() {
		if _, err := s.Write(p); err != nil {
			b.Fatal(err)
		}
	}
}
