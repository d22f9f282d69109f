package datagrams

import (
	"context"
	"errors"
	"fmt"
	"net"
	"time"

	"github.com/ambit-mesh/ambit/internal/linux"
)

// Source is where captured datagrams come from: a linux.DatagramSocket.
type Source interface {
	Receive(take func(linux.Datagram)) error
	// Lost is how many the kernel has thrown away.
	Lost() (uint32, error)
	Close() error
}

// pause is between two receptions that failed.
const pause = time.Second

// Serve takes what comes from a source, which it owns from here on.
func (t *Table) Serve(s Source) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.draining {
		s.Close()
		return
	}
	t.sources = append(t.sources, s)
	t.running.Go(func() { t.receive(s) })
}

func (t *Table) receive(s Source) {
	for {
		err := s.Receive(t.Take)
		switch {
		case err == nil:
			continue
		case errors.Is(err, net.ErrClosed):
			return
		}
		t.Logger.Warn("receiving a pod's datagrams", "error", err, "retry", pause)
		select {
		case <-time.After(pause):
		case <-t.cut.Done():
			return
		}
	}
}

// Dropped counts what was dropped so far: on flows, before there was one, and by
// the kernel.
func (t *Table) Dropped() Drops {
	t.mu.Lock()
	defer t.mu.Unlock()
	d := t.dropped.all()
	for _, s := range t.sources {
		lost, _ := s.Lost() // fails when it is closed only
		d[Overrun] += uint64(lost)
	}
	return d
}

// stopTaking closes the sources; flows go on.
func (t *Table) stopTaking() error {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.draining = true
	var errs []error
	for _, s := range t.sources {
		lost, _ := s.Lost()
		t.dropped[Overrun].Add(uint64(lost))
		errs = append(errs, s.Close())
	}
	t.sources = nil
	return errors.Join(errs...)
}

// Drain takes no more, waits until every flow has ended, and cuts those that are
// left when ctx is done. It returns when all have ended.
func (t *Table) Drain(ctx context.Context) error {
	err := t.stopTaking()
	stop := context.AfterFunc(ctx, func() { t.cancel(ErrDrained) })
	defer stop()
	t.running.Wait()
	t.cancel(ErrDrained)
	if err != nil {
		return fmt.Errorf("draining datagrams: %w", err)
	}
	return nil
}
