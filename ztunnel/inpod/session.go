package inpod

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/ambit-mesh/ambit/internal/zds"
)

// Run stays connected to the agent and does what it asks until ctx is done.
// The pods go on being served; Drain ends them.
func (m *Manager) Run(ctx context.Context) error {
	var retrying sync.WaitGroup
	retrying.Go(func() { m.retryAll(ctx) })
	defer retrying.Wait()
	wait := backoff{}
	for ctx.Err() == nil {
		known, err := m.connect(ctx)
		m.config.Ready(false)
		if ctx.Err() != nil {
			break
		}
		if known {
			wait = backoff{}
		}
		pause := wait.next()
		m.log.Warn("not connected to the cni agent; what is served goes on", "error", err, "retry", pause)
		select {
		case <-time.After(pause):
		case <-ctx.Done():
		}
	}
	return nil
}

func (m *Manager) retryAll(ctx context.Context) {
	tick := time.NewTicker(m.config.Retry)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
			m.retry()
		case <-ctx.Done():
			return
		}
	}
}

// connect serves one connection to the agent until it ends, and says whether
// its snapshot arrived.
func (m *Manager) connect(ctx context.Context) (known bool, err error) {
	client, err := zds.Dial(ctx, m.config.Path)
	if err != nil {
		return false, err
	}
	defer client.Close()
	m.log.Info("connected to the cni agent", "path", m.config.Path)
	s := session{manager: m, snapshot: map[string]bool{}}
	for {
		r, err := client.Receive(ctx)
		if err == nil {
			err = s.handle(r)
		}
		var violation *zds.ProtocolError
		switch {
		case errors.Is(err, io.EOF):
			return s.known, errors.New("the agent has closed the connection")
		case errors.As(err, &violation):
			client.Ack(err) // the agent may still want to know
			return s.known, err
		case err != nil && r.Kind == 0:
			return s.known, err
		}
		if err != nil {
			m.log.Warn("agent's request not fulfilled", "request", r.Kind.String(), "pod", r.Pod.String(), "uid", r.Pod.UID, "error", err)
		}
		if err := client.Ack(err); err != nil {
			return s.known, fmt.Errorf("answering: %w", err)
		}
		if r.Kind == zds.SnapshotSent {
			m.config.Ready(true)
		}
	}
}

// session is what is particular to one connection.
type session struct {
	manager  *Manager
	snapshot map[string]bool // UIDs named before SnapshotSent
	known    bool            // SnapshotSent has come
}

func (s *session) handle(r zds.Request) error {
	uid := r.Pod.UID
	switch r.Kind {
	case zds.Add:
		if !s.known {
			s.snapshot[uid] = true
		}
		return s.manager.add(r.Pod, r.NetNS)
	case zds.Keep:
		if s.known {
			return &zds.ProtocolError{What: "keep after the snapshot"}
		}
		s.snapshot[uid] = true
	case zds.Del:
		delete(s.snapshot, uid)
		s.manager.remove(uid)
	case zds.SnapshotSent:
		if s.known {
			return &zds.ProtocolError{What: "second snapshot"}
		}
		s.known = true
		s.manager.keepOnly(s.snapshot)
		s.snapshot = nil
	}
	return nil
}

// The bounds of the pause between connections. The agent's socket is on this
// node and asking costs nothing, while every new pod waits for the answer: so
// the longest pause is short (upstream's is 15 s).
const (
	firstPause = 20 * time.Millisecond
	maxPause   = time.Second
)

// backoff doubles, with up to a fifth added at random.
type backoff struct{ last time.Duration }

func (b *backoff) next() time.Duration {
	b.last = min(max(2*b.last, firstPause), maxPause)
	return b.last + rand.N(b.last/5)
}
