package bench

import (
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// throughput sends n bytes on one connection and gives MB/s, until the
// application has counted the last.
func throughput(p *path, n int64) (float64, error) {
	c, err := p.ask(askCount)
	if err != nil {
		return 0, err
	}
	defer c.Close()
	b := appBufs.Get().(*[256 << 10]byte)
	defer appBufs.Put(b)
	begin := time.Now()
	for left := n; left > 0; {
		m, err := c.Write(b[:min(left, int64(len(b)))])
		if err != nil {
			return 0, fmt.Errorf("%s: sending: %w", p.name, err)
		}
		left -= int64(m)
	}
	c.CloseWrite()
	var count [8]byte
	if _, err := io.ReadFull(c, count[:]); err != nil {
		return 0, fmt.Errorf("%s: waiting for the count: %w", p.name, err)
	}
	if got := int64(binary.BigEndian.Uint64(count[:])); got != n {
		return 0, fmt.Errorf("%s: sent %d bytes, %d arrived", p.name, n, got)
	}
	return float64(n) / 1e6 / time.Since(begin).Seconds(), nil
}

// ping sends one byte and waits for it, n times; the round trips come sorted.
func ping(p *path, n int) ([]time.Duration, error) {
	c, err := p.ask(askEcho)
	if err != nil {
		return nil, err
	}
	defer c.Close()
	var b [1]byte
	took := make([]time.Duration, 0, n)
	for i := range n + n/10 {
		begin := time.Now()
		if _, err := c.Write(b[:]); err != nil {
			return nil, fmt.Errorf("%s: %w", p.name, err)
		}
		if _, err := io.ReadFull(c, b[:]); err != nil {
			return nil, fmt.Errorf("%s: %w", p.name, err)
		}
		if i >= n/10 { // the first warm up
			took = append(took, time.Since(begin))
		}
	}
	slices.Sort(took)
	return took, nil
}

// connectRate makes n connections, each of which carries a byte each way, 16 at
// a time, and gives connections per second.
func connectRate(p *path, n int64) (float64, error) {
	var next atomic.Int64
	var first atomic.Pointer[error]
	var all sync.WaitGroup
	begin := time.Now()
	for range 16 {
		all.Go(func() {
			for next.Add(1) <= n {
				if err := once(p); err != nil {
					first.CompareAndSwap(nil, &err)
					return
				}
			}
		})
	}
	all.Wait()
	if err := first.Load(); err != nil {
		return 0, *err
	}
	return float64(n) / time.Since(begin).Seconds(), nil
}

func once(p *path) error {
	c, err := p.ask(askEcho)
	if err != nil {
		return err
	}
	defer c.Close()
	var b [1]byte
	if _, err := c.Write(b[:]); err != nil {
		return err
	}
	_, err = io.ReadFull(c, b[:])
	return err
}

// hold opens connections until there are n, each of which carries carried bytes
// and is then idle.
func hold(p *path, conns []*net.TCPConn, n int) ([]*net.TCPConn, error) {
	b := appBufs.Get().(*[256 << 10]byte)
	defer appBufs.Put(b)
	for len(conns) < n {
		c, err := p.ask(askCarry)
		if err != nil {
			return conns, err
		}
		conns = append(conns, c)
		for left := carried; left > 0; left -= len(b) {
			if _, err := c.Write(b[:min(left, len(b))]); err != nil {
				return conns, fmt.Errorf("%s: %w", p.name, err)
			}
		}
		if _, err := io.ReadFull(c, b[:1]); err != nil {
			return conns, fmt.Errorf("%s: %w", p.name, err)
		}
	}
	return conns, nil
}

// slope is the least-squares slope of y over x.
func slope(x, y []float64) float64 {
	var mx, my float64
	for i := range x {
		mx += x[i] / float64(len(x))
		my += y[i] / float64(len(y))
	}
	var xy, xx float64
	for i := range x {
		xy += (x[i] - mx) * (y[i] - my)
		xx += (x[i] - mx) * (x[i] - mx)
	}
	return xy / xx
}
