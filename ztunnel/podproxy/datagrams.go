package podproxy

import (
	"context"
	"errors"
	"net/netip"
	"sync"
	"time"

	"github.com/ambit-mesh/ambit/internal/linux"
	"github.com/ambit-mesh/ambit/internal/mesh"
	"github.com/ambit-mesh/ambit/ztunnel/datagrams"
	"github.com/ambit-mesh/ambit/ztunnel/inbound"
	"github.com/ambit-mesh/ambit/ztunnel/outbound"
)

// udp is what carries the datagrams that the pod's rules capture.
type udp struct {
	in  *inbound.Inbound
	out *outbound.Outbound

	mu      sync.Mutex
	begun   bool
	tables  []*datagrams.Table // once there are sockets
	answers *linux.Answers
	forget  func()        // of what was dropped
	ready   chan struct{} // closed when there will be no more tables
}

// flowsLeave is how long flows may still be answered after nothing new is taken of
// them. What programs send next, the next proxy takes.
const flowsLeave = 2 * time.Second

// plainly sends UDP from the pod and to its programs.
func (p *Proxy) plainly() datagrams.Direct { return datagrams.Direct{NS: p.ns, Mark: p.config.Mark} }

// captureDatagrams takes the pod's UDP once it is to be the mesh's. The agent
// captures a running pod's when there are sockets for it; a new pod's is dropped
// until then.
func (p *Proxy) captureDatagrams(w *mesh.Workload) {
	u := &p.udp
	u.mu.Lock()
	defer u.mu.Unlock()
	if !w.Settings.CaptureDatagrams || u.begun || p.accepting.Err() != nil {
		return
	}
	u.begun, u.ready = true, make(chan struct{})
	p.serving.Go(func() {
		defer close(u.ready)
		for told := false; ; {
			err := p.takeDatagrams()
			if err == nil || p.accepting.Err() != nil {
				return
			}
			if !told {
				told = true
				p.config.Logger.Warn("the pod's UDP cannot be taken, so nothing of it is carried", "error", err, "retry", bindAgain)
			}
			select {
			case <-time.After(bindAgain):
			case <-p.accepting.Done():
				return
			}
		}
	})
}

// takeDatagrams opens the sockets, all of them or none.
func (p *Proxy) takeDatagrams() (err error) {
	answers, err := linux.NewAnswers(p.accepting, p.ns)
	if err != nil {
		return err
	}
	loopbacks := []netip.Addr{netip.AddrFrom4([4]byte{127, 0, 0, 1})}
	if has, err := p.hasIPv6(); err != nil || has {
		loopbacks = append(loopbacks, netip.IPv6Loopback())
	}
	var sockets [2][]*linux.DatagramSocket
	for i, port := range []uint16{OutboundPort, InboundPort} {
		for _, lo := range loopbacks {
			if err != nil {
				break
			}
			var s *linux.DatagramSocket
			s, err = linux.ListenDatagrams(p.accepting, p.ns, netip.AddrPortFrom(lo, port), linux.ListenOptions{Mark: p.config.Mark, ReusePort: !p.config.NoReusePort})
			if err == nil {
				sockets[i] = append(sockets[i], s)
			}
		}
	}
	if err != nil {
		for _, s := range append(sockets[0], sockets[1]...) {
			s.Close()
		}
		return errors.Join(err, answers.Close())
	}
	u := &p.udp
	u.mu.Lock()
	defer u.mu.Unlock()
	u.answers = answers
	for i, carrier := range []datagrams.Carrier{u.out.Datagrams(p.plainly()), u.in.PlainDatagrams()} {
		table := datagrams.New(datagrams.Config{Carrier: carrier, Answers: answers, Unreplied: p.config.IdleFlow, Replied: p.config.IdleFlow, Logger: p.config.Logger})
		for _, s := range sockets[i] {
			table.Serve(s)
		}
		u.tables = append(u.tables, table)
	}
	u.forget = p.config.DatagramDrops.Watch(p.dropped)
	return nil
}

// dropped is what the tables dropped, by the reason.
func (p *Proxy) dropped() map[string]uint64 {
	p.udp.mu.Lock()
	tables := p.udp.tables
	p.udp.mu.Unlock()
	all := map[string]uint64{}
	for _, t := range tables {
		for why, n := range t.Dropped() {
			all[datagrams.Drop(why).String()] += n
		}
	}
	return all
}

// drainDatagrams takes no more, and lets the flows end. Nothing is accepted any
// more.
func (p *Proxy) drainDatagrams() {
	u := &p.udp
	u.mu.Lock()
	ready := u.ready
	u.mu.Unlock()
	if ready == nil {
		return // and will not be any more
	}
	<-ready
	ctx, cancel := context.WithTimeout(p.cut, flowsLeave)
	defer cancel()
	var all sync.WaitGroup
	for _, t := range u.tables {
		all.Go(func() {
			if err := t.Drain(ctx); err != nil {
				p.config.Logger.Warn("no longer taking datagrams", "error", err)
			}
		})
	}
	all.Wait()
	if u.answers != nil {
		u.answers.Close()
		u.forget()
	}
}
