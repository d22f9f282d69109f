package inpod_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"os"
	"regexp"
	"strconv"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/ambit-mesh/ambit/internal/linux"
	"github.com/ambit-mesh/ambit/internal/mesh"
)

// program is an application of a pod that can be killed: its sockets go with it.
type program struct {
	listener *net.TCPListener
	mu       sync.Mutex
	open     []*net.TCPConn
}

// program serves an echo at a port of the pod.
func (p *pod) program(port uint16) *program {
	p.w.t.Helper()
	l, err := linux.ListenTCP(context.Background(), p.ns, netip.AddrPortFrom(netip.IPv6Unspecified(), port), linux.ListenOptions{})
	if err != nil {
		p.w.t.Fatal(err)
	}
	a := &program{listener: l}
	go func() { // ends with the listener
		for c, err := l.AcceptTCP(); err == nil; c, err = l.AcceptTCP() {
			a.mu.Lock()
			a.open = append(a.open, c)
			a.mu.Unlock()
			go greet(c) // ends with the connection
		}
	}()
	p.w.t.Cleanup(a.kill)
	return a
}

func (a *program) kill() {
	a.listener.Close()
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, c := range a.open {
		c.Close()
	}
}

// holders is how many descriptors of this process lead to a namespace, and
// whether its cable still ends on the node: it does until nobody holds it.
func holders(n *node, of linux.NetNSID, cable string) (files int, stands bool) {
	entries, _ := os.ReadDir("/proc/self/fd")
	for _, e := range entries {
		var st unix.Stat_t
		if unix.Stat("/proc/self/fd/"+e.Name(), &st) == nil && st.Ino == of.Ino && uint64(st.Dev) == of.Dev {
			files++
		}
	}
	err := n.ns.Do(func() error { _, err := net.InterfaceByName(cable); return err })
	return files, err == nil
}

var openTunnels = regexp.MustCompile(`(?m)^ambit_tunnels_open (\d+)$`)

// tunnels is how many a node's ztunnel has open.
func (z *runningZtunnel) tunnels() (int, error) {
	r, err := http.Get(z.metrics)
	if err != nil {
		return 0, err
	}
	defer r.Body.Close()
	text, err := io.ReadAll(r.Body)
	if err != nil {
		return 0, err
	}
	m := openTunnels.FindSubmatch(text)
	if m == nil {
		return 0, errors.New("the metrics do not tell of tunnels")
	}
	return strconv.Atoi(string(m[1]))
}

// TestAPodWhoseNetworkNamespaceVanishesIsLetGoOf: its processes are gone, and
// nobody but the node's proxy holds its namespace, which lives on by that alone.
// Nothing of it stays there, nor at its peers, others are served as before, and
// so is the pod in the namespace that it gets next.
func TestAPodWhoseNetworkNamespaceVanishesIsLetGoOf(t *testing.T) {
	needsRoot(t)
	for _, tt := range []struct {
		what string
		// tornDown is set if the runtime has taken the pod's interface away first.
		tornDown bool
	}{
		{"its interface goes with it", false},
		{"its interface went before", true},
	} {
		t.Run(tt.what, func(t *testing.T) {
			w := bare(t, "one", "two")
			w.pings = 3 * time.Second
			w.boot()
			here, there := w.nodes[0], w.nodes[1]
			client := w.newPod(here, "client").enrolled()
			server := w.newPod(there, "server").enrolled()
			server.echo(8080)
			if _, err := client.call(server.at(8080)); err != nil {
				t.Fatal(err)
			}
			before, err := here.ztunnels[0].tunnels()
			if err != nil {
				t.Fatal(err)
			}

			gone := w.newPod(there, "gone").enrolled()
			app, cable, id := gone.program(8080), fmt.Sprintf("pod%d", there.pods), gone.ns.ID()
			held, err := client.dial(gone.at(8080))
			if err != nil {
				t.Fatal(err)
			}
			defer held.Close()
			if _, err := speak(held, "hello"); err != nil {
				t.Fatal(err)
			}
			if tt.tornDown { // no word of the kill gets out
				ip(t, gone.ns, "link del eth0")
			}
			app.kill()
			gone.ns.Close()
			if files, stands := holders(there, id, cable); files == 0 || stands == tt.tornDown {
				t.Fatalf("the proxy holds the namespace by %d files, the cable stands: %v", files, stands)
			}
			if _, err := client.call(server.at(8080)); err != nil {
				t.Errorf("another pod of the node, meanwhile: %v", err)
			}

			there.release(gone)
			w.change(func(m *mesh.Model) { delete(m.Workloads, gone.workload) })
			// A peer whose tunnel was cut off without a word finds out by its pings.
			held.SetDeadline(time.Now().Add(time.Minute))
			if _, err := held.Read(make([]byte, 1)); err == nil || errors.Is(err, os.ErrDeadlineExceeded) {
				t.Errorf("the connection to what is gone lives on: %v", err)
			}
			held.Close()
			eventually(t, func() error {
				if files, stands := holders(there, id, cable); files > 0 || stands {
					return fmt.Errorf("the namespace is held by %d files, its cable stands: %v", files, stands)
				}
				return nil
			})
			if s, known := dumpOf(t, there.ztunnels[0])["uid-gone"]; known {
				t.Errorf("the pod is %s", s.State)
			}
			eventually(t, func() error {
				now, err := here.ztunnels[0].tunnels()
				if err == nil && now > before {
					err = fmt.Errorf("its peer has %d tunnels open, before it was there %d", now, before)
				}
				return err
			})

			again := w.newPod(there, "gone").enrolled() // the same pod, in another namespace
			again.echo(8080)
			for _, to := range []*pod{again, server} {
				if _, err := client.call(to.at(8080)); err != nil {
					t.Errorf("%s afterwards: %v", to.name, err)
				}
			}
		})
	}
}
