package bench

import (
	"fmt"
	"io"
	"slices"
	"sync"
	"time"
)

const (
	smallBytes      = 256
	smallConcurrent = 100
)

// small compares many connections on each of which a few bytes go and come at a
// time: how many exchanges a second, and how long the slowest take.
func (s *stage) small(cfg *Config) ([]Row, error) {
	lasts := time.Duration(cfg.Seconds * float64(time.Second))
	slowest := map[*path][]float64{}
	got, err := rounds(cfg, "h2.small", []*path{s.frozen, s.hbone}, func(p *path) (float64, error) {
		took, err := exchanges(p, smallConcurrent, lasts)
		if err != nil {
			return 0, err
		}
		slices.Sort(took)
		slowest[p] = append(slowest[p], float64(percentile(took, 0.99))/1e3)
		return float64(len(took)) / lasts.Seconds(), nil
	})
	if err != nil {
		return nil, err
	}
	rps := measured("h2.small.rps", "1/s", got[s.hbone], got[s.frozen], s.frozen.name, Higher, 0.9)
	rps.Note = fmt.Sprintf("%d bytes there and back, on %d connections at once", smallBytes, smallConcurrent)
	p99 := measured("h2.small.p99", "us", slowest[s.hbone], slowest[s.frozen], s.frozen.name, Lower, 1.2)
	p99.Note = "of the same exchanges"
	return []Row{rps, p99}, nil
}

// exchanges goes on for so long on n connections, and gives what each took.
func exchanges(p *path, n int, lasts time.Duration) (all []time.Duration, err error) {
	var mu sync.Mutex
	var running sync.WaitGroup
	until := time.Now().Add(lasts)
	for range n {
		running.Go(func() {
			took, failed := backAndForth(p, until)
			mu.Lock()
			defer mu.Unlock()
			if all = append(all, took...); failed != nil && err == nil {
				err = failed
			}
		})
	}
	running.Wait()
	if err == nil && len(all) == 0 {
		err = fmt.Errorf("%s: nothing came back", p.name)
	}
	return all, err
}

func backAndForth(p *path, until time.Time) (took []time.Duration, err error) {
	c, err := p.ask(askEcho)
	if err != nil {
		return nil, err
	}
	defer c.Close()
	b := make([]byte, smallBytes)
	for time.Now().Before(until) {
		begin := time.Now()
		if _, err := c.Write(b); err != nil {
			return nil, fmt.Errorf("%s: %w", p.name, err)
		}
		if _, err := io.ReadFull(c, b); err != nil {
			return nil, fmt.Errorf("%s: %w", p.name, err)
		}
		took = append(took, time.Since(begin))
	}
	return took, nil
}

// besideBulk compares round trips while another connection of the same two pods
// carries all that it can.
func (s *stage) besideBulk(cfg *Config) ([]Row, error) {
	lasts := time.Duration(cfg.Seconds * float64(time.Second))
	got, err := rounds(cfg, "h2.ping.beside_bulk.p99", []*path{s.frozen, s.hbone}, func(p *path) (float64, error) {
		c, err := p.ask(askCount)
		if err != nil {
			return 0, err
		}
		ended := make(chan struct{})
		go func() {
			defer close(ended)
			b := appBufs.Get().(*[256 << 10]byte)
			defer appBufs.Put(b)
			for {
				if _, err := c.Write(b[:]); err != nil {
					return
				}
			}
		}()
		took, err := backAndForth(p, time.Now().Add(lasts))
		c.Close()
		<-ended
		if err != nil || len(took) == 0 {
			return 0, fmt.Errorf("%s: %d round trips: %w", p.name, len(took), err)
		}
		slices.Sort(took)
		return float64(percentile(took, 0.99)) / 1e3, nil
	})
	if err != nil {
		return nil, err
	}
	row := measured("h2.ping.beside_bulk.p99", "us", got[s.hbone], got[s.frozen], s.frozen.name, Lower, 1.3)
	row.Note = fmt.Sprintf("%d bytes there and back; ztunnel carries both in one tunnel", smallBytes)
	return []Row{row}, nil
}
