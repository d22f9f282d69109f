package bench

import (
	"context"
	"encoding/binary"
	"fmt"
	"net"
	"net/netip"
	"os"
	"time"

	"github.com/ambit-mesh/ambit/internal/linux"
)

// capturedDatagrams is where the pod's rules give what its programs send.
var capturedDatagrams = netip.MustParseAddrPort("127.0.0.1:15001")

const (
	// datagramSize fits into a packet of QUIC from its start.
	datagramSize = 1200
	// told is after how many datagrams the application says how many it got, and
	// window how many may be on their way: the sender is as fast as the path.
	told, window = 16, 128
	// overdue is what counts as lost.
	overdue = 20 * time.Millisecond
)

// runDatagramApp counts datagrams and tells: datagram-app ADDRESS.
func runDatagramApp(ctx context.Context, args []string, ready func()) error {
	at, err := netip.ParseAddrPort(args[0])
	if err != nil {
		return err
	}
	c, err := linux.ListenUDP(ctx, nil, at, linux.ListenOptions{})
	if err != nil {
		return err
	}
	c.SetReadBuffer(4 << 20)
	context.AfterFunc(ctx, func() { c.Close() })
	ready()
	b := make([]byte, 2*datagramSize)
	for got := uint64(0); ; {
		n, from, err := c.ReadFromUDPAddrPort(b)
		switch {
		case ctx.Err() != nil:
			return nil
		case err != nil:
			return err
		case n == 1: // how many so far?
		case n > 1:
			if got++; got%told != 0 {
				continue
			}
		}
		c.WriteToUDPAddrPort(binary.BigEndian.AppendUint64(nil, got), from)
	}
}

// datagramRate sends for a time, never more ahead of the application than window,
// and gives how many arrived in a second, and the share that did not.
func datagramRate(p *path, lasts time.Duration) (rate, lost float64, err error) {
	c, err := linux.DialUDP(context.Background(), p.ns, p.to, linux.DialOptions{})
	if err != nil {
		return 0, 0, err
	}
	defer c.Close()
	before, err := asked(c)
	if err != nil {
		return 0, 0, fmt.Errorf("%s: %w", p.name, err)
	}
	b := make([]byte, datagramSize)
	var sent, arrived, given uint64 // given up as lost
	begin := time.Now()
	for time.Since(begin) < lasts {
		for sent-arrived-given < window {
			if _, err := c.Write(b); err != nil {
				return 0, 0, fmt.Errorf("%s: sending: %w", p.name, err)
			}
			sent++
		}
		n, err := count(c, overdue)
		switch {
		case err == nil:
			arrived = max(arrived, n-before)
		case os.IsTimeout(err):
			given = sent - arrived
		default:
			return 0, 0, fmt.Errorf("%s: %w", p.name, err)
		}
	}
	took := time.Since(begin)
	time.Sleep(overdue)
	after, err := asked(c)
	if err != nil {
		return 0, 0, fmt.Errorf("%s: %w", p.name, err)
	}
	return float64(after-before) / took.Seconds(), 1 - float64(after-before)/float64(sent), nil
}

// asked is how many the application has got.
func asked(c *net.UDPConn) (n uint64, err error) {
	for range 100 {
		if _, err := c.Write([]byte{0}); err != nil {
			return 0, err
		}
		if n, err = count(c, 100*time.Millisecond); err == nil {
			// The newest answer counts: others may have waited before it.
			for err == nil {
				var next uint64
				if next, err = count(c, overdue); err == nil {
					n = max(n, next)
				}
			}
			return n, nil
		}
	}
	return 0, fmt.Errorf("the application does not tell: %w", err)
}

func count(c *net.UDPConn, patience time.Duration) (uint64, error) {
	var b [8]byte
	c.SetReadDeadline(time.Now().Add(patience))
	if _, err := c.Read(b[:]); err != nil {
		return 0, err
	}
	return binary.BigEndian.Uint64(b[:]), nil
}

// bulkH3 compares one stream through two ztunnels over HTTP/3 with one of QUIC.
func (s *stage) bulkH3(cfg *Config) ([]Row, error) {
	got, err := rounds(cfg, "h3.bulk.1", []*path{s.quic, s.overH3}, func(p *path) (float64, error) { return throughput(p, cfg.Bytes/4) })
	if err != nil {
		return nil, err
	}
	row := measured("h3.bulk.1", "MB/s", got[s.overH3], got[s.quic], s.quic.name, Higher, 0.9)
	row.Note = "one stream"
	return []Row{row}, nil
}

// datagramsH3 compares a flow of UDP through two ztunnels with QUIC's datagrams.
func (s *stage) datagramsH3(cfg *Config) ([]Row, error) {
	lost := map[*path][]float64{}
	got, err := rounds(cfg, "udp.pps", []*path{s.quic, s.overH3}, func(p *path) (float64, error) {
		rate, missing, err := datagramRate(p, time.Duration(cfg.Seconds*float64(time.Second)))
		lost[p] = append(lost[p], 100*missing)
		return rate, err
	})
	if err != nil {
		return nil, err
	}
	row := measured("udp.pps", "1/s", got[s.overH3], got[s.quic], s.quic.name, Higher, 0.8)
	row.Note = fmt.Sprintf("%d bytes each, %d on their way; lost %.2f %%, by the baseline %.2f %%", datagramSize, window, median(lost[s.overH3]), median(lost[s.quic]))
	return []Row{row}, nil
}
