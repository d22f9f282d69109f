package exchange

import (
	"io"
	"testing"

	"github.com/ambit-mesh/ambit/internal/mesh"
	"github.com/ambit-mesh/ambit/waypoint/backendtest"
)

// BenchmarkRequest is one request by HTTP/1.1 with everything around the
// waypoint in the same process.
func BenchmarkRequest(b *testing.B) {
	for _, name := range []string{"plain", "hbone"} {
		b.Run(name, func(b *testing.B) {
			r := newRig(b)
			if name == "plain" {
				r.service("web", mesh.AppHTTP11, r.mesh.Plain("web", backendtest.Named("web")))
			} else {
				r.service("web", mesh.AppHTTP11, r.pod("web", backendtest.Named("web")))
			}
			c := r.client(false)
			b.ReportAllocs()
			for b.Loop() {
				resp, err := c.Get("http://web/")
				if err != nil {
					b.Fatal(err)
				}
				io.Copy(io.Discard, resp.Body)
				resp.Body.Close()
			}
		})
	}
}
