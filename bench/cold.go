package bench

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"os"
	"time"

	"github.com/ambit-mesh/ambit/internal/hbone"
	"github.com/ambit-mesh/ambit/internal/hbone/h2"
	"github.com/ambit-mesh/ambit/internal/relay"
	"github.com/ambit-mesh/ambit/internal/spiffe"
)

// boundless lets one address make more tunnels than a server otherwise allows:
// here it stands for all the clients of a pod.
const boundless = 1 << 20

// runColdOut makes a tunnel for each connection: cold-out LISTEN TO CAFILE
// drop|keep. It drops it with the connection, or keeps it without streams.
func runColdOut(ctx context.Context, args []string, ready func()) error {
	creds, stop, err := credentials(ctx, args[2])
	if err != nil {
		return err
	}
	defer stop()
	to, err := netip.ParseAddrPort(args[1])
	if err != nil {
		return err
	}
	dialer := h2.NewDialer(h2.Config{
		Credentials: creds,
		Connect:     func(_ context.Context, to netip.AddrPort) (net.Conn, error) { return dial(to.String(), netip.Addr{}) },
	})
	l, err := net.Listen("tcp", args[0])
	if err != nil {
		return err
	}
	ready()
	return accept(ctx, l, func(c *net.TCPConn) {
		t, err := dialer.Dial(ctx, hbone.Target{Address: to, Self: clientID, Accept: []spiffe.ID{serverID}})
		if err != nil {
			fmt.Fprintln(os.Stderr, "cold tunnel:", err)
			c.Close()
			return
		}
		if args[3] == "drop" {
			defer t.Close()
		}
		s, _, err := t.Open(ctx, hbone.Request{Authority: "app:8080"})
		if err != nil {
			fmt.Fprintln(os.Stderr, "cold tunnel:", err)
			c.Close()
			return
		}
		relay.Run(ctx, c, s, nil)
	})
}

// connectCold compares tunnels that are made anew for each connection with two
// hops of raw TLS, which do so too, with the same certificates.
func (s *stage) connectCold(cfg *Config) ([]Row, error) {
	n := int64(cfg.Connections / 3)
	cpu := map[*path][]float64{} // milliseconds per connection
	got, err := rounds(cfg, "connect.rate.cold", []*path{s.frozen, s.cold}, func(p *path) (float64, error) {
		before := cpuOf(s.hops[p])
		v, err := connectRate(p, n)
		cpu[p] = append(cpu[p], (cpuOf(s.hops[p])-before)*1000/float64(n))
		return v, err
	})
	if err != nil {
		return nil, err
	}
	row := measured("connect.rate.cold", "1/s", got[s.cold], got[s.frozen], s.frozen.name, Higher, 0)
	row.Note = fmt.Sprintf("a new tunnel, with its handshake, for each connection; 16 at a time; processor of both hops %.2f ms a connection, raw TLS %.2f",
		median(cpu[s.cold]), median(cpu[s.frozen]))
	return []Row{row}, nil
}

// idleTunnels measures what a tunnel without streams holds at both ends.
func (s *stage) idleTunnels(cfg *Config) ([]Row, error) {
	most := max(5, cfg.Idle/4)
	var x, y []float64
	for i := range 6 { // a first part is for what the processes hold anyway
		for range most / 5 {
			if err := once(s.kept); err != nil {
				return nil, err
			}
		}
		time.Sleep(300 * time.Millisecond)
		var sum float64
		for _, c := range s.hops[s.kept] {
			r, err := c.resident()
			if err != nil {
				return nil, err
			}
			sum += r
		}
		cfg.say("idle.tunnel.bytes: %d tunnels, %.1f MiB", (i+1)*(most/5), sum/(1<<20))
		if i > 0 {
			x, y = append(x, float64((i+1)*(most/5))), append(y, sum)
		}
	}
	row := measured("idle.tunnel.bytes", "B", []float64{slope(x, y)}, nil, "", Lower, 0)
	row.Note = fmt.Sprintf("both processes together, of a tunnel that has carried a stream and has none; slope over N up to %d", most*6/5)
	return []Row{row}, nil
}
